"""The delivery's transition table: what happens to a request when nodes fail (I1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import Reason
from mesh.core.failover import (
    MAX_ATTEMPTS,
    MAX_PLACEMENTS,
    RECOVERY,
    RECOVERY_OF_QUESTIONS,
    Accepted,
    AskPlacement,
    Completed,
    Delivered,
    Delivery,
    Event,
    Fail,
    Finish,
    IllegalMove,
    Lost,
    Mode,
    Phase,
    Placed,
    Read,
    Recovery,
    Route,
    Send,
    Step,
    step,
)
from mesh.core.types import node_id

DE = node_id("de.mesh.example", "fra-1")
FR = node_id("fr.mesh.example", "par-1")
US = node_id("us.mesh.example", "iad-1")
NOW = 1_000_000.0
SAME = "sha256:aa"
OTHER = "sha256:bb"


def route(node, digest: str = SAME, expires_at: float = NOW + 60) -> Route:
    return Route(node, digest, expires_at)


def run(state: Delivery, *events: Event, now: float = NOW) -> tuple[Delivery, list[Step]]:
    steps = []
    for event in events:
        state, todo = step(state, event, now)
        steps.append(todo)
    return state, steps


def fresh(max_tokens: int = 10) -> Delivery:
    return Delivery(max_tokens=max_tokens, deadline=NOW + 100)


def test_a_request_that_nothing_happens_to():
    state, steps = run(fresh(), Placed((route(DE), route(FR))), Accepted(SAME), Delivered(3), Completed())
    assert steps == [Send(route(DE), Mode.FRESH, 10), Read(), Read(), Finish()]
    assert state.phase is Phase.FINISHED
    assert state.delivered == 3


def test_a_lost_node_with_the_same_model_next_is_resumed():
    state, steps = run(
        fresh(), Placed((route(DE), route(FR))), Accepted(SAME), Delivered(4), Lost(Reason.NODE_LOST)
    )
    sent = steps[-1]
    assert isinstance(sent, Send)
    assert (sent.route.node, sent.mode, sent.max_tokens) == (FR, Mode.RESUMED, 6)
    assert sent.lost is not None
    assert (sent.lost.node, sent.lost.reason) == (DE, Reason.NODE_LOST)
    state, steps = run(state, Accepted(SAME), Delivered(6), Completed())
    assert state.delivered == 10


def test_another_model_next_means_restarted():
    state, steps = run(
        fresh(),
        Placed((route(DE), route(FR, OTHER))),
        Accepted(SAME),
        Delivered(4),
        Lost(Reason.ENGINE_FAILED),
    )
    sent = steps[-1]
    assert isinstance(sent, Send)
    assert (sent.mode, sent.max_tokens) == (Mode.RESTARTED, 10)
    assert state.delivered == 0


def test_an_unknown_digest_is_never_resumed():
    _, steps = run(
        fresh(), Placed((route(DE, ""), route(FR, ""))), Accepted(""), Delivered(4), Lost(Reason.NODE_LOST)
    )
    assert isinstance(steps[-1], Send)
    assert steps[-1].mode is Mode.RESTARTED


def test_a_breach_of_protocol_keeps_nothing():
    _, steps = run(
        fresh(),
        Placed((route(DE), route(FR))),
        Accepted(SAME),
        Delivered(4),
        Lost(Reason.NODE_LOST, breach=True),
    )
    assert isinstance(steps[-1], Send)
    assert steps[-1].mode is Mode.RESTARTED


def test_a_node_that_serves_another_model_than_it_said_is_not_resumed():
    state, _ = run(
        fresh(), Placed((route(DE), route(FR))), Accepted(SAME), Delivered(4), Lost(Reason.NODE_LOST)
    )
    state, steps = run(state, Accepted(OTHER))
    assert steps == [AskPlacement((DE, FR))]
    assert state.digest == ""


def test_the_last_token_was_delivered_before_the_loss():
    state, steps = run(
        fresh(4), Placed((route(DE), route(FR))), Accepted(SAME), Delivered(4), Lost(Reason.NODE_LOST)
    )
    assert steps[-1] == Finish(cut=True)
    assert state.phase is Phase.FINISHED


def test_the_list_is_exhausted_so_it_is_placed_anew_without_the_lost_ones():
    state, steps = run(fresh(), Placed((route(DE),)), Lost(Reason.UNREACHABLE))
    assert steps[-1] == AskPlacement((DE,))
    _, steps = run(state, Placed((), Reason.NOT_PERMITTED))
    assert steps[-1] == Fail(
        Reason.NODE_LOST, "tried spiffe://de.mesh.example/node/fra-1 (UNREACHABLE); then: NOT_PERMITTED"
    )


def test_a_node_is_asked_again_once_another_has_delivered():
    """A stream that lasts longer than a restart of every node comes back to the first."""
    begun = (Accepted(SAME), Delivered(2))
    state, steps = run(fresh(), Placed((route(DE), route(FR))), *begun, Lost(Reason.DRAINING), *begun)
    assert steps[3] == Send(route(FR), Mode.RESUMED, 8, state.tried[0])
    state, steps = run(state, Lost(Reason.DRAINING), Placed((route(DE),)))
    assert steps[0] == AskPlacement((FR,))
    assert isinstance(steps[1], Send)
    assert steps[1].route.node == DE
    # one that has only accepted has proved nothing
    _, steps = run(state, Accepted(SAME), Delivered(0), Lost(Reason.NODE_LOST))
    assert steps[-1] == AskPlacement((FR, DE))


def test_a_refusal_at_once_keeps_the_placements_reason():
    _, steps = run(fresh(), Placed((), Reason.NOT_PERMITTED))
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is Reason.NOT_PERMITTED


def test_a_node_with_newer_policies_is_passed_over_and_a_refusal_stays_one_of_policy():
    _state, steps = run(fresh(), Placed((route(FR), route(DE))), Lost(Reason.POLICY_SENDER_DENIES))
    assert isinstance(steps[-1], Send)
    assert steps[-1].route.node == DE
    _, steps = run(
        fresh(), Placed((route(FR),)), Lost(Reason.POLICY_SENDER_DENIES), Placed((), Reason.NOT_PERMITTED)
    )
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is Reason.NOT_PERMITTED


def test_overloaded_everywhere_says_so():
    _, steps = run(
        fresh(), Placed((route(DE),)), Lost(Reason.OVERLOADED), Placed((), Reason.NO_NODE_AVAILABLE)
    )
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is Reason.OVERLOADED


def test_an_expired_permit_means_placing_anew_with_the_node_kept():
    state, steps = run(fresh(), Placed((route(DE), route(FR))), Lost(Reason.PERMIT_EXPIRED))
    assert steps[-1] == AskPlacement(())
    _, steps = run(state, Placed((route(DE),)))
    assert isinstance(steps[-1], Send)


def test_a_permit_about_to_expire_is_not_tried():
    _, steps = run(fresh(), Placed((route(DE), route(FR, expires_at=NOW + 0.5))), Lost(Reason.NODE_LOST))
    assert steps[-1] == AskPlacement((DE,))


@pytest.mark.parametrize(
    "reason",
    [
        Reason.REQUEST_INVALID,
        Reason.PROMPT_TOO_LONG,
        Reason.IDENTITY_REVOKED,
        Reason.CANCELLED,
        Reason.INTERNAL,
    ],
)
def test_what_would_fail_everywhere_ends_it(reason):
    state, steps = run(fresh(), Placed((route(DE), route(FR))), Lost(reason))
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is reason
    assert state.phase is Phase.FAILED


def test_the_deadline_ends_it():
    state, _ = run(fresh(), Placed((route(DE), route(FR))))
    _, steps = run(state, Lost(Reason.NODE_LOST), now=NOW + 101)
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize("phase", [Phase.FINISHED, Phase.FAILED])
@pytest.mark.parametrize(
    "event", [Placed(()), Accepted(""), Delivered(1), Completed(), Lost(Reason.NODE_LOST)]
)
def test_nothing_happens_after_the_end(phase, event):
    with pytest.raises(IllegalMove):
        step(replace(fresh(), phase=phase), event, NOW)


def test_tokens_before_acceptance_are_illegal():
    state, _ = run(fresh(), Placed((route(DE),)))
    with pytest.raises(IllegalMove):
        step(state, Delivered(1), NOW)


@given(st.lists(st.sampled_from(sorted(RECOVERY, key=lambda r: r.name)), min_size=1, max_size=40), st.data())
def test_I1_only_offered_nodes_are_sent_to_and_it_always_ends(reasons, data):
    """However nodes fail: only nodes of the last placement are sent to, none that failed, and it ends."""
    state = fresh()
    nodes = [node_id("de.mesh.example", f"n{i}") for i in range(5)]
    sends = placements = 0
    todo: Step = AskPlacement(())
    offered: list[Route] = []
    losses = iter(reasons * 10)
    while not isinstance(todo, Fail | Finish):
        if isinstance(todo, AskPlacement):
            placements += 1
            excluded = todo.excluded
            offered = [
                route(n, data.draw(st.sampled_from([SAME, OTHER])))
                for n in data.draw(st.permutations(nodes))
                if n not in excluded
            ][: data.draw(st.integers(0, 4))]
            state, todo = step(state, Placed(tuple(offered)), NOW)
        elif isinstance(todo, Send):
            sends += 1
            assert todo.route in offered
            assert todo.route.node not in state.excluded
            assert 0 < todo.max_tokens <= 10
            if data.draw(st.booleans()):
                state, todo = step(state, Accepted(todo.route.model_digest), NOW)
                if isinstance(todo, Read):
                    state, todo = step(state, Delivered(data.draw(st.integers(0, todo_tokens(state)))), NOW)
            if isinstance(todo, Send | Read):
                reason = next(losses)
                before = state
                state, todo = step(state, Lost(reason), NOW)
                if RECOVERY[reason] is Recovery.NEXT and not isinstance(todo, Finish):
                    assert before.current is not None
                    assert before.current.node in state.excluded
        assert sends <= MAX_ATTEMPTS
        assert placements <= MAX_PLACEMENTS


def todo_tokens(state: Delivery) -> int:
    return state.max_tokens - state.delivered


def question() -> Delivery:
    return Delivery(0, NOW + 100, RECOVERY_OF_QUESTIONS, movable=False)


def test_a_question_goes_on_to_the_next_node_until_one_has_begun_to_answer() -> None:
    placed = Placed((route(DE), route(FR)))
    state, steps = run(question(), placed, Lost(Reason.INDEX_UNAVAILABLE), Accepted(""))
    assert isinstance(steps[1], Send)
    assert steps[1].route.node == FR
    state, steps = run(state, Lost(Reason.NODE_LOST))
    assert steps == [Fail(Reason.NODE_LOST, f"by {FR}", passed_on=True)]
    assert state.phase is Phase.FAILED


@pytest.mark.parametrize("reason", sorted(RECOVERY_OF_QUESTIONS.keys() - RECOVERY.keys(), key=str))
def test_what_only_questions_recover_from_ends_an_inference(reason: Reason) -> None:
    _, steps = run(fresh(), Placed((route(DE), route(FR))), Lost(reason))
    assert steps[-1] == Fail(reason, f"by {DE}", passed_on=True)
    _, steps = run(question(), Placed((route(DE), route(FR))), Lost(reason))
    assert isinstance(steps[-1], Send)


def test_if_all_nodes_say_the_same_of_a_question_the_caller_is_told_that() -> None:
    lost = Lost(Reason.INDEX_UNAVAILABLE)
    placed_anew = Placed((), Reason.NO_NODE_AVAILABLE)
    _, steps = run(question(), Placed((route(DE), route(FR))), lost, lost, placed_anew)
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is Reason.INDEX_UNAVAILABLE
    _, steps = run(question(), Placed((route(DE), route(FR))), lost, Lost(Reason.NODE_LOST), placed_anew)
    assert isinstance(steps[-1], Fail)
    assert steps[-1].reason is Reason.NODE_LOST
