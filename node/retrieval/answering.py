"""Answers from where the data is, and single passages: asked like a search, of permitted nodes only.

For an answer every node reads its own passages; sentences go on to the client as they come, and the
composed answer holds those of the nodes that came to their end, and of no other (mesh/core/answers.py).
A passage is asked of the one node that its reference names, decided anew; if that is refused, so is the
request, with the policies that refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from mesh.core.answers import compose
from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.questions import (
    AnswerEvent,
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    NodeDone,
    SearchDecided,
    is_complete,
)
from mesh.core.retrieval import AnswerSentence, Hit, Released
from mesh.core.shards import Answered, ShardAnswerQuestion
from mesh.core.types import SpiffeId
from node.retrieval.panel import Emit, Member, Panels, Plan


class Answering:
    """For one node; plans are Asker.decide's."""

    def __init__(self, panels: Panels) -> None:
        self._panels = panels

    async def answer(self, plan: Plan, question: AnswerQuestion) -> AsyncGenerator[AnswerEvent, None]:
        """SearchDecided, sentences and NodeDone as they come, AnswerResult last. Closing it ends every call.

        A sentence of a node that fails afterwards has been told already; the result leaves it out.
        """
        shard = ShardAnswerQuestion(
            plan.requester,
            plan.context,
            plan.spec.name,
            plan.spec.digest,
            question.question,
            question.filters,
        )
        said: Mapping[SpiffeId, list[AnswerSentence]] = {r.node: [] for r in plan.decision.ranked}
        yield SearchDecided(plan.decision)
        async with self._panels.convene(plan, question.timeout_s) as panel:

            async def read(member: Member, emit: Emit) -> None:
                await member.peer.connect(member.target)
                answered: Answered | None = None
                async with aclosing(member.peer.answer(panel.permitted(member), shard)) as answers:
                    async for part in answers:
                        if isinstance(part, Answered):
                            answered = part
                            break
                        said[member.node].append(part)
                        emit(part)
                if answered is None:
                    raise MeshError(Reason.PEER_MISBEHAVED, "a node's answer: expected an end")
                member.highest, member.counted = answered.highest, answered.counted
                member.counted_inexact, member.charged = answered.counted_inexact, answered.charged

            async with aclosing(panel.run(panel.live, read, question.timeout_s)) as events:
                async for member, part in events:
                    yield NodeDone(member.coverage()) if part is None else part
            coverage = panel.coverage()
            sentences = compose(each for member in panel.live for each in said[member.node])
            yield AnswerResult(sentences, coverage, is_complete(coverage, plan.holders))

    async def fetch(self, plan: Plan, question: FetchQuestion) -> Hit:
        """The passage, at the level that its holder's policy allows.

        Raises the refusal if its node may not be asked, REFERENCE_UNKNOWN if no such node holds the
        collection, what the node says, or DEADLINE_EXCEEDED.
        """
        reference = question.reference
        require_permitted(plan.decision, reference.node)
        found: list[Released] = []
        async with self._panels.convene(plan, question.timeout_s, reference.node) as panel:

            async def get(member: Member, _: Emit) -> None:
                await member.peer.connect(member.target)
                target = panel.permitted(member)
                found.append(
                    await member.peer.fetch(
                        target,
                        plan.requester,
                        plan.context,
                        reference.collection,
                        reference.id,
                        question.level,
                    )
                )

            async for _ in panel.run(panel.live, get, question.timeout_s):
                pass
            failures = [m.failure for m in panel.members.values() if m.failure is not None]
        if failures:
            raise failures[0]
        if not found:
            raise MeshError(Reason.UNREACHABLE, "its record does not say how to reach the node")
        return Hit(0, 0.0, reference, found[0])


def require_permitted(decision: Decision, node: SpiffeId) -> None:
    """Raises the decision's refusal of this node, unless it permits it."""
    if any(ranked.node == node for ranked in decision.ranked):
        return
    for refused in decision.refused:
        if refused.node == node:
            metadata = {"decision": decision.id}
            if refused.policies:
                metadata["policies"] = ",".join(refused.policies)
            raise MeshError(refused.reason, refused.detail, metadata)
    raise MeshError(Reason.REFERENCE_UNKNOWN, "no node of this name holds the collection")
