"""The ports through which the mesh says what happened, and `Silent`, which hears nothing.

Whoever serves, decides or generates calls these, and does not know what becomes of it: it is counted in
mesh/telemetry/meters.py. Rules of whoever implements them: a call returns at once, raises nothing, keeps
nothing of its arguments but what mesh/telemetry/labels.py lets through (I1), and is on the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action


class MethodObserver(Protocol):
    """Of one method, at the serving or at the calling end. Times in seconds."""

    def began(self) -> None:
        """A call began."""
        ...

    def ended(self, code: str, seconds: float) -> None:
        """It ended with this gRPC code ("OK"), after so long."""
        ...

    def refused(self, reason: Reason) -> None:
        """It ends with this reason of the mesh's own."""
        ...


class CallObserver(Protocol):
    """Of all calls of a daemon. Ask once for each method, and keep what is returned."""

    def serving(self, method: str) -> MethodObserver:
        """Of a method that is served here, by its path: "/package.Service/Method"."""
        ...

    def calling(self, method: str) -> MethodObserver:
        """Of a method that is called at others."""
        ...

    def no_such_method(self) -> None:
        """A caller named a method that there is none of: UNIMPLEMENTED."""
        ...


class PlacementObserver(Protocol):
    """Of a placer."""

    def placed(self, action: Action, decision: Decision, seconds: float) -> None:
        """A placement was decided, permitted or not, within so many seconds."""
        ...

    def not_placed(self, action: Action | None, refusal: MeshError) -> None:
        """There was none: the question was refused. None if it did not say what for."""
        ...


class GateObserver(Protocol):
    """Of what a node lets in."""

    def judged(self, action: Action, refusal: Reason | None) -> None:
        """This node's own decision on a request and its permit; None if it permits."""
        ...

    def recorded(self, entry: Mapping[str, object]) -> None:
        """An entry is durable in the decision log."""
        ...


class EngineObserver(Protocol):
    """Of requests to an engine. Never called for a single token."""

    def queued(self, seconds: float) -> None:
        """A request has waited so long, for its turn or in vain."""
        ...

    def first_piece(self, seconds: float) -> None:
        """The engine gave the first piece of an answer so long after it got the request."""
        ...

    def generated(self, prompt_tokens: int, completion_tokens: int) -> None:
        """A generation ended; `prompt_tokens` is 0 if it did not get to its end."""
        ...


class NodeObserver(GateObserver, EngineObserver, PlacementObserver, Protocol):
    """Everything that a node has to say."""


class Silent:
    """Keeps all of these ports and does nothing."""

    def placed(self, action: Action, decision: Decision, seconds: float) -> None:
        """Nothing."""

    def not_placed(self, action: Action | None, refusal: MeshError) -> None:
        """Nothing."""

    def judged(self, action: Action, refusal: Reason | None) -> None:
        """Nothing."""

    def recorded(self, entry: Mapping[str, object]) -> None:
        """Nothing."""

    def queued(self, seconds: float) -> None:
        """Nothing."""

    def first_piece(self, seconds: float) -> None:
        """Nothing."""

    def generated(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Nothing."""


SILENT = Silent()
