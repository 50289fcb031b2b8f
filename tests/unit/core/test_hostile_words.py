"""What a hostile authority or node may say in its records, and how far it gets: it is refused, or cut.

Answers name up to a thousand nodes, so whatever is said of one of them is multiplied (found by attack: a
placement of a hundred hostile nodes grew past what a caller can receive, for every caller).
"""

from __future__ import annotations

import pytest

from mesh import codec
from mesh.core.decision import MAX_DETAIL_CHARS, MAX_NAMED_POLICIES
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.records import RecordKey, RecordType
from mesh.core.snapshot import Heads
from mesh.core.types import Action, Model, NodeRecord, RequestContext, SpiffeId, Task
from tests.support.snapshots import DE, FR, MODEL, NOW, PERMIT_ALL, client, idle, node, snapshot_of

# An answer has to fit through a channel; mesh/rpc/channels.py and server.py allow 16 MiB.
ANSWER_BYTES = 4 * 1024 * 1024


def answer_bytes(policies: dict[str, str], *, explain: bool = True, **context: object) -> int:
    """The size of the answer about 1,000 nodes in FR to a caller in DE."""
    mesh = snapshot_of([node(FR, f"n{i}") for i in range(1000)], policies)
    decision = Placer().place(
        mesh,
        idle(mesh.candidates.values()),
        principal=client(),
        action=Action.INFER,
        context=RequestContext.of(["public"], "x", **context),  # type: ignore[arg-type]
        model="tiny",
        placer=SpiffeId(DE, "/node/berlin"),
        now=NOW,
        decision_id="d",
        explain=explain,
    )
    for refused in decision.refused:
        assert len(refused.detail) <= MAX_DETAIL_CHARS
        assert refused.detail.isprintable()
        assert len(refused.policies) <= MAX_NAMED_POLICIES
    return codec.decision_to_pb(decision).ByteSize()


def many(effect: str) -> str:
    """As many policies, with ids as long, as a policy set may hold; all of them determine the answer."""
    return "".join(f'@id("{"x" * 120}{i}") {effect} (principal, action, resource);\n' for i in range(700))


@pytest.mark.slow
@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_thousands_of_determining_policies_do_not_swell_the_answer(effect: str) -> None:
    assert answer_bytes({DE: PERMIT_ALL, FR: many(effect)}) < ANSWER_BYTES


@pytest.mark.slow
def test_the_name_of_a_group_that_is_not_defined_is_cut() -> None:
    group = "\x1b[2J" + "G" * 100_000
    cedar = f'@id("p") permit (principal, action, resource in Group::"{group}");'
    assert answer_bytes({DE: PERMIT_ALL, FR: cedar.replace("\x1b", "\\u{1b}")}) < ANSWER_BYTES


@pytest.mark.slow
def test_a_callers_own_long_narrowing_is_not_multiplied() -> None:
    assurances = [f"{i:02}" + "a" * 60 for i in range(32)]
    assert answer_bytes({DE: PERMIT_ALL, FR: PERMIT_ALL}, required_assurances=assurances) < ANSWER_BYTES


@pytest.mark.parametrize(
    "key",
    [
        "/sovereign/v1/fr.mesh.example/" + "x" * 250,
        "/sovereign/v1/fr.mesh.example/facts/\x1b[2J",
        "/sovereign/v1/fr.mesh.example/facts/\u202e",
        "/sovereign/v1/de.mesh.example/policy",
        "/sovereign/v1/fr.mesh.example.evil/policy",
        "",
    ],
)
def test_heads_name_keys_of_their_own_authority_and_no_others(key: str) -> None:
    payload = codec.heads_to_payload(Heads(NOW, 60.0, {key: 2**63}))
    with pytest.raises(MeshError) as caught:
        codec.heads_from_payload(payload, NOW, FR)
    assert caught.value.reason is Reason.RECORD_MALFORMED


@pytest.mark.parametrize(
    "endpoint",
    [
        "under_score.example:443",
        "unix-abstract:socket:1",
        "ipv4:127.0.0.1:443",
        "dns:evil.example:443",
        "::1:443",
        "-x.example:443",
        "ex\u0430mple:443",
        "a b:443",
        "host:0",
        "host:65536",
        "host:+443",
        "[::1]443",
    ],
)
def test_no_node_can_advertise_what_a_caller_would_refuse(endpoint: str) -> None:
    """One such endpoint spoiled every answer in which its node was ranked (REQUEST_INVALID)."""
    payload = codec.node_record_to_payload(NodeRecord((endpoint,), (MODEL,)))
    with pytest.raises(MeshError) as caught:
        codec.node_record_from_payload(payload)
    assert caught.value.reason is Reason.RECORD_MALFORMED


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "\u202egpj", "a\u2028b"])
def test_a_models_name_is_printable(name: str) -> None:
    """It is shown to people: `meshctl node list` of one authority shows the models of another's nodes."""
    with pytest.raises(MeshError) as caught:
        Model(name, "sha256:00", 2048, frozenset({Task.GENERATE}))
    assert caught.value.reason is Reason.RECORD_MALFORMED


@pytest.mark.parametrize("name", ["a/b", "/a", "a/", "/", "..", "a b", "A", "ä", ""])
def test_a_key_that_could_not_be_read_back_cannot_be_made(name: str) -> None:
    with pytest.raises(MeshError):
        RecordKey(DE, RecordType.NODE, name)


@pytest.mark.parametrize("name", ["a/b", "/", "a"])
def test_nor_one_with_a_name_where_none_belongs(name: str) -> None:
    with pytest.raises(MeshError):
        RecordKey(DE, RecordType.POLICY, name)
