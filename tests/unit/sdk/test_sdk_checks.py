"""Checks of what nodes answer, and of what placers answer."""

from __future__ import annotations

import pytest

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Decision, Ranked, Refused
from mesh.core.types import RequestContext, SpiffeId, node_id
from mesh.sdk.checks import MAX_EMPTY_DELTAS, ProtocolBreach, StreamCheck, check_embeddings
from mesh.sdk.placers import read_answer, refusal_message, refusal_of
from sovereign.mesh.v1 import envelope_pb2, placement_pb2

NODE = node_id("de.mesh.example", "fra-1")
OTHER = node_id("fr.mesh.example", "par-1")
CONTEXT = RequestContext.of(["public"], "press/leaflet")


def begun(max_tokens: int = 4) -> StreamCheck:
    check = StreamCheck(NODE, max_tokens)
    check.on_started(str(NODE))
    return check


def test_a_stream_that_keeps_the_protocol():
    check = begun()
    check.on_delta("a", 1)
    check.on_delta("", 0)
    check.on_delta("bc", 2)
    check.on_finished("stop", 3)
    assert check.tokens == 3
    assert check.finished


def test_hidden_tokens_may_be_counted_at_the_end():
    check = begun()
    check.on_delta("a", 1)
    check.on_finished("stop", 2)


def test_a_stop_string_may_end_it_before_any_text():
    check = begun()
    check.on_finished("stop", 0)


@pytest.mark.parametrize("after", ["started", "delta", "finished"])
def test_nothing_comes_after_the_end(after: str):
    check = begun()
    check.on_finished("length", 0)
    moves = {
        "started": lambda: check.on_started(str(NODE)),
        "delta": lambda: check.on_delta("x", 1),
        "finished": lambda: check.on_finished("stop", 0),
    }
    with pytest.raises(ProtocolBreach):
        moves[after]()


def test_empty_deltas_are_bounded():
    check = begun()
    for _ in range(MAX_EMPTY_DELTAS):
        check.on_delta("", 0)
    with pytest.raises(ProtocolBreach):
        check.on_delta("", 0)


def test_a_breach_is_a_lost_node_and_repeats_nothing_of_the_text():
    with pytest.raises(ProtocolBreach) as breach:
        begun().on_delta("secret" * 100_000, 1)
    assert breach.value.reason is Reason.NODE_LOST
    assert "secret" not in str(breach.value)


def test_embeddings_of_unit_length_pass():
    check_embeddings([[1.0, 0.0], [0.6, 0.8]], 2, str(NODE), NODE)


def target(node: SpiffeId, dns_name: str = "", endpoint: str = "127.0.0.1:1") -> placement_pb2.Target:
    return placement_pb2.Target(
        node=str(node),
        endpoints=[endpoint],
        dns_name=dns_name or f"{node.name}.node.{node.trust_domain}",
        permit=envelope_pb2.Envelope(statement=b"x"),
        model_digest="sha256:aa",
    )


def answer(*targets: placement_pb2.Target, ranked: tuple[Ranked, ...] = ()) -> placement_pb2.PlaceResponse:
    decision = Decision(
        id="d",
        permitted=bool(ranked),
        ranked=ranked,
        refused=(),
        refused_total=0,
        considered=len(ranked),
        decided_by=SpiffeId("de.mesh.example", "/control/main"),
    )
    return placement_pb2.PlaceResponse(decision=codec.decision_to_pb(decision), targets=targets)


def test_an_answer_becomes_targets_in_the_order_of_its_ranking():
    found = answer(target(OTHER), target(NODE), ranked=(Ranked(NODE, 0.0, "DE"), Ranked(OTHER, 0.5, "FR")))
    _, targets = read_answer(found, CONTEXT)
    assert [t.node for t in targets] == [NODE, OTHER]


@pytest.mark.parametrize(
    "targets",
    [
        (target(OTHER),),
        (target(NODE), target(NODE)),
        (target(NODE, dns_name="iad-1.node.us.mesh.example"),),
        (target(NODE, endpoint="nowhere"),),
        (target(NODE, endpoint="unix:/tmp/x"),),
        tuple(target(node_id("de.mesh.example", f"n{i}")) for i in range(100)),
    ],
    ids=["not ranked", "twice", "another's name", "no port", "not host:port", "too many"],
)
def test_I1_an_answer_that_does_not_add_up_is_not_used_in_part(targets: tuple[placement_pb2.Target, ...]):
    with pytest.raises(MeshError) as refused:
        read_answer(answer(*targets, ranked=(Ranked(NODE, 0.0, "DE"),)), CONTEXT)
    assert refused.value.reason is Reason.REQUEST_INVALID


def test_I3_an_answer_that_ignores_the_callers_narrowing_is_refused():
    narrowed = RequestContext.of(["public"], "press/leaflet", allowed_jurisdictions=["FR"])
    with pytest.raises(MeshError):
        read_answer(answer(target(NODE), ranked=(Ranked(NODE, 0.0, "DE"),)), narrowed)


def refused(*reasons: Reason) -> Decision:
    found = tuple(Refused(NODE, reason, "because") for reason in reasons)
    return Decision("d", False, (), found, len(found), len(found))


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ((), Reason.NO_NODE_AVAILABLE),
        ((Reason.POLICY_SENDER_DENIES, Reason.NARROWED_JURISDICTION), Reason.NOT_PERMITTED),
        ((Reason.POLICY_SENDER_DENIES, Reason.NODE_NOT_READY), Reason.NO_NODE_AVAILABLE),
        ((Reason.MODEL_NOT_SERVED,), Reason.MODEL_UNKNOWN),
        ((Reason.MODEL_NOT_SERVED, Reason.POLICY_SENDER_DENIES), Reason.NOT_PERMITTED),
        ((Reason.RECORDS_STALE,), Reason.NOT_PERMITTED),
    ],
)
def test_what_a_refusal_comes_down_to(reasons: tuple[Reason, ...], expected: Reason):
    assert refusal_of(refused(*reasons)) is expected


def test_a_refusal_says_the_first_few_nodes_and_how_many_more():
    text = refusal_message(refused(*[Reason.POLICY_SENDER_DENIES] * 10))
    assert text.count("fra-1") == 4
    assert text.endswith("and 6 more")
