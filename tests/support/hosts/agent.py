"""A program on a host of a lab that calls the mesh as its test asks: SDK clients, and meshctl.

    python -m tests.support.hosts.agent

Each line on its standard input is a call: {"id", "do", ...}; several run at once. Each answer is a line with
the id: {"id", "event"} for something under way, then {"id", "result"} or {"id", "error"} with the reason's
code. Everything that it sends comes from this process, and so from this host.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import mesh  # noqa: F401  (before grpc)
from mesh.client import FailedOver, Finished, MeshClient, Placed, Sampling, Started, Token, collect_search
from mesh.core.errors import MeshError
from mesh.core.placement import Decision
from mesh.core.types import RequestContext
from mesh.sdk.events import PlacementRefused
from tests.support.hosts import namespaces
from tests.support.meshctl import in_thread

_BEGUN_TOKENS = 5
MODEL = "scripted"


class Agent:
    """The calls. Clients are kept by profile, so that a connection lives from one call to the next."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, float], MeshClient] = {}
        self._meshctl = asyncio.Lock()  # it takes over standard output
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def meshctl(self, _: int, words: list[str]) -> dict[str, Any]:
        """Exit code, and the JSON that it wrote."""
        async with self._meshctl:
            code, out, err = await in_thread(*words, "--output", "json")
        return {"code": code, "out": json.loads(out) if out.strip() else {}, "err": err.strip()}

    async def place(self, _: int, **asked: Any) -> dict[str, Any]:
        client = await self._client(asked)
        placement = await client.place(_context(asked), model=MODEL, explain=True)
        return _decision(placement.decision)

    async def chat(self, id: int, *, prompt: str, tokens: int = 8, **asked: Any) -> dict[str, Any]:
        """Says "begun" after a few tokens. The result tells who served, and who was asked before."""
        client = await self._client(asked)
        begun, held, failovers, decision = time.monotonic(), 0, list[dict[str, str]](), dict[str, Any]()
        stream = client.chat(
            MODEL,
            prompt,
            context=_context(asked),
            sampling=Sampling(max_tokens=tokens, ignore_eos=True),
            timeout_s=asked.get("timeout_s", 60.0),
        )
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, Placed):
                    decision = _decision(event.decision)
                elif isinstance(event, Started):
                    _say({"id": id, "event": "started", "node": event.node.name})
                elif isinstance(event, Token):
                    held += event.tokens
                    if held == _BEGUN_TOKENS:
                        _say({"id": id, "event": "begun"})
                elif isinstance(event, FailedOver):
                    moved = {"from": event.from_node.name, "to": event.to_node.name}
                    failovers.append({**moved, "reason": event.reason.code, "mode": event.mode.value})
                elif isinstance(event, Finished):
                    seconds = time.monotonic() - begun
                    return {
                        "node": event.node.name,
                        "tokens": event.completion_tokens,
                        "failovers": failovers,
                        "decision": decision,
                        "seconds": seconds,
                    }
        raise AssertionError("a stream ended without Finished")

    async def search(self, _: int, *, query: str, collection: str, **asked: Any) -> dict[str, Any]:
        client = await self._client(asked)
        found = await collect_search(
            client.search(
                query, collection, context=_context(asked), timeout_s=asked.get("timeout_s", 10.0), k=20
            )
        )
        return {
            "hits": [hit.reference.node.name for hit in found.hits],
            "complete": found.complete,
            "coverage": {
                c.node.name: [c.outcome.value, c.reason.code if c.reason else ""] for c in found.coverage
            },
        }

    async def _client(self, asked: dict[str, Any]) -> MeshClient:
        key = (asked["profile"], asked.get("silence_s", 30.0))
        if key not in self._clients:
            client = MeshClient.from_profile(Path(key[0]), silence_s=key[1])
            self._clients[key] = await client.__aenter__()
        return self._clients[key]

    async def cancel(self, _: int, call: int) -> None:
        """Ends a call under way, as a caller does who no longer wants it."""
        task = self._calls[call]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def aclose(self) -> None:
        for call in self._calls.values():
            call.cancel()
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()

    def begin(self, line: bytes) -> None:
        asked = json.loads(line)
        id, do = asked.pop("id"), asked.pop("do")
        self._calls[id] = asyncio.get_running_loop().create_task(self._answer(id, do, asked))
        self._calls[id].add_done_callback(lambda _: self._calls.pop(id))

    async def _answer(self, id: int, do: str, asked: dict[str, Any]) -> None:
        try:
            _say({"id": id, "result": await getattr(self, do)(id, **asked)})
        except asyncio.CancelledError:
            _say({"id": id, "error": "CANCELLED", "message": "the test cancelled it"})
            raise
        except MeshError as error:
            refused = _decision(error.decision) if isinstance(error, PlacementRefused) else {}
            _say({"id": id, "error": error.reason.code, "message": error.message, "decision": refused})
        except Exception as error:  # the test gets it, whatever it is
            _say({"id": id, "error": type(error).__name__, "message": str(error)})


def _context(asked: dict[str, Any]) -> RequestContext:
    narrowed = {"allowed_jurisdictions": asked["countries"]} if "countries" in asked else {}
    return RequestContext.of(asked["classes"], asked.get("purpose", "care/triage"), **narrowed)


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "ranked": [each.node.name for each in decision.ranked],
        "refused": {each.node.name: each.reason.code for each in decision.refused},
    }


def _say(message: dict[str, Any]) -> None:
    # Not through sys.stdout, which meshctl may have for a moment.
    data = json.dumps(message).encode() + b"\n"
    sys.__stdout__.buffer.write(data)
    sys.__stdout__.buffer.flush()


async def main() -> None:
    namespaces.die_with_parent(signal.SIGKILL)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    agent = Agent()
    _say({"ready": True})
    while line := await reader.readline():
        agent.begin(line)
    await agent.aclose()


if __name__ == "__main__":
    asyncio.run(main())
