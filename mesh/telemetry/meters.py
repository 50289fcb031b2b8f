"""The observers' ports (mesh/telemetry/base.py), counted in Prometheus instruments.

Label children are looked up once for each combination and kept; what is on the path of a request is a
dictionary and an addition. Every value of a label passes mesh/telemetry/labels.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from prometheus_client import Counter, Histogram

from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action, SpiffeId
from mesh.telemetry import metrics
from mesh.telemetry.instruments import Instruments, Reading
from mesh.telemetry.labels import NONE, OTHER, FirstCome, action_label, flow_of, refused_for, split_method
from mesh.telemetry.metrics import MAX_ROUTES, Metric

_T = TypeVar("_T")

PERMITTED, REFUSED, FAILED = "permitted", "refused", "failed"
# Methods are those that are served; this bounds those of services that somebody else defined and serves.
_MAX_METHODS = 128
_CODES = frozenset(
    {
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
        "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
        "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
    }
)  # fmt: skip


class _Ends:
    """How the calls of one method ended, and after how long."""

    __slots__ = ("_codes", "_family", "_labels", "_seconds")

    def __init__(self, made: Instruments, handled: Metric, duration: Metric, labels: tuple[str, str]) -> None:
        self._labels = labels
        self._family = made.counter(handled)
        self._seconds = made.histogram(duration).labels(*labels)
        self._codes: dict[str, Counter] = {}

    def __call__(self, code: str, seconds: float) -> None:
        counter = self._codes.get(code)
        if counter is None:
            shown = code if code in _CODES else "UNKNOWN"
            counter = self._codes[code] = self._family.labels(*self._labels, shown)
        counter.inc()
        self._seconds.observe(seconds)


class _Serving:
    """Of one method that is served."""

    __slots__ = ("_ended", "_labels", "_reasons", "_refused", "_started", "in_flight")

    def __init__(self, made: Instruments, labels: tuple[str, str]) -> None:
        self._labels = labels
        self._started = made.counter(metrics.RPC_STARTED).labels(*labels)
        self._ended = _Ends(made, metrics.RPC_HANDLED, metrics.RPC_DURATION, labels)
        self._refused = made.counter(metrics.REFUSALS)
        self._reasons: dict[Reason, Counter] = {}
        self.in_flight = 0

    def began(self) -> None:
        self.in_flight += 1
        self._started.inc()

    def ended(self, code: str, seconds: float) -> None:
        self.in_flight -= 1
        self._ended(code, seconds)

    def refused(self, reason: Reason) -> None:
        counter = self._reasons.get(reason)
        if counter is None:
            counter = self._reasons[reason] = self._refused.labels(*self._labels, reason.code)
        counter.inc()


class _Calling:
    """Of one method that is called at others."""

    __slots__ = ("_ended",)

    def __init__(self, made: Instruments, labels: tuple[str, str]) -> None:
        self._ended = _Ends(made, metrics.RPC_CLIENT_HANDLED, metrics.RPC_CLIENT_DURATION, labels)

    def began(self) -> None:
        """Only ends are counted."""

    def ended(self, code: str, seconds: float) -> None:
        self._ended(code, seconds)

    def refused(self, reason: Reason) -> None:
        """What a peer says of its reasons is the peer's to count."""


class CallMeter:
    """Keeps CallObserver."""

    def __init__(self, made: Instruments) -> None:
        self._made = made
        self._methods = FirstCome(_MAX_METHODS)
        self._serving: dict[tuple[str, ...], _Serving] = {}
        self._calling: dict[tuple[str, ...], _Calling] = {}
        made.read(self._in_flight)

    def serving(self, method: str) -> _Serving:
        """Of a method that is served here."""
        return self._of(self._serving, _Serving, method)

    def calling(self, method: str) -> _Calling:
        """Of a method that is called at others."""
        return self._of(self._calling, _Calling, method)

    def no_such_method(self) -> None:
        """All of them are one series."""
        call = self.serving(OTHER)
        call.began()
        call.ended("UNIMPLEMENTED", 0.0)

    def _of(
        self,
        known: dict[tuple[str, ...], _T],
        make: Callable[[Instruments, tuple[str, str]], _T],
        method: str,
    ) -> _T:
        service, name = split_method(method)
        labels = self._methods.of((service, name)) if service != OTHER else (OTHER, OTHER)
        found = known.get(labels)
        if found is None:
            found = known[labels] = make(self._made, (labels[0], labels[1]))
        return found

    def _in_flight(self) -> Iterable[tuple[Metric, Reading]]:
        return [
            (metrics.RPC_IN_FLIGHT, Reading(call.in_flight, labels))
            for labels, call in list(self._serving.items())
        ]


class PlacementMeter:
    """Keeps PlacementObserver."""

    def __init__(self, made: Instruments) -> None:
        self._decisions = _Children(made.counter(metrics.PLACEMENT_DECISIONS))
        self._seconds: Histogram = made.histogram(metrics.PLACEMENT_DURATION)

    def placed(self, action: Action, decision: Decision, seconds: float) -> None:
        """An answer, whatever it is."""
        outcome = PERMITTED if decision.permitted else REFUSED
        self._decisions.inc((action_label(action), outcome, refused_for(decision)))
        self._seconds.observe(seconds)

    def not_placed(self, action: Action | None, refusal: MeshError) -> None:
        """An error instead of one."""
        self._decisions.inc((action_label(action), FAILED, refusal.reason.code))


class NodeMeter(PlacementMeter):
    """Keeps NodeObserver, for the node of this name."""

    def __init__(self, made: Instruments, node: SpiffeId) -> None:
        super().__init__(made)
        self._node = node
        self._judged = _Children(made.counter(metrics.RECEIVER_DECISIONS))
        self._flows = _Children(made.counter(metrics.FLOWS))
        self._routes = FirstCome(MAX_ROUTES)
        self._queue: Histogram = made.histogram(metrics.ENGINE_QUEUE)
        self._first: Histogram = made.histogram(metrics.ENGINE_FIRST_TOKEN)
        tokens = made.counter(metrics.ENGINE_TOKENS)
        self._prompt, self._completion = tokens.labels("prompt"), tokens.labels("completion")

    def judged(self, action: Action, refusal: Reason | None) -> None:
        """This node's own decision."""
        outcome = (REFUSED, refusal.code) if refusal is not None else (PERMITTED, NONE)
        self._judged.inc((action_label(action), *outcome))

    def recorded(self, entry: Mapping[str, object]) -> None:
        """Counts the flow that it tells of, if it does."""
        flow = flow_of(entry, self._node)
        if flow is not None:
            route = self._routes.of((flow.source, flow.target))
            self._flows.inc((*route, flow.data_class, flow.action))

    def queued(self, seconds: float) -> None:
        """Waited for its turn."""
        self._queue.observe(seconds)

    def first_token(self, seconds: float) -> None:
        """The engine's first answer."""
        self._first.observe(seconds)

    def generated(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Once for each generation."""
        self._prompt.inc(prompt_tokens)
        self._completion.inc(completion_tokens)


class EnrolmentMeter:
    """Counts certificates that a control plane was asked for: "granted", "renewed", "refused"."""

    def __init__(self, made: Instruments) -> None:
        self._outcomes = {
            outcome: made.counter(metrics.ENROLMENTS).labels(outcome)
            for outcome in ("granted", "renewed", "refused")
        }

    def __call__(self, outcome: str) -> None:
        """One more; KeyError for another outcome."""
        self._outcomes[outcome].inc()


class _Children:
    """A counter's children by their labels, which the caller has bounded."""

    def __init__(self, family: Counter) -> None:
        self._family = family
        self._known: dict[tuple[str, ...], Counter] = {}

    def inc(self, labels: tuple[str, ...]) -> None:
        child = self._known.get(labels)
        if child is None:
            child = self._known[labels] = self._family.labels(*labels)
        child.inc()
