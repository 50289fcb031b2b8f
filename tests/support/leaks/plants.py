"""Leaks put in on purpose: each is a way in which the product could go wrong, and what the judge must say.

A plant patches the product while the context lasts. They are what shows that the leak test can fail.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import logging
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from mesh.codec import retrieval as codec
from mesh.core import release
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import RequestContext
from mesh.telemetry import metrics
from node.index.index import DocumentIndex
from node.retrieval import local, panel, shard_service
from node.retrieval.asker import Asker
from node.retrieval.holder import Holder
from node.retrieval.open_shard import OpenShard
from node.retrieval.shards import RemoteShard
from node.retrieval.sight import Cutter, Sight, Sights
from tests.support.leaks.arena import EMBEDDER, Arena

_LOG = logging.getLogger("planted")
Patch = Callable[[Any, str, Callable[[Any], Any]], None]


@contextlib.contextmanager
def planted(name: str, it: Arena) -> Iterator[None]:
    """Puts one in."""
    with contextlib.ExitStack() as undo:

        def patch(owner: Any, attribute: str, make: Callable[[Any], Any]) -> None:
            before = vars(owner)[attribute]
            undo.callback(setattr, owner, attribute, before)
            setattr(owner, attribute, make(before))

        PLANTS[name][0](patch, it)
        yield


def _text_at_reference(patch: Patch, it: Arena) -> None:
    def cut(before: Any) -> Any:
        def cut(self: Cutter, chunk: Any, level: ReleaseLevel, matches: Any) -> Any:
            released = before(self, chunk, level, matches)
            return released if released.text else dataclasses.replace(released, text=chunk.text)

        return cut

    patch(Cutter, "cut", cut)


def _title_in_detail(patch: Patch, it: Arena) -> None:
    def coverage(before: Any) -> Any:
        def coverage(self: Any) -> Any:
            title = it.random.choice([d for d in it.of("DE") if d.classes == ("special-category",)]).title
            return dataclasses.replace(before(self), detail=f"busy with {title}")

        return coverage

    patch(panel.Member, "coverage", coverage)


def _secret_vector(it: Arena) -> list[float]:
    """Of a text that nobody may see."""
    secret = next(each for each in it.of("FR") if each.classes == ("special-category",))
    return EMBEDDER._vector(secret.texts[0])


def _vector_as_scores(patch: Patch, it: Arena) -> None:
    def ranked(before: Any) -> Any:
        def ranked(ranking: Any) -> Any:
            message = before(ranking)
            del message.ranked.scores[:]
            message.ranked.scores.extend(_secret_vector(it))
            return message

        return ranked

    patch(codec, "ranked_to_pb", ranked)


def _instead_of_ids(patch: Patch, data: bytes) -> None:
    def ranked(before: Any) -> Any:
        def ranked(ranking: Any) -> Any:
            message = before(ranking)
            message.ranked.ids = data
            return message

        return ranked

    patch(codec, "ranked_to_pb", ranked)


def _vector_as_bytes(patch: Patch, it: Arena) -> None:
    vector = _secret_vector(it)
    _instead_of_ids(patch, b"x" + struct.pack(f"<{len(vector)}f", *vector))


def _piece_of_a_vector(patch: Patch, it: Arena) -> None:
    _instead_of_ids(patch, struct.pack(">10f", *_secret_vector(it)[17:27]))


def _quantised_vector(patch: Patch, it: Arena) -> None:
    vector = _secret_vector(it)
    most = max(map(abs, vector))
    _instead_of_ids(patch, struct.pack(f"{len(vector)}b", *(round(127 * x / most) for x in vector)))


def _vector_as_text(patch: Patch, it: Arena) -> None:
    """In the words of an error: as decimals, and as base64."""
    vector = _secret_vector(it)

    def weigh(before: Any) -> Any:
        async def weigh(self: Any, weights: Any) -> Any:
            decimals = ", ".join(f"{x:.3f}" for x in vector)
            encoded = base64.b64encode(struct.pack("<16f", *vector[:16])).decode()
            raise MeshError(Reason.INTERNAL, f"[{decimals}]" if it.random.random() < 0.5 else encoded)

        return weigh

    patch(OpenShard, "weigh", weigh)


def _question_in_log(patch: Patch, it: Arena) -> None:
    def search(before: Any) -> Any:
        def search(self: Any, plan: Any, question: Any) -> Any:
            _LOG.info("asking about %s", question.query)
            return before(self, plan, question)

        return search

    patch(Asker, "search", search)


def _canary_in_exception(patch: Patch, it: Arena) -> None:
    def chunks(before: Any) -> Any:
        def chunks(self: Any, ids: Any, groups: Any) -> Any:
            found = before(self, ids, groups)
            for chunk in found.values():
                raise MeshError(Reason.INDEX_UNAVAILABLE, f"cannot read {chunk.document.title}")
            return found

        return chunks

    patch(DocumentIndex, "chunks", chunks)


def _id_in_evidence(patch: Patch, it: Arena) -> None:
    def entry(before: Any) -> Any:
        def entry(*arguments: Any) -> Any:
            return {**before(*arguments), "document": it.documents[0].id}

        return entry

    patch(local, "release_entry", entry)
    patch(shard_service, "release_entry", entry)


def _question_in_a_label(patch: Patch, it: Arena) -> None:
    """Questions counted by what they ask."""

    def search(before: Any) -> Any:
        def search(self: Any, plan: Any, question: Any) -> Any:
            for node in it.mesh.nodes:
                made = node.runtime.parts.telemetry.instruments  # type: ignore[union-attr]
                made.counter(metrics.REFUSALS).labels("Retrieval", "Search", question.query).inc()
            return before(self, plan, question)

        return search

    patch(Asker, "search", search)


def _counted_by_reference(patch: Patch, it: Arena) -> None:
    def from_level(before: Any) -> Any:
        return lambda self, least: before(self, min(least, ReleaseLevel.COUNT))

    patch(Sight, "from_level", from_level)


def _snippet_as_it_is(patch: Patch, it: Arena) -> None:
    def cut(before: Any) -> Any:
        def cut(self: Cutter, chunk: Any, level: ReleaseLevel, matches: Any) -> Any:
            released = before(self, chunk, level, matches)
            excerpt = level is ReleaseLevel.SNIPPET
            return dataclasses.replace(released, text=chunk.text) if excerpt else released

        return cut

    patch(Cutter, "cut", cut)


def _question_to_anybody(patch: Patch, it: Arena) -> None:
    """The asker tells a node outside its decision."""

    def search(before: Any) -> Any:
        async def search(self: Any, plan: Any, question: Any) -> Any:
            public = RequestContext.of(["public"], plan.context.purpose)
            wider = self.decide(plan.requester, public, plan.spec.name, plan.decision.id)
            async for event in before(self, wider, question):
                yield event

        return search

    patch(Asker, "search", search)


def _question_in_metadata(patch: Patch, it: Arena) -> None:
    """The question in words goes along to nodes, as a status does back: the latter is never right."""

    def answer(before: Any) -> Any:
        async def respond(self: Any, question: Any) -> Any:
            raise MeshError(Reason.ENGINE_FAILED, "the model failed", {"prompt": question.question})

        return respond

    patch(Holder, "respond", answer)


def _tenants_mixed(patch: Patch, it: Arena) -> None:
    patch(release, "may_see", lambda before: lambda group, node, principal: True)


def _prompt_below_snippet(patch: Patch, it: Arena) -> None:
    """A model is shown everything as it is."""
    patch(Cutter, "readable", lambda before: lambda self, chunk, level: chunk.text)
    patch(Cutter, "snippet", lambda before: lambda self, text, matches: text)


def _text_in_a_file(patch: Patch, it: Arena) -> None:
    def readable(before: Any) -> Any:
        def readable(self: Any, chunk: Any, level: ReleaseLevel) -> str:
            with tempfile.NamedTemporaryFile("w", delete=False) as file:
                file.write(chunk.text)
            return str(before(self, chunk, level))

        return readable

    patch(Cutter, "readable", readable)


def _release_of_unranked(patch: Patch, it: Arena) -> None:
    """Other nodes' ids are sent along when texts are asked for."""

    def release(before: Any) -> Any:
        async def release(self: Any, target: Any, ids: Any, level: Any) -> Any:
            strange = next(
                id
                for id, (document, _) in it.judge.owner_of.items()
                if document.holder != target.node.trust_domain[:2].upper()
            )
            return await before(self, target, [*ids, strange][-100:], level)

        return release

    patch(RemoteShard, "release", release)


def _levels_remembered(patch: Patch, it: Arena) -> None:
    """What was permitted once stays so."""
    known: dict[Any, Any] = {}

    def look(before: Any) -> Any:
        def look(self: Sights, requester: Any, context: Any, collection: str, groups: Any) -> Any:
            key = (self._node, requester, context.purpose)
            if key not in known:
                known[key] = before(self, requester, context, collection, groups)
            return known[key]

        return look

    patch(Sights, "look", look)
    patch(Sight, "require_current", lambda before: lambda self: None)


# Name: what puts it in, and what must be found, by the beginnings of what and where.
PLANTS: dict[str, tuple[Callable[[Patch, Arena], None], str, str]] = {
    "text at reference level": (_text_at_reference, "eight words", "/sovereign.mesh.v1.Shard/Search message"),
    "title in a coverage detail": (_title_in_detail, "title", "/sovereign.mesh.v1.Retrieval/Search message"),
    "vector as scores": (_vector_as_scores, "vector", "/sovereign.mesh.v1.Shard/Search message"),
    "vector as bytes": (_vector_as_bytes, "vector", "/sovereign.mesh.v1.Shard/Search message"),
    "piece of a vector": (_piece_of_a_vector, "vector", "/sovereign.mesh.v1.Shard/Search message"),
    "quantised vector": (_quantised_vector, "vector", "/sovereign.mesh.v1.Shard/Search message"),
    "vector as text": (_vector_as_text, "vector", "/sovereign.mesh.v1.Shard/Search status"),
    "question in a log line": (_question_in_log, "question", "log"),
    "question in a label": (_question_in_a_label, "question", "metrics"),
    "canary in an exception": (_canary_in_exception, "title", "/sovereign.mesh.v1.Shard/Search status"),
    "document id in evidence": (_id_in_evidence, "id", "evidence"),
    "reference of what may be counted": (
        _counted_by_reference,
        "chunk id",
        "/sovereign.mesh.v1.Shard/Search message",
    ),
    "snippet as it is": (_snippet_as_it_is, "name in the text", "/sovereign.mesh.v1.Shard/Search message"),
    "question to anybody": (_question_to_anybody, "question", "/sovereign.mesh.v1.Shard/Search message"),
    "question in a status": (_question_in_metadata, "question", "/sovereign.mesh.v1.Shard/Answer status"),
    "documents of another tenant": (_tenants_mixed, "statistics over other documents", ""),
    "a model that is shown everything": (
        _prompt_below_snippet,
        "name in the text",
        "/sovereign.mesh.v1.Retrieval/Answer message",
    ),
    "withdrawn levels": (_levels_remembered, "chunk id", "/sovereign.mesh.v1.Shard/Search message"),
    "text in a file": (_text_in_a_file, "eight words", "file"),
    "ids of another node": (
        _release_of_unranked,
        "chunk id of another node",
        "/sovereign.mesh.v1.Shard/Search message",
    ),
}
