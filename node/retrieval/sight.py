"""What one requester may see of one index, at the moment it is asked.

Policies change while a search is under way. So levels are never carried over: every step asks anew, and
what was computed by earlier levels is held against the newest records right before it is sent
(`Sight.require_current`). If anything that was permitted no longer is, the step ends with RELEASE_DENIED
and nothing of it leaves (I1).

Policies never asked before cost a hundred times what remembered ones do, and the asker chooses the words
of the question: so the time that they take is shared out (mesh/rpc/pace.py).

A chunk is cut to its level here and nowhere else: `Cutter.cut`. What is above the level is not blanked
later on but never put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from mesh.core.errors import MeshError, Reason
from mesh.core.release import ReleasePolicy
from mesh.core.retrieval import Released, ReleaseGroup, ReleaseLevel
from mesh.core.types import Principal, RequestContext, SpiffeId
from mesh.rpc.pace import Pace, asker_of
from mesh.rpc.placement_service import View
from node.index.stored import StoredChunk

# Filters by which a guess can be confirmed.
_TELLING = frozenset({"document", "source"})

Redact = Callable[[str], str]
Excerpt = Callable[[str, Callable[[str], bool]], str]


class Sights:
    """Makes them: one per node. `clock` is Unix seconds, `monotonic` that of the pace. One event loop."""

    def __init__(
        self,
        policy: ReleasePolicy,
        view: View,
        node: SpiffeId,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._view = view
        self._node = node
        self._clock = clock
        self._monotonic = monotonic
        self._pace = Pace()

    def look(
        self,
        requester: SpiffeId,
        context: RequestContext,
        collection: str,
        groups: Mapping[int, ReleaseGroup],
    ) -> Sight:
        """What of these groups the requester may see, by the newest records.

        OVERLOADED if deciding that takes the requester's tenant or authority more than its share.
        """
        asker = asker_of(requester, self._node.trust_domain)

        def levels() -> Mapping[int, ReleaseLevel]:
            return self._policy.levels(
                self._view.snapshot,
                self._node,
                Principal(requester),
                context,
                collection,
                groups,
                self._clock(),
            )

        began = self._monotonic()
        self._pace.require(asker, began)
        sight = Sight(levels)
        ended = self._monotonic()
        self._pace.spend(asker, ended - began, ended)
        return sight


class Sight:
    """The level of each release group, as of when it was made."""

    def __init__(self, ask: Callable[[], Mapping[int, ReleaseLevel]]) -> None:
        self._ask = ask
        self.levels = dict(ask())

    @property
    def highest(self) -> ReleaseLevel:
        """The most that any document may release."""
        return max(self.levels.values(), default=ReleaseLevel.NOTHING)

    def from_level(self, least: ReleaseLevel) -> frozenset[int]:
        """The groups with at least this level."""
        return frozenset(group for group, level in self.levels.items() if level >= least)

    def filtered(self, least: ReleaseLevel, fields: Collection[str]) -> frozenset[int]:
        """The same for a question that filters by these fields. A filter that names a document, or where it
        came from, tells whether a guess is right: only who may read the passages may ask so."""
        return self.from_level(ReleaseLevel.PASSAGE if _TELLING & set(fields) else least)

    def counted(self, fields: Collection[str]) -> frozenset[int]:
        """The groups that a question with these filters may count."""
        return frozenset() if _TELLING & set(fields) else self._only_counted()

    def _only_counted(self) -> frozenset[int]:
        return frozenset(group for group, level in self.levels.items() if level is ReleaseLevel.COUNT)

    def require_current(self) -> None:
        """RELEASE_DENIED if the newest records permit less of any group than these levels do."""
        now = self._ask()
        if any(now[group] < level for group, level in self.levels.items()):
            raise MeshError(
                Reason.RELEASE_DENIED, "what may be released changed during the search: ask anew", {}, 1.0
            )

    def summary(self) -> dict[str, int]:
        """How many groups there are at each level: what the evidence says of it, which the requester may be
        shown. So groups that it may know nothing of are not counted."""
        counts = Counter(level for level in self.levels.values() if level > ReleaseLevel.NOTHING)
        return {level.word: count for level, count in sorted(counts.items())}


class Cutter:
    """Cuts chunks to their levels. Safe from several threads if its two functions are.

    `redact` takes personal data out of a text; `excerpt` shortens one around the words that match.
    """

    def __init__(self, redact: Redact, excerpt: Excerpt) -> None:
        self._redact = redact
        self._excerpt = excerpt

    def cut(self, chunk: StoredChunk, level: ReleaseLevel, matches: Callable[[str], bool]) -> Released:
        """The chunk at this level: REFERENCE or above."""
        if level is ReleaseLevel.PASSAGE:
            document = chunk.document
            return Released(chunk.id, level, document.title, chunk.text, document.id, document.source)
        if level is ReleaseLevel.SNIPPET:
            return Released(
                chunk.id, level, self._redact(chunk.document.title), self.snippet(chunk.text, matches)
            )
        return Released(chunk.id, ReleaseLevel.REFERENCE)

    def snippet(self, text: str, matches: Callable[[str], bool]) -> str:
        """A short piece of a text. Redacted first, as a whole: what is personal shows by what is around."""
        return self._excerpt(self._redact(text), matches)

    def readable(self, chunk: StoredChunk, level: ReleaseLevel) -> str:
        """What a model may read of a chunk so that it can give away no more than its level allows."""
        return chunk.text if level is ReleaseLevel.PASSAGE else self._redact(chunk.text)
