"""An Asker over nodes that fail, dawdle and lie as a test wants, in virtual time (virtual_time.py).

    world = World(corpus, homes, nodes, {node: Script(weigh=Act("die", 0.5))})
    result = run_virtually(world.search("w0 w3", vector, "hybrid"))

Asker, panel, RemoteShard, codec, placer and merging are the real ones; a node is a Shard of
tests/support/shards.py behind a stub that speaks protobuf. `World.violations` lists every payload that
reached a node which the records did not permit at that moment.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np

from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.questions import SearchEvent, SearchQuestion, SearchResult
from mesh.core.retrieval import CollectionSpec, ReleaseLevel
from mesh.core.snapshot import Revocations, Snapshot
from mesh.core.targets import Permitted
from mesh.core.types import HeldCollection, NodeStatus, RequestContext, SpiffeId
from node.retrieval.asker import Asker
from node.retrieval.panel import Panels, Plan
from node.retrieval.shards import RemoteShard, ShardPeer
from sovereign.mesh.v1 import envelope_pb2, retrieval_pb2
from tests.support.shards import Shard
from tests.support.snapshots import NOW, client, idle, snapshot_of
from tests.support.snapshots import node as candidate

SPEC = CollectionSpec("notes", "given", "sha256:" + "0" * 64, 6)
CONTEXT = RequestContext.of(["internal"], "care/triage")
TIMEOUT_S = 5.0

# What a node can do instead of answering; the others answer, too late or not at all.
LIES = (
    "infinity",
    "nan",
    "unsorted",
    "duplicate",
    "too many",
    "short ids",
    "wrong step",
    "not asked for",
    "too much text",
    "above the level",
)


@dataclass(frozen=True)
class Act:
    """What a node does at one step, after `delay` seconds: "answer", "die", "refuse", "hang", a lie; or,
    to a release, "nothing"."""

    what: str = "answer"
    delay: float = 0.0


@dataclass(frozen=True)
class Script:
    """One node's behaviour."""

    connect: Act = Act()
    open: Act = Act()
    weigh: Act = Act()
    release: Act = Act()

    @property
    def honest(self) -> bool:
        """Whether it answers at once, always."""
        return self == Script()


class GivenEmbedder:
    """Embeds every question alike."""

    name, dimensions = "given", 6

    def __init__(self, vector: Sequence[float], digest: str = SPEC.embedder_digest) -> None:
        self._vector, self._digest = list(vector), digest
        self.asked = 0

    async def digest(self) -> str:
        return self._digest

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        self.asked += 1
        return [self._vector for _ in texts]

    async def aclose(self) -> None:
        pass


class AnyPermit:
    """Stands in for PermitWriter where nobody looks at permits."""

    def write(self, *_: Any, **__: Any) -> bytes:
        return envelope_pb2.Envelope(statement=b"permit").SerializeToString()


class Call:
    """The asker's end of one Shard.Search."""

    def __init__(self, world: World, node: SpiffeId) -> None:
        self._world, self._node = world, node
        self._step: Any = None
        self._terms: list[str] = []
        self._depth = 0
        self.cancelled = False

    async def write(self, request: retrieval_pb2.ShardSearchRequest) -> None:
        self._world.reached(self._node)
        self._step = request

    async def read(self) -> retrieval_pb2.ShardSearchResponse:
        kind = self._step.WhichOneof("step")
        act: Act = getattr(self._world.scripts[self._node], kind)
        await asyncio.sleep(act.delay)
        if act.what == "hang":
            await asyncio.Event().wait()
        if act.what == "die":
            raise broken()
        if act.what == "bug":
            raise ValueError(str(self._step))  # with the question in its text
        if act.what == "refuse":
            raise MeshError(Reason.BUDGET_EXHAUSTED, "enough for today")
        answer = getattr(self, f"_{kind}")(getattr(self._step, kind))
        if act.what == "nothing":
            del answer.released.chunks[:]
        elif act.what != "answer":
            lie(answer, act.what, self._step)
        return answer

    def _open(self, message: retrieval_pb2.ShardOpen) -> retrieval_pb2.ShardSearchResponse:
        shard = self._world.shards[self._node]
        self._terms, self._depth = list(message.terms), message.depth
        documents, frequencies = shard.statistics(self._terms)
        opened = retrieval_pb2.ShardOpened(
            documents=documents, frequencies=frequencies, highest=self._world.highest
        )
        if message.vector:
            ids, scores = shard.by_vector(np.array(message.vector, np.float32))
            opened.by_vector.CopyFrom(self._cut(ids, scores))
        return retrieval_pb2.ShardSearchResponse(opened=opened)

    def _weigh(self, message: retrieval_pb2.ShardWeigh) -> retrieval_pb2.ShardSearchResponse:
        ids, scores = self._world.shards[self._node].by_terms(self._terms, list(message.weights))
        return retrieval_pb2.ShardSearchResponse(ranked=self._cut(ids, scores))

    def _release(self, message: retrieval_pb2.ShardRelease) -> retrieval_pb2.ShardSearchResponse:
        level = min(message.level, self._world.highest)
        chunks = [
            retrieval_pb2.ReleasedChunk(id=each, level=level, title="t", text=self.text(each))
            for each in message.ids
        ]
        return retrieval_pb2.ShardSearchResponse(
            released=retrieval_pb2.ShardReleased(chunks=chunks, charged=len(chunks))
        )

    def text(self, chunk: bytes) -> str:
        return text_of(self._node, chunk)

    def _cut(self, ids: bytes, scores: list[float]) -> retrieval_pb2.ShardRanked:
        return retrieval_pb2.ShardRanked(ids=ids[: 16 * self._depth], scores=scores[: self._depth])

    def cancel(self) -> None:
        self.cancelled = True


def text_of(node: SpiffeId, chunk: bytes) -> str:
    """What the node releases of a chunk."""
    return f"{node.name} says {chunk.hex()}"


def broken() -> grpc.aio.AioRpcError:
    """As grpc.aio raises it when a connection breaks."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "gone", None)


def lie(answer: retrieval_pb2.ShardSearchResponse, what: str, step: Any) -> None:
    """Makes an honest answer one that no honest node gives; where the lie does not fit, a wrong step."""
    kind = answer.WhichOneof("step")
    if kind == "released":
        if what == "not asked for":
            answer.released.chunks.add(id=b"?" * 16, level=retrieval_pb2.RELEASE_LEVEL_SNIPPET)
        elif what == "duplicate" and answer.released.chunks:
            answer.released.chunks.append(answer.released.chunks[0])
        elif what == "too much text" and answer.released.chunks:
            answer.released.chunks[0].text = "x" * (64 * 1024 + 1)
        elif what == "above the level" and step.release.level < retrieval_pb2.RELEASE_LEVEL_PASSAGE:
            answer.released.chunks[0].level = retrieval_pb2.RELEASE_LEVEL_PASSAGE
        else:
            answer.ranked.SetInParent()
        return
    ranked = answer.opened.by_vector if kind == "opened" else answer.ranked
    if what == "too many":
        ranked.ids = b"".join(bytes([0] * 14) + i.to_bytes(2, "big") for i in range(101))
        ranked.scores[:] = [0.5] * 101
    elif what == "short ids":
        ranked.ids += b"x"
    elif ranked.scores and what in ("infinity", "nan"):
        ranked.scores[0] = math.inf if what == "infinity" else math.nan
    elif ranked.scores and what == "duplicate":
        ranked.ids += ranked.ids[-16:]
        ranked.scores.append(ranked.scores[-1])
    elif len(set(ranked.scores)) > 1 and what == "unsorted":
        ranked.scores.reverse()
    else:
        answer.released.SetInParent()


class World:
    """Nodes with a corpus among them, and one asker. `revoked` says from which time on a node is cut off."""

    def __init__(
        self,
        shards: Mapping[SpiffeId, Shard],
        scripts: Mapping[SpiffeId, Script] | None = None,
        revoked: Mapping[SpiffeId, float] | None = None,
        *,
        highest: ReleaseLevel = ReleaseLevel.PASSAGE,
        vector: Sequence[float] = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ) -> None:
        self.shards = shards
        self.scripts = {node: (scripts or {}).get(node, Script()) for node in shards}
        self._revoked = dict(revoked or {})
        self.highest = int(highest)
        self.reached_nodes: list[SpiffeId] = []
        self.violations: list[SpiffeId] = []
        self.calls: list[Call] = []
        self.said: dict[SpiffeId, list[Any]] = {}
        self.sayings: list[Saying] = []
        self.passages: dict[SpiffeId, retrieval_pb2.ShardFetchResponse] = {}
        self.placer = Placer()
        nodes = []
        for node in shards:
            plain = candidate(node.trust_domain, node.name)
            held = (HeldCollection(SPEC.name, SPEC.digest),)
            nodes.append(replace(plain, record=replace(plain.record, collections=held)))
        home = next(iter(shards)).trust_domain
        self._base = replace(snapshot_of(nodes), trust_domain=home, collections={home: {SPEC.name: SPEC}})
        self.statuses: Mapping[SpiffeId, NodeStatus] = idle(nodes)
        self.node = next(iter(shards))
        self.requester = client(trust_domain=home).id
        self.embedder = GivenEmbedder(vector)
        panels = Panels(self, self.placer, AnyPermit(), self, self.clock)  # type: ignore[arg-type]
        self.panels = panels
        self.asker = Asker(
            node=self.node,
            view=self,
            placer=self.placer,
            panels=panels,
            embedder=self.embedder,
            clock=self.clock,
        )
        self._snapshots: dict[frozenset[SpiffeId], Snapshot] = {}

    def clock(self) -> float:
        return NOW + asyncio.get_running_loop().time()

    @property
    def snapshot(self) -> Snapshot:
        """The records of the moment."""
        now = asyncio.get_running_loop().time()
        gone = frozenset(node for node, at in self._revoked.items() if now >= at)
        if gone not in self._snapshots:
            by_domain: dict[str, set[SpiffeId]] = {}
            for node in gone:
                by_domain.setdefault(node.trust_domain, set()).add(node)
            revocations = {td: Revocations(frozenset(nodes)) for td, nodes in by_domain.items()}
            self._snapshots[gone] = replace(
                self._base, version=1 + len(self._snapshots), revocations=revocations
            )
        return self._snapshots[gone]

    def peer(self, node: SpiffeId, timeout_s: float) -> ShardPeer:
        return RemoteShard(node, self._dial, timeout_s)

    async def _dial(self, target: Permitted) -> Any:
        act = self.scripts[target.node].connect
        await asyncio.sleep(act.delay)
        if act.what != "answer":
            raise MeshError(Reason.UNREACHABLE, "no way there")
        return _Stub(self, target.node)

    def reached(self, node: SpiffeId) -> None:
        """A payload has come to the node."""
        self.reached_nodes.append(node)
        if self.snapshot.is_revoked(node):
            self.violations.append(node)

    def plan(self) -> Plan:
        return self.asker.decide(self.requester, CONTEXT, SPEC.name, "d-1")

    async def events(self, question: SearchQuestion) -> list[SearchEvent]:
        return [event async for event in self.asker.search(self.plan(), question)]

    async def search(self, question: SearchQuestion) -> SearchResult:
        result = (await self.events(question))[-1]
        assert isinstance(result, SearchResult)
        return result


class _Stub:
    def __init__(self, world: World, node: SpiffeId) -> None:
        self._world, self._node = world, node

    def Search(self, timeout: float, metadata: object) -> Call:
        call = Call(self._world, self._node)
        self._world.calls.append(call)
        return call

    def Answer(self, request: retrieval_pb2.ShardAnswerRequest, timeout: float, metadata: object) -> Saying:
        self._world.reached(self._node)
        saying = Saying(self._world.said.get(self._node, [ended()]))
        self._world.sayings.append(saying)
        return saying

    async def Fetch(
        self, request: retrieval_pb2.ShardFetchRequest, timeout: float, metadata: object
    ) -> retrieval_pb2.ShardFetchResponse:
        self._world.reached(self._node)
        return self._world.passages[self._node]


class Saying:
    """The asker's end of one Shard.Answer: messages, or seconds to wait, or an exception."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = iter(parts)
        self.cancelled = False

    async def read(self) -> Any:
        for part in self._parts:
            if isinstance(part, BaseException):
                raise part
            if not isinstance(part, float):
                return part
            await asyncio.sleep(part)
        return grpc.aio.EOF  # type: ignore[attr-defined]

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def cancel(self) -> None:
        self.cancelled = True


def says(text: str, *ids: bytes, score: float = 0.5, level: int = 3) -> retrieval_pb2.ShardAnswerResponse:
    """A sentence that rests on these chunks."""
    sentence = retrieval_pb2.AnswerSentence(
        text=text,
        references=[each.hex() for each in ids],
        level=level,  # type: ignore[arg-type]
        score=score,
    )
    return retrieval_pb2.ShardAnswerResponse(sentence=sentence)


def ended(charged: int = 0) -> retrieval_pb2.ShardAnswerResponse:
    """The end of a node's answer."""
    return retrieval_pb2.ShardAnswerResponse(
        finished=retrieval_pb2.ShardAnswered(highest=retrieval_pb2.RELEASE_LEVEL_PASSAGE, charged=charged)
    )
