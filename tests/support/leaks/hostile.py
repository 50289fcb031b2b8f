"""A node with a right certificate and no manners: what it answers when asked, and what it asks itself."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc

from mesh import codec
from mesh.board import Board
from mesh.core.records import RecordKey, RecordType
from mesh.core.retrieval import DEPTH, Filters, ReleaseLevel, ScoredId
from mesh.core.types import (
    DataClass,
    HeldCollection,
    Model,
    NodeRecord,
    NodeStatus,
    RequestContext,
    SpiffeId,
    Task,
)
from mesh.identity.tls import server_credentials
from mesh.store.memory import MemoryStore
from sovereign.mesh.v1 import retrieval_pb2, retrieval_pb2_grpc
from tests.support.leaks.arena import EMBEDDER, Arena, collection_spec, context
from tests.support.leaks.rules import COUNTRIES
from tests.support.leaks.world import COLLECTION, DIMENSIONS, TENANTS
from tests.support.mesh import DEADLINE_S, Node
from tests.support.shard_server import Asker, ShardServer

NAME, COUNTRY = "mal-1", "FR"
# In everything that it says of itself: no log of an honest node repeats it.
MARK = "mischiefmarker"

# Levels that there are not, too: the messages' types would not have it.
_pb: Any = retrieval_pb2
_Answer = retrieval_pb2.ShardSearchResponse


class HostileShard(retrieval_pb2_grpc.ShardServicer):
    """Each answer is another mischief. `known` are chunk ids of other nodes that it has seen."""

    def __init__(self, seed: int, known: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._known = known
        self.asked = 0

    async def Search(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        self.asked += 1
        async for request in requests:
            step = request.WhichOneof("step")
            if self._random.random() < 0.1:
                await context.abort(grpc.StatusCode.INTERNAL, MARK, (("mark-bin", MARK.encode()),))
            if step == "open":
                yield _Answer(opened=self._opened(len(request.open.terms)))
            elif step == "weigh":
                yield _Answer(ranked=self._ranked())
            else:
                yield _Answer(released=self._released(list(request.release.ids)))

    async def Answer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked += 1
        ids = [self._random.choice(self._known).hex() if self._known else "00", "zz", MARK]
        for _ in range(self._random.choice((1, 3, 300))):
            yield retrieval_pb2.ShardAnswerResponse(
                sentence=_pb.AnswerSentence(
                    text=MARK * self._random.choice((1, 10_000)),
                    references=ids[: self._random.randrange(4)],
                    level=self._random.choice((0, 3, 4)),
                    score=self._random.choice((0.5, math.inf, math.nan)),
                )
            )

    async def Fetch(self, request: Any, context: Any) -> Any:
        self.asked += 1
        return retrieval_pb2.ShardFetchResponse(chunk=self._chunk(self._random.randbytes(16)))

    def _opened(self, terms: int) -> Any:
        choose = self._random.choice
        return _pb.ShardOpened(
            documents=choose((10, 2**60)),
            frequencies=[choose((1, 2**62)) for _ in range(choose((terms, terms + 9)))],
            by_vector=self._ranked(),
            counted=choose((0, 2**31)),
            highest=choose((2, 4, 99)),
        )

    def _ranked(self) -> Any:
        """Ids that are nobody's, others', twice there or no ids; scores that are none."""
        choose: Any = self._random.choice
        count = choose((0, 1, 5, 500))
        ids = [
            choose(self._known) if self._known and choose((0, 1)) else self._random.randbytes(16)
            for _ in range(count)
        ]
        scores = sorted((choose((0.9, 0.5, math.inf, math.nan, -3.0)) for _ in ids), reverse=True)
        if choose((0, 0, 1)):
            scores = [0.9 - 0.001 * at for at in range(count)]
        return retrieval_pb2.ShardRanked(
            ids=b"".join(ids)[choose((0, 0, 0, 3)) :], scores=scores if choose((0, 1)) else scores[1:]
        )

    def _released(self, ids: list[bytes]) -> Any:
        more = [self._random.randbytes(16)] if self._random.random() < 0.3 else []
        return retrieval_pb2.ShardReleased(chunks=[self._chunk(each) for each in (*ids, *more)], charged=3)

    def _chunk(self, id: bytes) -> Any:
        text = MARK * self._random.choice((1, 10_000))
        return _pb.ReleasedChunk(
            id=id, level=self._random.choice((1, 2, 3, 4, 9)), title=MARK, text=text, document=MARK
        )


@contextlib.asynccontextmanager
async def hostile_node(it: Arena) -> AsyncIterator[Hostile]:
    """Joins as a node that holds the collection."""
    mesh, authority = it.mesh, it.mesh[COUNTRY]
    source = authority.identity.source(f"/node/{NAME}", mesh.bundles)
    # What it claims to hold it tells everybody: that says nothing of those whose chunks they are.
    known = it.random.sample(list(it.judge.owner_of), 6)
    it.judge.claimed.update(known)
    shard = HostileShard(it.random.randrange(1 << 30), known)
    server = grpc.aio.server()
    retrieval_pb2_grpc.add_ShardServicer_to_server(shard, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(source))
    await server.start()
    board = Board(MemoryStore(mesh.board), authority.trust_domain, authority.identity.bundle, mesh.clock)
    running = asyncio.create_task(board.run())
    try:
        await board.wait_for(lambda _: board.connected, DEADLINE_S)
        models = (Model("scripted", "sha256:" + "0" * 64, 4096, frozenset({Task.GENERATE})),)
        held = (HeldCollection(COLLECTION, (await collection_spec()).digest),)
        record = NodeRecord((f"127.0.0.1:{port}",), models, held)
        status = NodeStatus(ready=True, in_flight=0, queued=0, capacity=100)
        await authority.state_facts(NAME)
        for kind, payload in (
            (RecordType.NODE, codec.node_record_to_payload(record)),
            (RecordType.STATUS, codec.status_to_payload(status)),
        ):
            key = RecordKey(authority.trust_domain, kind, NAME)
            await board.publish(source.signer, key, payload, 600.0)
        for node in it.nodes.values():
            await _knows(node, source.id)
        yield Hostile(it, source, shard)
    finally:
        await server.stop(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _knows(node: Node, other: SpiffeId) -> None:
    view = node.runtime.board
    await view.wait_for(lambda snapshot: other in snapshot.candidates and other in view.statuses, DEADLINE_S)


class Hostile:
    """The same node as one that asks. `learned` collects what it was told: cosines of chunks, by id."""

    def __init__(self, it: Arena, source: Any, shard: HostileShard) -> None:
        self._it = it
        self.shard = shard
        self.id: SpiffeId = source.id
        self._askers = {}
        for country, node in it.nodes.items():
            at = cast("ShardServer", SimpleNamespace(node=node, address=node.endpoint))
            self._askers[country] = Asker(it.mesh, source, at)

    async def ask(self) -> None:
        """One attempt at more than it may have."""
        chance = self._it.random
        country = chance.choice(COUNTRIES)
        # Its own authority's clients it can speak for, by design; others' it must not.
        home = COUNTRY if chance.random() < 0.7 else chance.choice(COUNTRIES)
        path = f"/client/{chance.choice(TENANTS)}/desk" if chance.random() < 0.9 else f"/node/{NAME}"
        requester = self._it.mesh[home].id(path)
        asked = context(("public",))
        kind: Callable[..., Any] = chance.choice((self._drain, self._foreign_ids, self._vector, self._fetch))
        if chance.random() < 0.2:
            kind = self._broken
        await self._it.attempt(f"hostile {kind.__name__}", kind(self._askers[country], requester, asked))

    async def _question(
        self, asker: Asker, requester: SpiffeId, asked: RequestContext, **changes: Any
    ) -> Any:
        spec = await collection_spec()
        (vector,) = await EMBEDDER.embed(["pump valve filter river bridge garden"])
        values = {
            "collection": COLLECTION,
            "digest": spec.digest,
            "vector": tuple(vector),
            "filters": Filters(),
        }
        return asker.search(requester, "pump valve filter river garden", asked, **{**values, **changes})

    async def _drain(self, asker: Asker, requester: SpiffeId, asked: RequestContext) -> None:
        """Passages of everything that was ranked, each kind of document filtered for."""
        kind = self._it.random.choice(list(DataClass))
        filters = Filters({"class": frozenset({str(kind)})} if self._it.random.random() < 0.5 else {})
        call = await self._question(asker, requester, asked, filters=filters)
        opened = await call.open()
        ranked = await call.weigh([1.0] * len(call.question.terms))
        ids = [each.id for each in cast("tuple[ScoredId, ...]", (*opened.by_vector, *ranked))]
        await call.release(list(dict.fromkeys(ids))[:DEPTH], ReleaseLevel.PASSAGE)
        await call.done()

    async def _foreign_ids(self, asker: Asker, requester: SpiffeId, asked: RequestContext) -> None:
        """Ids that were not ranked for it: real ones, of this node and of others."""
        call = await self._question(asker, requester, asked, depth=1)
        await call.open()
        known = list(self._it.judge.owner_of)
        await call.release(self._it.random.sample(known, 20), ReleaseLevel.PASSAGE)

    async def _vector(self, asker: Asker, requester: SpiffeId, asked: RequestContext) -> None:
        """A stored vector, or one axis, instead of a question."""
        axis = [0.0] * DIMENSIONS
        axis[self._it.random.randrange(DIMENSIONS)] = 1.0
        call = await self._question(asker, requester, asked, vector=tuple(axis), terms=())
        opened = await call.open()
        ids = [each.id for each in opened.by_vector]
        await call.release(ids, ReleaseLevel.PASSAGE)
        await call.done()

    async def _fetch(self, asker: Asker, requester: SpiffeId, asked: RequestContext) -> None:
        """Any chunk by its id."""
        request = _pb.ShardFetchRequest(
            admission=asker.admission(requester, asked, collection=COLLECTION),
            requester=str(requester),
            collection=self._it.random.choice((COLLECTION, COLLECTION, COLLECTION, "others")),
            id=self._it.random.choice(list(self._it.judge.owner_of)),
            level=4,
        )
        with contextlib.suppress(grpc.RpcError):
            await asker.stub.Fetch(request, timeout=DEADLINE_S)

    async def _broken(self, asker: Asker, requester: SpiffeId, asked: RequestContext) -> None:
        """Not the message, or far too much of it."""
        chance = self._it.random
        name = chance.choice(("Fetch", "Answer", "Search"))
        make: Any = asker.channel.unary_unary if name == "Fetch" else asker.channel.unary_stream
        data = chance.choice((chance.randbytes(200), b"\xff" * 70_000, b"", b"\x0a\x05ab"))
        call = make(f"/sovereign.mesh.v1.Shard/{name}")(data, timeout=DEADLINE_S)
        with contextlib.suppress(grpc.RpcError):
            await call if name == "Fetch" else [each async for each in call]
