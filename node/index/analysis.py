"""How text becomes terms: the same on every node, or scores of different nodes could not be compared.

english-1 is: Unicode NFKC, lower case, runs of letters, digits and underscores; without the stop words of
Snowball's English list; stemmed by Snowball's English stemmer (the version is pinned in the
requirements, since stems may change between releases). Terms longer than MAX_TERM_BYTES are nobody's
words and are left out on both sides. Other languages pass through it unharmed, though not well stemmed.

It knows nothing of documents or weights.
"""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import Stemmer

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import MAX_TERM_BYTES, MAX_TERMS

_WORD = re.compile(r"\w+")

# Snowball's English stop words, cut at their apostrophes as the words of a text are.
_STOP_LIST = """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves what which who whom this that these those am is
    are was were be been being have has had having do does did doing would should could ought a an the and
    but if or because as until while of at by for with about against between into through during before
    after above below to from up down in out on off over under again further then once here there when
    where why how all any both each few more most other some such no nor not only own same so than too very
    s t can will just don now d ll m re ve isn aren wasn weren hasn haven hadn doesn didn won wouldn shan
    shouldn couldn mustn let
"""
_STOP_WORDS = frozenset(_STOP_LIST.split())


class Analyzer:
    """One way of making terms. Safe from several threads. Raises RECORD_MALFORMED for a name unknown here."""

    def __init__(self, name: str) -> None:
        if name != "english-1":
            raise MeshError(Reason.RECORD_MALFORMED, "a collection's analyzer: this node knows english-1")
        self.name = name
        self._own = threading.local()  # a stemmer has a cache and no lock

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in its order, with repetitions."""
        words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
        stems: list[str] = self._stemmer().stemWords([word for word in words if word not in _STOP_WORDS])
        if max(map(len, stems), default=0) > MAX_TERM_BYTES // 4:
            return [stem for stem in stems if len(stem.encode()) <= MAX_TERM_BYTES]
        return stems

    def query_terms(self, text: str) -> Mapping[str, int]:
        """How often each term occurs, sorted by term; of more than MAX_TERMS terms, the first."""
        counts = Counter(self.terms(text))
        kept = list(counts)[:MAX_TERMS]
        return {term: counts[term] for term in sorted(kept)}

    def matcher(self, terms: Collection[str]) -> Callable[[str], bool]:
        """Whether a word of a text is one of these terms."""
        wanted = frozenset(terms)
        return lambda word: not wanted.isdisjoint(self.terms(word))

    def _stemmer(self) -> Stemmer.Stemmer:
        stemmer = getattr(self._own, "stemmer", None)
        if stemmer is None:
            stemmer = self._own.stemmer = Stemmer.Stemmer("english")
        return stemmer


@functools.lru_cache(maxsize=8)
def analyzer_of(name: str) -> Analyzer:
    """The analyzer of this name, made once. RECORD_MALFORMED like Analyzer."""
    return Analyzer(name)
