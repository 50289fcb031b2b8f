"""The nouns of retrieval, as immutable values: collections, release levels, questions, hits, coverage.

They are what merging, release policies and evidence speak of. They know nothing of protobuf
(mesh/codec translates), of stores or of any network. A value that exists is well formed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum, StrEnum
from functools import cached_property

from mesh.core.errors import MeshError, Reason
from mesh.core.types import DataClass, SpiffeId, node_id

MAX_K = 100
DEPTH = 100  # of every ranking that is merged
MAX_QUERY_BYTES = 8 * 1024
MAX_QUESTION_BYTES = 2 * 1024
MAX_TERMS = 64
MAX_TERM_BYTES = 64
MAX_FILTERS = 16
MAX_FILTER_VALUES = 64
MAX_FILTER_VALUE_BYTES = 256
# What a caller may see at all (the release group) is not one of them.
FILTER_FIELDS = frozenset({"document", "source", "language", "owner", "class"})
ID_BYTES = 16

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which UTF-8 cannot hold
_REFERENCE = re.compile(r"([a-z0-9.-]{1,253})/([a-z0-9-]{1,63})/([a-z0-9-]{1,63})/([0-9a-f]{32})")


class SearchMode(StrEnum):
    """How to rank."""

    VECTOR = "vector"
    KEYWORD = "keyword"
    HYBRID = "hybrid"


class ReleaseLevel(IntEnum):
    """What may leave an index; each level includes those before it. NOTHING: not even that it is there."""

    NOTHING = 0
    COUNT = 1
    REFERENCE = 2
    SNIPPET = 3
    PASSAGE = 4

    @property
    def word(self) -> str:
        """As people and policies write it: "reference"."""
        return self.name.lower()


def parse_level(text: str) -> ReleaseLevel:
    """Reads "count", "reference", "snippet" or "passage"; raises REQUEST_INVALID."""
    for level in list(ReleaseLevel)[1:]:
        if level.word == text:
            return level
    raise MeshError(Reason.REQUEST_INVALID, "level: expected count, reference, snippet or passage")


def require_collection_name(name: str) -> str:
    """The name, if it is one; raises REQUEST_INVALID."""
    if not _NAME.fullmatch(name):
        raise MeshError(
            Reason.REQUEST_INVALID, 'collection: expected lower-case letters, digits and "-", at most 63'
        )
    return name


def require_text(what: str, text: str, limit: int) -> None:
    """Raises REQUEST_INVALID unless it is a question's text: not empty, at most `limit` bytes."""
    if not text.strip():
        raise MeshError(Reason.REQUEST_INVALID, f"{what}: expected a text that is not empty")
    if "\x00" in text:
        raise MeshError(Reason.REQUEST_INVALID, f"{what}: expected a text without NUL")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair; the error would quote the text
        raise MeshError(Reason.REQUEST_INVALID, f"{what}: expected a text that UTF-8 can hold") from None
    if size > limit:
        raise MeshError(Reason.REQUEST_INVALID, f"{what}: expected at most {limit} bytes")


@dataclass(frozen=True)
class CollectionSpec:
    """How documents of a collection are indexed, wherever they are.

    Scores of different nodes can be compared only if all of it agrees, so nodes are asked together by
    `digest`. `average_length` is BM25's, in terms, and fixed: one that followed the documents would make
    a node's scores depend on what it holds (DESIGN: Index and federation).
    """

    name: str
    embedder: str
    embedder_digest: str
    dimensions: int
    analyzer: str = "english-1"
    k1: float = 1.2
    b: float = 0.75
    average_length: float = 100.0
    chunk_tokens: int = 254

    def __post_init__(self) -> None:
        problem = ""
        if not _NAME.fullmatch(self.name):
            problem = 'name: lower-case letters, digits and "-", at most 63'
        elif not 1 <= len(self.embedder) <= 128 or not self.embedder.isprintable():
            problem = "embedder: 1 to 128 printable characters"
        elif not _DIGEST.fullmatch(self.embedder_digest):
            problem = "embedder_digest: sha256:<64 hex digits>"
        elif not 1 <= self.dimensions <= 8192:
            problem = "dimensions: 1 to 8192"
        elif not _NAME.fullmatch(self.analyzer):
            problem = "analyzer: such as english-1"
        elif not (math.isfinite(self.k1) and 0 < self.k1 <= 100):
            problem = "k1: above 0, at most 100"
        elif not 0 <= self.b <= 1:
            problem = "b: 0 to 1"
        elif not (math.isfinite(self.average_length) and 1 <= self.average_length <= 100_000):
            problem = "average_length: 1 to 100000"
        elif not 16 <= self.chunk_tokens <= 8192:
            problem = "chunk_tokens: 16 to 8192"
        if problem:
            raise MeshError(Reason.RECORD_MALFORMED, f"a collection's {problem}")

    @cached_property
    def digest(self) -> str:
        """ "sha256:<hex>" over every setting."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(b"sovereign-mesh/v1/collection\x00" + text.encode()).hexdigest()

    def difference(self, other: CollectionSpec) -> tuple[str, ...]:
        """The names of the settings in which the two differ."""
        names = (f.name for f in fields(self))
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class ReleaseGroup:
    """What release is decided by: documents that agree in this are released alike.

    A document with a tenant is found by callers of that tenant of the holder's own authority and by
    nobody else, whatever the policies say; without one, by whoever the policies permit.
    """

    tenant: str
    owner: str
    classes: frozenset[DataClass]


@dataclass(frozen=True, slots=True)
class Filters:
    """A question's filters: for each field, the values of which a document must have one."""

    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = self.fields.keys() - FILTER_FIELDS
        if unknown:
            known = ", ".join(sorted(FILTER_FIELDS))
            raise MeshError(Reason.FILTER_UNKNOWN, f"filter: expected one of the fields {known}")
        if len(self.fields) > MAX_FILTERS:
            raise MeshError(Reason.REQUEST_INVALID, f"filters: expected at most {MAX_FILTERS}")
        for values in self.fields.values():
            if not 1 <= len(values) <= MAX_FILTER_VALUES or any(
                not v or len(v.encode(errors="replace")) > MAX_FILTER_VALUE_BYTES or _SURROGATE.search(v)
                for v in values
            ):
                raise MeshError(
                    Reason.REQUEST_INVALID,
                    f"filter: 1 to {MAX_FILTER_VALUES} values of 1 to {MAX_FILTER_VALUE_BYTES} bytes each",
                )


@dataclass(frozen=True, slots=True)
class Reference:
    """Where one chunk is, without saying what it is."""

    node: SpiffeId
    collection: str
    id: bytes

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads what `str` writes; raises REQUEST_INVALID."""
        match = _REFERENCE.fullmatch(text[:512])
        if match is None:
            raise MeshError(
                Reason.REQUEST_INVALID,
                "reference: expected <trust domain>/<node>/<collection>/<32 hex digits>",
            )
        return cls(node_id(match[1], match[2]), require_collection_name(match[3]), bytes.fromhex(match[4]))

    def __str__(self) -> str:
        return f"{self.node.trust_domain}/{self.node.name}/{self.collection}/{self.id.hex()}"


@dataclass(frozen=True, slots=True)
class ScoredId:
    """A chunk's 16-byte id and its score, float64."""

    id: bytes
    score: float


@dataclass(frozen=True, slots=True)
class Released:
    """One chunk at the level that its holder's policy allows. Fields above that level are empty."""

    id: bytes
    level: ReleaseLevel
    title: str = ""
    text: str = ""
    document: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk in the merged ranking. `rank` counts from 1 (0: not ranked, as from a fetch)."""

    rank: int
    score: float
    reference: Reference
    released: Released


class Outcome(StrEnum):
    """What became of a node that holds the collection."""

    ANSWERED = "answered"
    NOT_ASKED = "not-asked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of one node that holds the collection. `latency_ms` is from asking to its last answer.

    `counted` is how many matching chunks it may only count; `counted_inexact` that this is a lower bound
    or was withheld. `highest` is the most it may release to this caller.
    """

    node: SpiffeId
    location: str
    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    policies: tuple[str, ...] = ()
    latency_ms: float = 0.0
    counted: int = 0
    counted_inexact: bool = False
    highest: ReleaseLevel = ReleaseLevel.NOTHING
    approximate: bool = False
    charged: int = 0


@dataclass(frozen=True, slots=True)
class AnswerSentence:
    """A sentence that a node derived from its own passages, with the passages that it rests on."""

    text: str
    references: tuple[Reference, ...]
    level: ReleaseLevel
    extracted: bool
    score: float
