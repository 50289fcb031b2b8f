"""meshctl search, ask and fetch: what people and programs see, and the exit codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from control.cli import ask, fetch, search
from control.cli.main import run
from mesh.core.decision import Decision, Ranked, Refused
from mesh.core.errors import MeshError, Reason
from mesh.core.questions import AnswerResult, NodeDone, Partial, SearchDecided, SearchResult
from mesh.core.retrieval import (
    AnswerSentence,
    Coverage,
    Hit,
    Outcome,
    Reference,
    Released,
    ReleaseLevel,
)
from mesh.core.types import node_id
from mesh.sdk.questions import Questions

DE, FR, US = (node_id(f"{c}.mesh.example", n) for c, n in (("de", "fra-1"), ("fr", "par-1"), ("us", "iad-1")))
CONTEXT = ("--class", "internal", "--purpose", "care/triage")


def reference(number: int) -> Reference:
    return Reference(DE, "notes", bytes([number]) * 16)


PASSAGE = Released(
    reference(1).id, ReleaseLevel.PASSAGE, "Ward 3", "The pump\n\x1b[2Jis new.", "doc-1", "manual.txt"
)
HITS = (
    Hit(1, 0.75, reference(1), PASSAGE),
    Hit(2, 0.5, reference(2), Released(reference(2).id, ReleaseLevel.REFERENCE)),
)
ANSWERED = Coverage(DE, "DE", Outcome.ANSWERED, latency_ms=12.4, counted=2, counted_inexact=True,
                    highest=ReleaseLevel.PASSAGE, charged=1)  # fmt: skip
REFUSED = Coverage(US, "US", Outcome.NOT_ASKED, Reason.POLICY_SENDER_DENIES, "not abroad", ("de-no-us",))
LATE = Coverage(FR, "FR", Outcome.FAILED, Reason.DEADLINE_EXCEEDED, "it did not answer in time")
DECISION = Decision("d-1", True, (Ranked(DE, 0.0, "DE", ("all",)),),
                    (Refused(US, Reason.POLICY_SENDER_DENIES, "not abroad", ("de-no-us",), "US"),), 1, 2,
                    decided_by=DE)  # fmt: skip


class FakeRetrievals:
    """Answers with what the test wants; questions have passed the SDK's own checks."""

    def __init__(self, events: Sequence[object]) -> None:
        self.events = events
        self.asked: list[Any] = []

    async def search(self, question: Any, context: Any) -> AsyncIterator[object]:
        self.asked.append((question, context))
        for event in self.events:
            yield event

    answer = search

    async def fetch(self, question: Any, context: Any) -> object:
        self.asked.append((question, context))
        if isinstance(self.events[0], Exception):
            raise self.events[0]
        return self.events[0]


class FakeClient(Questions):
    """The SDK's client, as far as questions go."""

    def __init__(self, events: Sequence[object]) -> None:
        self.retrievals: Any = FakeRetrievals(events)

    def _retrieval(self) -> Any:
        return self.retrievals

    @property
    def asked(self) -> list[Any]:
        return list(self.retrievals.asked)


class Shell:
    """Runs meshctl with a client that answers this."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.client = FakeClient(())

    def __call__(self, events: Sequence[object], *arguments: str) -> tuple[int, str, str]:
        self.client = FakeClient(events)

        @contextlib.asynccontextmanager
        async def opened(_: object) -> AsyncIterator[FakeClient]:
            yield self.client

        for module in (search, ask, fetch):
            self._monkeypatch.setattr(module, "open_client", opened)
        self._capsys.readouterr()
        code = run([*arguments, *CONTEXT])
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def meshctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


FOUND = (SearchDecided(DECISION), SearchResult(HITS, (ANSWERED, LATE, REFUSED), False))


def test_hits_and_what_became_of_every_node(meshctl: Shell):
    code, out, err = meshctl(FOUND, "search", "notes", "which pump?")
    assert (code, err) == (0, "")
    assert "Ward 3: The pump" in out
    assert str(reference(2)) in out, "without a text, what to fetch it by"
    assert "12 ms, releases up to passage, at least 2 more that it may only count, 1 charged" in out
    assert "DEADLINE_EXCEEDED: it did not answer in time" in out
    assert "POLICY_SENDER_DENIES: not abroad [de-no-us]" in out
    assert "not complete: 1 of 3 nodes answered" in out
    assert "\x1b" not in out, "what a document says does not drive a terminal"


def test_the_same_for_programs(meshctl: Shell):
    code, out, _ = meshctl(FOUND, "search", "notes", "which pump?", "--output", "json")
    found = json.loads(out)
    assert code == 0
    assert [hit["level"] for hit in found["hits"]] == ["passage", "reference"]
    assert "text" not in found["hits"][1]
    assert [node["outcome"] for node in found["coverage"]] == ["answered", "failed", "not-asked"]
    assert found["coverage"][2]["policies"] == ["de-no-us"]
    assert found["complete"] is False
    assert found["decision"]["id"] == "d-1"


def test_options_become_the_question(meshctl: Shell):
    code, _, _ = meshctl(
        FOUND, "search", "notes", "which pump?", "-k", "3", "--mode", "keyword", "--level", "snippet",
        "--filter", "owner=a", "-f", "owner=b", "-f", "class=internal", "--exact", "--timeout", "2",
    )  # fmt: skip
    (question, context) = meshctl.client.asked[0]
    assert code == 0
    assert (question.k, question.mode, question.level) == (3, "keyword", ReleaseLevel.SNIPPET)
    assert question.filters.fields == {"owner": frozenset("ab"), "class": frozenset({"internal"})}
    assert (question.exact, question.timeout_s, question.partial) == (True, 2.0, False)
    assert context.purpose == "care/triage"


def test_provisional_hits_are_marked_as_such(meshctl: Shell):
    events = (FOUND[0], Partial(HITS[:1], ANSWERED), FOUND[1])
    _, out, _ = meshctl(events, "search", "notes", "pump", "--partial")
    assert out.index("so far, with fra-1") < out.index("not complete")
    _, out, _ = meshctl(events, "search", "notes", "pump", "--partial", "-o", "json")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["partial", "result"]


@pytest.mark.parametrize(
    ("coverage", "code", "reason"),
    [
        ((REFUSED,), 3, "NOT_PERMITTED"),
        ((LATE,), 1, "NO_NODE_AVAILABLE"),
        ((LATE, REFUSED), 1, "NO_NODE_AVAILABLE"),
        ((), 1, "NO_NODE_AVAILABLE"),
    ],
)
def test_without_any_answer_it_has_failed(
    meshctl: Shell, coverage: tuple[Coverage, ...], code: int, reason: str
):
    """3 if policies kept everybody from being asked; the coverage is shown all the same."""
    nothing = (SearchDecided(DECISION), SearchResult((), coverage, False))
    found, out, err = meshctl(nothing, "search", "notes", "pump")
    assert (found, err.count("\n")) == (code, 1)
    assert reason in err
    assert "nothing found" in out
    no_answer = (SearchDecided(DECISION), AnswerResult((), coverage, False))
    found, _, err = meshctl(no_answer, "ask", "notes", "pump?")
    assert (found, reason in err) == (code, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "notes", ""),
        ("search", "notes", "pump", "-k", "0"),
        ("search", "notes", "pump", "-k", "1000000"),
        ("search", "No/such", "pump"),
        ("search", "notes", "pump", "--filter", "owner"),
        ("search", "notes", "pump", "--filter", "tenant=other"),
        ("search", "notes", "pump", "--mode", "magic"),
        ("search", "notes", "pump", "--timeout", "1000"),
        ("search", "notes", "x" * 9000),
        ("search", "notes", "pump \udcff"),  # what a shell passes for bytes that are no UTF-8
        ("search", "notes", "pump", "--filter", "owner=\udcff"),
        ("search", "notes", "pump", "--timeout", "nan"),
        ("ask", "notes", "  "),
        ("ask", "notes", "x" * 3000),
        ("fetch", "nowhere"),
        ("fetch", str(reference(1)), "--level", "everything"),
    ],
)
def test_wrong_usage_is_told_before_anybody_is_asked(meshctl: Shell, arguments: tuple[str, ...]):
    code, _, err = meshctl(FOUND, *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert meshctl.client.asked == []
    assert "pump" not in err


def sentence(text: str, *numbers: int) -> AnswerSentence:
    return AnswerSentence(text, tuple(reference(n) for n in numbers), ReleaseLevel.PASSAGE, False, 0.9)


def test_an_answer_streams_with_numbered_citations(meshctl: Shell):
    one, two = sentence("The pump is new.", 1, 2), sentence("It came on Monday.", 2)
    done = AnswerResult((one, two), (ANSWERED,), True)
    code, out, _ = meshctl(
        (SearchDecided(DECISION), one, NodeDone(ANSWERED), two, done), "ask", "notes", "when?"
    )
    assert code == 0
    assert "The pump is new. [1][2]\nIt came on Monday. [2]\n" in out
    assert f"[1] {reference(1)}" in out
    assert "complete: 1 of 1 nodes answered" in out
    assert "not part of the answer" not in out


def test_what_a_failed_node_had_said_is_taken_back(meshctl: Shell):
    lost, kept = sentence("The pump is stolen.", 3), sentence("The pump is new.", 1)
    events = (SearchDecided(DECISION), lost, kept, AnswerResult((kept,), (ANSWERED, LATE), False))
    _, out, _ = meshctl(events, "ask", "notes", "when?")
    after = out[out.index("not part of the answer") :]
    assert "The pump is new. [2]" in after
    assert "stolen" not in after
    assert str(reference(3)) not in after
    _, out, _ = meshctl(events, "ask", "notes", "when?", "-o", "json")
    assert [json.loads(line)["event"] for line in out.splitlines()] == [
        "decided", "sentence", "sentence", "result",
    ]  # fmt: skip


def test_one_passage(meshctl: Shell):
    code, out, _ = meshctl((HITS[0],), "fetch", str(reference(1)))
    assert code == 0
    assert "passage from spiffe://de.mesh.example/node/fra-1: doc-1 manual.txt" in out
    assert "\x1b" not in out
    denied = MeshError(Reason.RELEASE_DENIED, "no more than the reference")
    code, _, err = meshctl((denied,), "fetch", str(reference(1)))
    assert (code, "RELEASE_DENIED" in err) == (3, True)
