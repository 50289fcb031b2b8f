"""The test's end of an agent: calls by number, several under way at once, each waited for with a deadline."""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.support.hosts.dialogue import Dialogue

DEADLINE_S = 60.0


class Refused(Exception):
    """A call that ended with an error; `reason` is its code."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['error']}: {answer['message']}")
        self.reason: str = answer["error"]
        self.decision: dict[str, Any] = answer.get("decision", {})


class Caller:
    """One agent (agent.py), ready."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._numbers = itertools.count(1)
        self._heard: dict[int, list[dict[str, Any]]] = {}
        dialogue.read(DEADLINE_S)

    def begin(self, do: str, **what: Any) -> int:
        """Starts a call; its number."""
        number = next(self._numbers)
        self._heard[number] = []
        self._dialogue.write({"id": number, "do": do, **what})
        return number

    def until(self, number: int, event: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Waits for something that a call says on its way; raises Refused if it ends before."""
        return self._wait(number, event, deadline_s)

    def end(self, number: int, deadline_s: float = DEADLINE_S) -> Any:
        """Waits for a call's result; raises Refused."""
        return self._wait(number, None, deadline_s)["result"]

    def ask(self, do: str, deadline_s: float = DEADLINE_S, **what: Any) -> Any:
        """Begins a call and waits for its end."""
        return self.end(self.begin(do, **what), deadline_s)

    def _wait(self, number: int, event: str | None, deadline_s: float) -> dict[str, Any]:
        limit = time.monotonic() + deadline_s
        while True:
            while self._heard[number]:
                answer = self._heard[number].pop(0)
                if "error" in answer:
                    raise Refused(answer)
                if answer.get("event") == event:
                    return answer
                if "result" in answer:
                    raise AssertionError(f"it ended before it said {event}: {answer['result']}")
            message = self._dialogue.read(max(0.0, limit - time.monotonic()))
            self._heard[message["id"]].append(message)
