"""The nodes that are asked one question together, and what becomes of each.

Rules kept here:

- A node is judged against the newest records right before anything is sent to it, each time (I1). If it
  is no longer permitted, nothing is sent and it is out; if nothing was ever sent, it was not asked.
- Each node fails for itself: late, lost, refusing, misbehaving or a mistake of ours, it costs coverage.
  Once out, a node stays out, and nothing that it said is used.
- Whoever stops listening ends every call.

It knows nothing of rankings: asker.py and answering.py say what the nodes are asked. Times are monotonic
seconds; `clock` is Unix seconds, for judging.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.core.decision import Decision, sentence
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.retrieval import CollectionSpec, Coverage, Outcome, Released, ReleaseLevel, ScoredId
from mesh.core.shards import Opened
from mesh.core.snapshot import Snapshot
from mesh.core.targets import Offer, Permitted, permitted_targets
from mesh.core.types import Action, Principal, RequestContext, SpiffeId
from mesh.identity.names import dns_name_of
from mesh.rpc.permit_writer import PermitWriter
from mesh.rpc.placement_service import View
from mesh.telemetry import span_attributes as names
from mesh.telemetry import spans
from mesh.telemetry.logs import describe
from mesh.telemetry.span_attributes import SpanName
from mesh.telemetry.spans import NO_SPAN, Span
from node.retrieval.shards import ShardPeer, ShardPeers

_LOG = logging.getLogger(__name__)

_END = object()


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked for whom, as it was decided; nothing has been sent. `snapshot` is what it rests on."""

    requester: SpiffeId
    context: RequestContext
    spec: CollectionSpec
    decision: Decision
    snapshot: Snapshot

    @property
    def holders(self) -> int:
        """How many nodes hold the collection, as far as is known."""
        return len(self.decision.ranked) + self.decision.refused_total


@dataclass(slots=True, eq=False)
class Member:
    """One node of a panel. What it said so far is here, to be used only while it is not out."""

    node: SpiffeId
    location: str
    target: Permitted
    peer: ShardPeer
    sent: bool = False
    began: float | None = None
    latency_s: float = 0.0
    failure: MeshError | None = None
    opened: Opened | None = None
    weights: tuple[float, ...] = ()
    weighs: int = 0
    by_terms: tuple[ScoredId, ...] = ()
    asked: set[bytes] = field(default_factory=set)
    releases: int = 0
    released: dict[bytes, Released] = field(default_factory=dict)
    highest: ReleaseLevel = ReleaseLevel.NOTHING
    counted: int = 0
    counted_inexact: bool = False
    charged: int = 0
    span: Span = NO_SPAN

    def coverage(self) -> Coverage:
        """What became of it."""
        common = {"node": self.node, "location": self.location, "charged": self.charged}
        if self.failure is None:
            return Coverage(
                outcome=Outcome.ANSWERED,
                latency_ms=self.latency_s * 1000,
                counted=self.counted,
                counted_inexact=self.counted_inexact,
                highest=self.highest,
                approximate=self.opened is not None and self.opened.approximate,
                **common,  # type: ignore[arg-type]
            )
        policies = self.failure.metadata.get("policies", "")
        refused = not self.sent and self.failure.reason.is_policy
        return Coverage(
            outcome=Outcome.NOT_ASKED if refused else Outcome.FAILED,
            reason=self.failure.reason,
            detail=sentence(self.failure.message),
            policies=tuple(policies.split(",")[:32]) if policies else (),
            latency_ms=self.latency_s * 1000,
            **common,  # type: ignore[arg-type]
        )


Emit = Callable[[Any], None]
Work = Callable[[Member, Emit], Awaitable[None]]


class Panel:
    """Use `Panels.convene`."""

    def __init__(
        self,
        plan: Plan,
        members: Iterable[Member],
        judge: Callable[[Member], Permitted],
        unusable: Iterable[Coverage] = (),
    ) -> None:
        self._plan = plan
        self._unusable = tuple(unusable)
        self._judge = judge
        self.members: Mapping[SpiffeId, Member] = {member.node: member for member in members}

    @property
    def live(self) -> list[Member]:
        """Those that are not out, in the order of their names."""
        return [member for _, member in sorted(self.members.items()) if member.failure is None]

    def permitted(self, member: Member) -> Permitted:
        """The target, if it is permitted at this moment; raises the refusal. Send at once."""
        target = self._judge(member)
        member.sent = True
        return target

    def coverage(self) -> tuple[Coverage, ...]:
        """What became of every node that holds the collection, by name."""
        not_asked = [
            Coverage(r.node, r.location, Outcome.NOT_ASKED, r.reason, sentence(r.detail), r.policies)
            for r in self._plan.decision.refused
        ]
        asked = [member.coverage() for member in self.members.values()]
        return tuple(sorted((*asked, *not_asked, *self._unusable), key=lambda each: each.node))

    async def run(
        self, members: Iterable[Member], work: Work, seconds: float
    ) -> AsyncGenerator[tuple[Member, Any], None]:
        """Has the members do their work at the same time, for so long at most.

        Yields (member, what it emits) as it comes, and (member, None) when one is done or out. Close it.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[Member, Any]] = asyncio.Queue()
        waiting: dict[SpiffeId, Member] = {}
        tasks: list[asyncio.Task[None]] = []
        for member in members:
            waiting[member.node] = member
            tasks.append(loop.create_task(self._one(member, work, events, loop)))
        ends = loop.time() + seconds
        try:
            while waiting:
                try:
                    async with asyncio.timeout_at(ends):
                        member, said = await events.get()
                except TimeoutError:
                    break
                if said is _END:
                    del waiting[member.node]
                    yield member, None
                else:
                    yield member, said
            for task in tasks:  # before anybody is told: who is out is sent nothing more
                task.cancel()
            for member in waiting.values():
                late = MeshError(Reason.DEADLINE_EXCEEDED, "it did not answer in time")
                self._out(member, late, loop.time())
                yield member, None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(m.peer.aclose() for m in waiting.values()), return_exceptions=True)

    async def _one(
        self,
        member: Member,
        work: Work,
        events: asyncio.Queue[tuple[Member, Any]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        began = member.began = loop.time() if member.began is None else member.began
        failure: MeshError | None = None
        try:
            with spans.within(member.span):
                await work(member, lambda said: events.put_nowait((member, said)))
        except MeshError as error:
            failure = error
        except Exception as error:
            # A mistake of ours about one node must not cost the others their answer.
            _LOG.error("asking %s: %s", member.node, describe(error))
            failure = MeshError(Reason.INTERNAL, "an error inside the asker")
        member.latency_s = loop.time() - began
        if failure is not None:
            self._out(member, failure, loop.time())
            with contextlib.suppress(Exception):
                await member.peer.aclose()
        events.put_nowait((member, _END))

    def _out(self, member: Member, failure: MeshError, now: float) -> None:
        if member.failure is None:
            member.failure = failure
            member.latency_s = now - (now if member.began is None else member.began)
            _LOG.info("%s is out of a question: %s", member.node, failure.reason.code)


def _end_span(member: Member) -> None:
    """Says what became of the node."""
    covered = member.coverage()
    if member.failure is not None:
        member.span.fail(member.failure)
    member.span.set(
        {
            names.OUTCOME: covered.outcome.value,
            names.HIGHEST_LEVEL: member.highest.word,
            names.CHARGED: member.charged,
        }
    )
    member.span.end()


class Panels:
    """Makes panels for one node that asks."""

    def __init__(
        self,
        view: View,
        placer: Placer,
        permits: PermitWriter,
        shards: ShardPeers,
        clock: Callable[[], float],
    ) -> None:
        self._view = view
        self._placer = placer
        self._permits = permits
        self._shards = shards
        self._clock = clock

    @contextlib.asynccontextmanager
    async def convene(
        self, plan: Plan, timeout_s: float, only: SpiffeId | None = None
    ) -> AsyncIterator[Panel]:
        """The nodes that the plan ranks (or the one). At the end all their calls have ended."""
        members: list[Member] = []
        unusable: list[Coverage] = []
        for ranked in plan.decision.ranked:
            if only not in (None, ranked.node):
                continue
            try:
                target = self._target(plan, ranked.node)
            except MeshError as error:  # what one node's record says must not cost the others their answer
                detail = sentence(error.message)
                unusable.append(Coverage(ranked.node, ranked.location, Outcome.FAILED, error.reason, detail))
                continue
            peer = self._shards.peer(ranked.node, timeout_s)
            where: names.Attributes = {names.NODE: str(ranked.node), names.LOCATION: ranked.location}
            span = spans.current().child(SpanName.HOLDER, spans.Kind.CLIENT, where)
            members.append(Member(ranked.node, ranked.location, target, peer, span=span))
        try:
            yield Panel(plan, members, lambda member: self._judge(plan, member), unusable)
        finally:
            for member in members:
                _end_span(member)
            await asyncio.gather(*(m.peer.aclose() for m in members), return_exceptions=True)

    def _target(self, plan: Plan, node: SpiffeId) -> Permitted:
        permit = self._permits.write(
            plan.decision,
            node,
            caller=plan.requester,
            action=Action.SEARCH,
            context=plan.context,
            model=plan.spec.name,
        )
        endpoints = plan.snapshot.candidates[node].record.endpoints
        # Not the name that its authority states, see mesh/rpc/placement_service.py.
        offer = Offer(node, endpoints, dns_name_of(node), permit)
        return permitted_targets(plan.decision, [offer])[0]

    def _judge(self, plan: Plan, member: Member) -> Permitted:
        decision = self._placer.judge_here(
            self._view.snapshot,
            member.node,
            principal=Principal(plan.requester),
            action=Action.SEARCH,
            context=plan.context,
            model=plan.spec.name,
            now=self._clock(),
            decision_id=plan.decision.id,
        )
        # What is under way goes on when a node is cordoned, as everywhere: only a policy ends it.
        if decision.permitted or not decision.refused[0].reason.is_policy:
            return member.target
        raise decision.refusal()
