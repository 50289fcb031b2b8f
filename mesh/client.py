"""The SDK: ask a model somewhere in the mesh, where both sides' policies allow it.

    async with MeshClient.from_profile("profile") as mesh:
        context = RequestContext.of(["confidential"], "contracts/review")
        async for event in mesh.chat("tiny", "Summarise: ...", context=context):
            if isinstance(event, Token):
                print(event.text, end="")

Rules it keeps:
- Place, then send (I2): the decision is made from metadata; the payload goes to a permitted node only,
  straight, over mutual TLS that trusts that node's own authority and nobody else.
- A node that is lost is replaced by another permitted one, or not at all (I1). The caller is told
  whether the text went on or must be discarded.
- Whoever stops reading, or closes the iterator, stops the generation.

Questions to collections of documents are mesh/sdk/questions.py's. mesh/sync_client.py is the same for
programs without an event loop. It knows nothing of policies.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import grpc

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.failover import Mode
from mesh.core.placement import Decision, Permitted
from mesh.core.questions import AnswerResult, NodeDone, Partial, SearchDecided, SearchResult
from mesh.core.retrieval import AnswerSentence, Hit, Reference, ReleaseLevel, SearchMode
from mesh.core.types import Action, Model, RequestContext, SpiffeId, node_id
from mesh.identity.names import dns_name_of
from mesh.identity.source import SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.sdk.delivery import Deliveries
from mesh.sdk.events import (
    Completion,
    Embeddings,
    Event,
    FailedOver,
    Finished,
    Placed,
    PlacementRefused,
    Started,
    Token,
)
from mesh.sdk.placers import Placers, Server
from mesh.sdk.profile import Profile
from mesh.sdk.questions import Questions, collect_answer, collect_search
from mesh.sdk.receipts import Fetched, Receipts
from mesh.sdk.renewal import renewer
from mesh.sdk.requests import Generation, Message, Sampling, check_size, messages_of, texts_of
from mesh.sdk.retrieval import Retrievals
from mesh.telemetry.span_attributes import SpanName
from mesh.telemetry.tracing import Tracing, open_tracing, program_tracing
from mesh.version import software_version
from sovereign.mesh.v1 import inference_pb2, inference_pb2_grpc

__all__ = [
    "AnswerResult",
    "AnswerSentence",
    "Completion",
    "Embeddings",
    "Event",
    "FailedOver",
    "Finished",
    "Hit",
    "MeshClient",
    "MeshError",
    "Message",
    "Mode",
    "NodeDone",
    "Partial",
    "Placed",
    "Placement",
    "PlacementRefused",
    "Reason",
    "Reference",
    "ReleaseLevel",
    "RequestContext",
    "Sampling",
    "SearchDecided",
    "SearchMode",
    "SearchResult",
    "Started",
    "Token",
    "collect",
    "collect_answer",
    "collect_search",
]

LIST_TIMEOUT_S = 5.0
MAX_MODELS = 64

Messages = str | Iterable[Message | Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision and where it lets one send, best first."""

    decision: Decision
    targets: tuple[Permitted, ...]


@dataclass(frozen=True, slots=True)
class _Open:
    """What a client has while it is open."""

    pool: ChannelPool
    placers: Placers
    deliveries: Deliveries
    retrievals: Retrievals
    receipts: Receipts
    tracing: Tracing


class MeshClient(Questions):
    """A caller of the mesh. Use as an async context manager, inside one event loop.

    `servers` are the daemons of the own trust domain that place requests, asked in this order.
    `control`, if given, is where the certificate is renewed while the client lives. `silence_s` is how
    long a node may say nothing before it counts as lost. Spans go through `tracing`, which the client
    closes, or by the OpenTelemetry tracer provider that the program has set up, if it has.
    """

    def __init__(
        self,
        source: SvidSource,
        servers: Sequence[Server],
        *,
        control: Server | None = None,
        clock: Callable[[], float] = time.time,
        silence_s: float = 30.0,
        tracing: Tracing | None = None,
    ) -> None:
        foreign = [s for s in servers if s.id.trust_domain != source.id.trust_domain]
        if foreign:
            raise MeshError(
                Reason.CONFIG_INVALID, "only the own authority's daemons are asked for placements"
            )
        self._source = source
        self._servers = tuple(servers)
        self._control = control
        self._clock = clock
        self._silence_s = silence_s
        self._tracing = tracing
        self._open: _Open | None = None
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    def from_profile(
        cls, directory: Path | str, *, renew: bool = True, silence_s: float = 30.0
    ) -> MeshClient:
        """The client that a profile describes (`meshctl client issue` writes one).

        Raises CONFIG_INVALID or NOT_FOUND if it cannot be read.
        """
        profile = Profile.load(Path(directory))
        source = SvidSource.load(profile.identity, clock=time.time, random=random.random)
        servers = [
            Server(node_id(profile.trust_domain, name), endpoint) for name, endpoint in profile.nodes.items()
        ]
        control = None
        if profile.control is not None:
            control = Server(profile.control_id, profile.control.endpoint)
            servers.append(control)
        tracing = None
        if profile.traces is not None:
            tracing = open_tracing(profile.traces, source.id, "mesh-client", software_version())
        return cls(source, servers, control=control if renew else None, silence_s=silence_s, tracing=tracing)

    async def __aenter__(self) -> MeshClient:
        if self._source.svid.not_after <= self._clock():
            raise MeshError(Reason.IDENTITY_EXPIRED, f"the certificate of {self.id} has expired")
        pool = ChannelPool(self._source)
        placers = Placers(self._servers, pool, self._clock)
        tracing = self._tracing or program_tracing()
        self._open = _Open(
            pool,
            placers,
            Deliveries(placers, pool, self._clock, silence_s=self._silence_s, tracing=tracing),
            Retrievals(placers, pool, self._clock, tracing),
            Receipts(self._servers, pool, lambda: self._source.bundles),
            tracing,
        )
        if self._control is not None:
            self._renewal = asyncio.create_task(self._source.run(renewer(pool, self._control)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends all calls and closes all connections."""
        if self._renewal is not None:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
            self._renewal = None
        if self._open is not None:
            await self._open.pool.aclose()
            await self._open.tracing.aclose()
            self._open = None

    @property
    def id(self) -> SpiffeId:
        """Who calls."""
        return self._source.id

    async def place(
        self,
        context: RequestContext,
        *,
        action: Action = Action.INFER,
        model: str = "",
        excluded: Iterable[SpiffeId] = (),
        explain: bool = False,
    ) -> Placement:
        """Where a request may go. A refusal is an answer here: `decision.permitted` is false."""
        with self._parts().tracing.begin(SpanName.PLACE) as span:
            decision, targets = await self._parts().placers.place(
                context, action=action, model=model, excluded=excluded, explain=explain, span=span
            )
        return Placement(decision, targets)

    def chat(
        self,
        model: str,
        messages: Messages,
        *,
        context: RequestContext,
        sampling: Sampling | None = None,
        timeout_s: float = 300.0,
    ) -> AsyncGenerator[Event, None]:
        """Continues a conversation: one user text, {"role", "content"} mappings, or Messages.

        Yields events until Finished. Raises PlacementRefused if no node may or can take it, and
        MeshError with what was tried if every permitted node failed.
        """
        request = Generation(model, context, sampling or Sampling(), messages=messages_of(messages))
        return self._parts().deliveries.generate(request, timeout_s)

    def complete(
        self,
        model: str,
        prompt: str,
        *,
        context: RequestContext,
        sampling: Sampling | None = None,
        timeout_s: float = 300.0,
    ) -> AsyncGenerator[Event, None]:
        """Continues a text; otherwise like `chat`."""
        if not prompt:
            raise MeshError(Reason.REQUEST_INVALID, "prompt: expected a text to continue")
        check_size([prompt])
        request = Generation(model, context, sampling or Sampling(), prompt=prompt)
        return self._parts().deliveries.generate(request, timeout_s)

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        context: RequestContext,
        model: str = "",
        timeout_s: float = 60.0,
    ) -> Embeddings:
        """One unit vector per text, in order. Fails over like `chat`."""
        decision: Decision | None = None
        started: Started | None = None
        vectors: list[list[float]] = []
        async with aclosing(
            self._parts().deliveries.embed(model, texts_of(texts), context, timeout_s)
        ) as answers:
            async for answer in answers:
                if isinstance(answer, Placed):
                    decision = answer.decision
                elif isinstance(answer, Started):
                    started = answer
                elif isinstance(answer, list):
                    vectors = answer
        if decision is None or started is None:
            raise MeshError(Reason.INTERNAL, "a delivery ended without an answer")
        return Embeddings(vectors, started.model_digest, started.node, decision)

    async def list_models(self) -> dict[SpiffeId, tuple[Model, ...]]:
        """What the home nodes serve, those that answer. Raises UNREACHABLE if none does."""
        nodes = [server for server in self._servers if server.id.kind == "node"]
        if not nodes:
            raise MeshError(
                Reason.CONFIG_INVALID, "profile.yaml: nodes: name a home node to ask for its models"
            )
        answers = await asyncio.gather(*map(self._models_of, nodes), return_exceptions=True)
        found: dict[SpiffeId, tuple[Model, ...]] = {}
        failures: list[str] = []
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, MeshError):
                failures.append(f"{node.id} ({answer.reason.code})")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[node.id] = answer
        if not found:
            raise MeshError(Reason.UNREACHABLE, "no home node answers: " + ", ".join(failures))
        return found

    async def _models_of(self, node: Server) -> tuple[Model, ...]:
        channel = self._parts().pool.channel(
            node.endpoint, dns_name=dns_name_of(node.id), trust_domain=node.id.trust_domain
        )
        try:
            answer = await inference_pb2_grpc.InferenceStub(channel).ListModels(
                inference_pb2.ListModelsRequest(), timeout=LIST_TIMEOUT_S
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return tuple(codec.model_from_pb(model) for model in answer.models[:MAX_MODELS])

    async def receipt(
        self, decision: Decision, served_by: Iterable[SpiffeId] = (), *, wait_s: float = 5.0
    ) -> Fetched:
        """What the logs hold about a request of this client's: of whoever decided, and of the nodes that
        served it (Finished.node; for a search or answer the nodes of its coverage that answered).

        Waits so long at most for witnesses to cosign. `receipt.to_json()` is a file that proves itself; see
        mesh/core/receipt.py. Raises what the deciding node says; ends that are lacking are in `missing`.
        """
        if decision.decided_by is None:
            raise MeshError(Reason.NOT_FOUND, "expected a decision that says who decided")
        return await self.receipts(decision.id, (decision.decided_by, *served_by), wait_s=wait_s)

    async def receipts(self, decision: str, ends: Iterable[SpiffeId], *, wait_s: float = 5.0) -> Fetched:
        """The same by the decision's id: of these nodes' logs, whoever decided first."""
        return await self._parts().receipts.fetch(decision, ends, wait_s)

    def _retrieval(self) -> Retrievals:
        return self._parts().retrievals

    def _parts(self) -> _Open:
        if self._open is None:
            raise RuntimeError(
                "MeshClient is an async context manager: async with MeshClient...(...) as mesh"
            )
        return self._open


async def collect(stream: AsyncGenerator[Event, None]) -> Completion:
    """Reads a stream to its end; text that had to be discarded is not in it."""
    text: list[str] = []
    decision: Decision | None = None
    failovers: list[FailedOver] = []
    async with aclosing(stream) as stream:
        async for event in stream:
            if isinstance(event, Token):
                text.append(event.text)
            elif isinstance(event, Placed):
                decision = event.decision
            elif isinstance(event, FailedOver):
                failovers.append(event)
                if event.mode is Mode.RESTARTED:
                    text.clear()
            elif isinstance(event, Finished) and decision is not None:
                return Completion("".join(text), event, decision, tuple(failovers))
    raise MeshError(Reason.INTERNAL, "the stream ended without Finished")
