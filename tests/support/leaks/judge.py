"""Says of every recorded byte whether it was permitted, by the tables of rules.py and nothing else.

- What a node answers (server side, sent) may hold of a document what its level for the requester allows.
  The requester of a Retrieval call is whoever is on the connection; of a Shard call it is the client that
  the request names, if it belongs to the caller's trust domain and the caller is a node: else nobody.
  It goes by the rules at the moment of sending; what an asker passes on, by those since it was asked.
- What a node asks of another (client side, sent) holds the question, only if that node may be asked, and
  chunks' ids, only that node's own. Nothing else of any document.
- Records on the board, logs, evidence, metrics, crash output and files hold nothing of documents or
  questions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from mesh.core.types import SpiffeId, node_id
from sovereign.mesh.v1 import retrieval_pb2
from tests.support.leaks.patterns import Strings, Vectors, views
from tests.support.leaks.rules import (
    COUNT,
    NEVER,
    NOTHING,
    REFERENCE,
    SNIPPET,
    Asked,
    Epoch,
    level_of,
    may_ask,
)
from tests.support.leaks.tap import Flow
from tests.support.leaks.world import Canary, Document, grams

_RETRIEVAL, _SHARD = "/sovereign.mesh.v1.Retrieval/", "/sovereign.mesh.v1.Shard/"
_REQUESTS: Mapping[str, type[Message]] = {
    _RETRIEVAL + "Search": retrieval_pb2.SearchRequest,
    _RETRIEVAL + "Answer": retrieval_pb2.AnswerRequest,
    _RETRIEVAL + "Fetch": retrieval_pb2.FetchRequest,
    _SHARD + "Search": retrieval_pb2.ShardSearchRequest,
    _SHARD + "Answer": retrieval_pb2.ShardAnswerRequest,
    _SHARD + "Fetch": retrieval_pb2.ShardFetchRequest,
}
_WORD = re.compile(r"[^\W_]+")
_NOBODY = Asked("", "")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not have been there: what, and where."""

    what: str
    where: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was asked: a word that only it has, and for whom."""

    word: str
    asked: Asked


class Judge:
    """`epochs` says which rules were in force; `hostile` nodes are judged by nobody."""

    def __init__(
        self,
        documents: Sequence[Document],
        epochs: Sequence[Epoch],
        dimensions: int,
        hostile: Iterable[str] = (),
    ) -> None:
        self._documents = {document.id: document for document in documents}
        self._epochs = epochs
        self._hostile = frozenset(hostile)
        self._strings, self._binary, self._vectors = Strings(), Strings(), Vectors(dimensions)
        self._questions: dict[str, Question] = {}
        self._grams: dict[str, list[Document]] = defaultdict(list)
        self.owner_of: dict[bytes, tuple[Document, int]] = {}
        self._known: dict[bytes, set[Any]] = {}
        self.claimed: set[bytes] = set()
        """Ids that a hostile node says are its own."""
        self.judged = 0
        """How many bytes were looked at."""
        self.seen: set[Canary] = set()
        """What was in answers, permitted or not."""
        for document in documents:
            for canary in document.canaries:
                self._strings.add(canary.text.encode(), (document, canary))
            for text in (document.title, *document.texts):
                for gram in grams(_WORD.findall(text.lower())):
                    self._grams[gram].append(document)

    def chunk(self, document: Document, ordinal: int, id: bytes, vector: Sequence[float]) -> None:
        """What a holder made of a piece of a document."""
        self.owner_of[id] = (document, ordinal)
        canary = Canary("chunk id", id.hex(), REFERENCE)
        self._binary.add(id, (document, canary))
        self._vectors.add(vector, (document, Canary("vector", "", NEVER)))

    def question(self, word: str, asked: Asked, vector: Sequence[float]) -> None:
        """A question that is about to be asked."""
        question = self._questions[word] = Question(word, asked)
        self._strings.add(word.encode(), question)
        self._vectors.add(vector, question, quantised=False)

    # ---- What goes over connections

    def flows(self, flows: Sequence[Flow]) -> list[Finding]:
        """Everything that was recorded; the flows of one call in their order."""
        asked: dict[int, Asked] = {}
        began: dict[int, int] = {}
        findings: list[Finding] = []
        for flow in flows:
            first = flow.kind == "message" and flow.call not in asked and flow.sent == (flow.side == "client")
            if first and flow.side != "board":
                asked[flow.call], began[flow.call] = self._asked_in(flow), flow.epoch
            since = began.get(flow.call, flow.epoch)
            findings += self._flow(flow, asked.get(flow.call, _NOBODY), since)
        return findings

    def _flow(self, flow: Flow, asked: Asked, since: int) -> list[Finding]:
        where = f"{flow.method} {flow.kind}: {flow.node} {'to' if flow.sent else 'from'} {flow.peer}"
        request = flow.sent == (flow.side == "client")
        if flow.side == "board":
            return self.text(where, flow.data)
        if not request:
            # What others answer was judged where they sent it; hostile ones may say what they like.
            return self._answer(where, flow, asked, since) if flow.sent else []
        if flow.side == "client":
            if "/node/" not in flow.node:
                return []  # a client asks what it likes
            return self._request(where, flow, _node_of(flow.peer))
        return [] if flow.peer in self._hostile else self._received(where, flow)

    def _answer(self, where: str, flow: Flow, asked: Asked, since: int) -> list[Finding]:
        findings = []
        here = _country(SpiffeId.parse(flow.node))

        def level(document: Document) -> int:
            # What other nodes said earlier in this question may be passed on: it has left them already.
            first = since if document.holder != here else flow.epoch
            return max(self._level(epoch, asked, document) for epoch in self._epochs[first : flow.epoch + 1])

        for what in self._all_in(flow.data):
            if isinstance(what, Question):
                findings.append(Finding("question", where))
                continue
            document, canary = what
            self.seen.add(canary)
            claimed = canary.kind == "chunk id" and bytes.fromhex(canary.text) in self.claimed
            if level(document) < canary.least and not claimed:
                findings.append(_finding(canary, where))
        for documents in self._grams_in(flow.data):
            if all(level(document) < SNIPPET for document in documents):
                findings.append(Finding("eight words", where))
        if flow.kind == "message" and flow.method == _SHARD + "Search":
            findings += self._counts(where, flow, asked)
        return findings

    def _request(self, where: str, flow: Flow, target: SpiffeId) -> list[Finding]:
        """What a node of ours sends when it asks."""
        epoch, findings = self._epochs[flow.epoch], []
        holder = _country(target)
        for id in _ids_in(flow):
            owner = self.owner_of.get(id)
            if owner is not None and owner[0].holder != holder and id not in self.claimed:
                findings.append(Finding("chunk id of another node", where))
        for what in self._all_in(_without_filters(flow)):
            if isinstance(what, Question):
                if not may_ask(epoch, what.asked, holder):
                    findings.append(Finding("question", where))
            elif what[1].kind != "chunk id":
                findings.append(_finding(what[1], where))
        findings += [Finding("eight words", where) for _ in self._grams_in(_without_filters(flow))]
        return findings

    def _received(self, where: str, flow: Flow) -> list[Finding]:
        """What a node of ours is sent: a question only if it may come here at all."""
        here, epoch = SpiffeId.parse(flow.node), self._epochs[flow.epoch]
        return [
            Finding("question", where)
            for what in self._all_in(flow.data)
            if isinstance(what, Question)
            and _country(here) != what.asked.country
            and not may_ask(epoch, what.asked, _country(here))
        ]

    def _counts(self, where: str, flow: Flow, asked: Asked) -> list[Finding]:
        """Statistics are over what the requester may see references of, counts over what it may count."""
        answer, holder = retrieval_pb2.ShardSearchResponse(), _country(SpiffeId.parse(flow.node))
        answer.ParseFromString(flow.data)
        epoch = self._epochs[flow.epoch]
        if answer.WhichOneof("step") != "opened" or any(len(rules) > 1 for rules in epoch.values()):
            return []
        levels = [
            self._level(epoch, asked, document)
            for document, _ in self.owner_of.values()
            if document.holder == holder
        ]
        opened, findings = answer.opened, []
        if opened.documents != sum(level >= REFERENCE for level in levels):
            findings.append(Finding("statistics over other documents", where))
        if opened.counted > sum(level == COUNT for level in levels):
            findings.append(Finding("a count of other documents", where))
        if opened.highest > max(levels, default=NOTHING):
            findings.append(Finding("a level of other documents", where))
        return findings

    # ---- Everything else

    def text(self, where: str, data: bytes) -> list[Finding]:
        """What may hold nothing of any document or question: records, logs, evidence, metrics, crash output,
        files."""
        findings = [
            Finding("question", where) if isinstance(what, Question) else _finding(what[1], where)
            for what in self._all_in(data)
        ]
        return findings + [Finding("eight words", where) for _ in self._grams_in(data)]

    def _all_in(self, data: bytes) -> set[Any]:
        found = self._known.get(data)
        if found is None:
            found = self._known[data] = self._vectors.find(data)
            for view in views(data):
                found |= self._strings.find(view.lower()) | self._binary.find(view)
        self.judged += len(data)
        return found

    def _grams_in(self, data: bytes) -> list[list[Document]]:
        words = _WORD.findall(data.decode("utf-8", "ignore").lower())
        return [self._grams[gram] for gram in grams(words) if gram in self._grams]

    def _level(self, epoch: Epoch, asked: Asked, document: Document) -> int:
        if asked.country not in epoch:
            return NOTHING
        return level_of(epoch, asked, document.holder, document.classes, document.tenant)

    def _asked_in(self, flow: Flow) -> Asked:
        """Whom a call is for, by its first request."""
        kind = _REQUESTS.get(flow.method)
        caller = _parsed(flow.node if flow.side == "client" else flow.peer)
        if kind is None or caller is None:
            return _NOBODY
        message: Any = kind()
        try:
            message.ParseFromString(flow.data)
        except DecodeError:
            return _NOBODY
        if flow.method.startswith(_SHARD):
            body = message.open if isinstance(message, retrieval_pb2.ShardSearchRequest) else message
            requester = _parsed(body.requester)
            of_its_own = requester is not None and requester.trust_domain == caller.trust_domain
            if requester is None or caller.kind != "node" or requester.kind != "client" or not of_its_own:
                return _NOBODY
        else:
            body, requester = message, caller
        context = body.admission.context
        return Asked(_country(requester), requester.tenant, context.purpose)


def _finding(canary: Canary, where: str) -> Finding:
    return Finding(canary.kind, where)


def _country(id: SpiffeId) -> str:
    return id.trust_domain.partition(".")[0].upper()


def _parsed(text: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(text)
    except Exception:
        return None


def _node_of(dns_name: str) -> SpiffeId:
    name, _, rest = dns_name.partition(".")
    return node_id(rest.partition(".")[2], name)


def _without_filters(flow: Flow) -> bytes:
    """A request without the words that its asker brought to filter by."""
    kind = _REQUESTS.get(flow.method)
    if kind is None or flow.kind != "message":
        return flow.data
    message: Any = kind()
    message.ParseFromString(flow.data)
    body = message.open if _opens(message) else message
    if "filters" in body.DESCRIPTOR.fields_by_name:
        body.ClearField("filters")
    return bytes(message.SerializeToString())


def _opens(message: Message) -> bool:
    return isinstance(message, retrieval_pb2.ShardSearchRequest) and message.WhichOneof("step") == "open"


def _ids_in(flow: Flow) -> list[bytes]:
    """Ids that a node asks to be released. One that is fetched, the client has named with its node."""
    if flow.kind != "message" or flow.method != _SHARD + "Search":
        return []
    return list(retrieval_pb2.ShardSearchRequest.FromString(flow.data).release.ids)
