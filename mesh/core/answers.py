"""Putting one answer together from the sentences that nodes derived from their own passages. Pure.

Best first; sentences that say the same, but for case and spaces, are one, with the references of all.
Nothing is generated anew: every sentence is one that some node sent and that its own passages back.
It knows nothing of nodes that failed: whoever calls leaves their sentences out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import AnswerSentence, Reference, ReleaseLevel

MAX_SENTENCES_OF_A_NODE = 16
MAX_SENTENCES = 64 * MAX_SENTENCES_OF_A_NODE
MAX_SENTENCE_BYTES = 4 * 1024
# Of one sentence as a node sends it, and of one that all nodes say.
MAX_REFERENCES_OF_A_NODE = 16
MAX_REFERENCES = 64 * MAX_REFERENCES_OF_A_NODE
# Rounding may carry the cosine of two unit vectors this far.
_HIGHEST_COSINE = 1.0001


def check_sentence(sentence: AnswerSentence) -> AnswerSentence:
    """The sentence, if an honest node could have sent it; raises PEER_MISBEHAVED."""
    fits = (
        1 <= len(sentence.references) <= MAX_REFERENCES_OF_A_NODE
        and 1 <= len(sentence.text.encode()) <= MAX_SENTENCE_BYTES
        and sentence.text.strip() != ""
        and sentence.level in (ReleaseLevel.SNIPPET, ReleaseLevel.PASSAGE)
        and math.isfinite(sentence.score)
        and abs(sentence.score) <= _HIGHEST_COSINE
        and len(set(sentence.references)) == len(sentence.references)
    )
    if not fits:
        raise MeshError(
            Reason.PEER_MISBEHAVED, "a node's answer: expected a bounded sentence with its references"
        )
    return sentence


def compose(sentences: Iterable[AnswerSentence]) -> tuple[AnswerSentence, ...]:
    """The sentences, best score first, each said once with all its references.

    Of those that say the same, the best one's wording, level and score stand; its references come first.
    Equal scores go by the references, so that the order in which nodes answered does not show.
    """
    best: dict[str, AnswerSentence] = {}
    for sentence in sorted(sentences, key=_best_first):
        said = " ".join(sentence.text.casefold().split())
        known = best.get(said)
        if known is None:
            best[said] = sentence
        else:
            references: dict[Reference, None] = dict.fromkeys((*known.references, *sentence.references))
            best[said] = replace(known, references=tuple(references))
    return tuple(best.values())


def _best_first(sentence: AnswerSentence) -> tuple[float, tuple[str, ...], str]:
    return -sentence.score, tuple(str(reference) for reference in sentence.references), sentence.text
