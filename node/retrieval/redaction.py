"""Takes personal data out of what leaves at the snippet level, and cuts excerpts.

What is found is replaced by its kind in brackets, such as [email]. Checked forms come from libraries:
telephone numbers from `phonenumbers`, IBANs, card numbers and national identifiers, with their check
digits, from `python-stdnum`. Names are found by form: a title, two capitalised words in a row, a word
such as "patient" before; and then every other mention of a part of that name. That finds too much rather
than too little (a product named in two words may go), and it misses single first names without a hint,
so the snippet level is for documents where a name that slips through is not a disaster. Its recall on a
labelled sample is measured in tests/unit/node/test_redaction.py and stated in docs/retrieval.md.

Presidio would recognise more names, with a language model of spaCy's. Those models are not on the
package index that installs everything else here, and a node must work with every outside service dark.

It reads its word lists once and is pure from then on. It knows nothing of policies: who gets what is for
mesh/core/release.py to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import phonenumbers
import yaml
from stdnum import iban, luhn
from stdnum.de import idnr
from stdnum.exceptions import ValidationError
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.us import ssn

EXCERPT_CHARS = 240
# A text with more than this is cut before it is looked through.
MAX_CHARS = 64 * 1024

_REGIONS = ("DE", "FR", "US", "GB")
_NATIONAL = (idnr, nir, nhs, ssn)

_EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}")
_NETWORK = re.compile(
    r"(?<![\w.])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{1,4}:){3,7}:?[0-9A-Fa-f]{1,4}"
    r"|(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2})(?![\w.]\w)"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b")
_DIGITS = re.compile(r"(?<![\w.,])\d(?:[ ./-]?\d){6,24}(?![\w])")
_BIRTH = re.compile(
    r"\b((?:born(?: on)?|date of birth|d\.?o\.?b\.?|birthday|geboren(?: am)?|née? le|date de naissance)"
    r"\W{1,4})"
    r"((?:the )?\d{1,4}[./ -]{1,2}(?:\d{1,2}|[^\W\d_]{3,10})[./ -]{1,2}\d{2,4}"
    r"|[^\W\d_]{3,10} \d{1,2}, \d{4})",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"\b((?:patient|member|client|customer|case|record|file|chart|policy|passport|insurance|licen[cs]e|badge"
    r"|account|mrn|ssn|tax|personnel)(?: (?:number|no\.?|nr\.?|id|code|holder))?[ :#]{1,3})"
    r"((?=[A-Za-z-]{0,6}\d)[A-Za-z0-9](?:[A-Za-z0-9/-]{2,24}))",
    re.IGNORECASE,
)

# Of bounded length: what is tried anew from every letter must not run to the end of the text each time.
_CAPITALISED = (
    r"(?:al-|el-|d['\u2019])?[^\W\d_a-zà-öø-ÿ](?:[^\W\d_]|['\u2019](?=[^\W\d_])){0,47}"
    r"(?:-[^\W\d_][\w'\u2019]{0,47}){0,3}"
)
_PARTICLE = r"(?:von|van|de|der|den|da|di|du|la|le|del|dos|el|al|bin|ibn|zu|zum|ten|ter|af|y)"
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Doctor|Nurse|Sister|Sir|Madam|Dame|Captain|Officer|Judge"
    r"|Herr|Frau|Monsieur|Madame|Mademoiselle|Mme|Mlle|Sr|Sra|Señor|Señora)\.?\s+"
    rf"(?:(?:Dr|Prof|med)\.?\s+)*((?:{_PARTICLE}\s+)*(?:[A-Z]\.\s*)*{_CAPITALISED}(?:\s+(?:{_PARTICLE}\s+)*{_CAPITALISED}){{0,3}})"
)
_HINTED = re.compile(
    r"\b(?:patient|resident|client|customer|named|called|by|to|from|with|for|contact|ask|colleague|daughter"
    r"|son|wife|husband|mother|father|spouse|partner|brother|sister|guardian|account holder|holder|relative)"
    rf",?\s+((?:[A-Z]\.\s*)*{_CAPITALISED}(?:\s+(?:{_PARTICLE}\s+)*{_CAPITALISED}){{0,3}})"
)
# One capitalised word that does, has or is something that only people do, have or are.
_ACTING = re.compile(
    rf"(?<![\w'\u2019])({_CAPITALISED})(?:"
    r"['\u2019]s (?:wife|husband|mother|father|son|daughter|brother|sister|partner|family|children|parents"
    r"|doctor|account|file|record|birthday|illness|diagnosis)\b"
    r"| (?:said|says|felt|feels|thinks|thought|told|asked|answered|wrote|wants|wanted|agreed|declined"
    r"|complained|smiled|cried|slept|died|recovered|suffers|lives)\b)"
)
# Whoever is named beside somebody: "... and Tom".
_BESIDE = re.compile(rf"(?:,| and| or| und| et) ({_CAPITALISED})\b")
_RUN = re.compile(
    rf"(?<![\w'\u2019])((?:{_CAPITALISED}|[A-Z]\.)"
    rf"(?:,?[ \t]+(?:{_PARTICLE}[ \t]+)*(?:[A-Z]\.[ \t]*)*{_CAPITALISED})+)"
)
_INVERTED = re.compile(rf"\b({_CAPITALISED},\s+{_CAPITALISED}(?:\s+[A-Z]\.)?)(?=\s*[,;(:\n]|$)")
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")

_LISTS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "data" / "capitalised.yaml").read_text())
# "No", "On" and "Yes" are words here: the lists are texts, so YAML does not take them for anything else.
_OPENERS = frozenset(_LISTS["openers"].split())
_NOT_PEOPLE = frozenset(_LISTS["not_people"].split())


class Redactor:
    """Stateless; one for a process will do."""

    def redact(self, text: str) -> str:
        """The text without the personal data that is found in it. At most MAX_CHARS of it."""
        text = text[:MAX_CHARS]
        text = _EMAIL.sub("[email]", text)
        text = _NETWORK.sub("[address]", text)
        text = _IBAN.sub(_iban, text)
        text = _BIRTH.sub(r"\1[date]", text)
        text = _LABELLED.sub(r"\1[id]", text)
        text = _without_phones(text)
        text = _DIGITS.sub(_number, text)
        return _without_names(text)


def _iban(match: re.Match[str]) -> str:
    try:
        iban.validate(match[0])
    except ValidationError:
        return match[0] if len(match[0]) < 15 else "[account]"
    return "[iban]"


def _number(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match[0])
    for checked in _NATIONAL:
        if checked.is_valid(digits):
            return "[id]"
    if len(digits) >= 13 and luhn.is_valid(digits):
        return "[card]"
    # Long numbers name somebody or something: seven digits are a telephone or a file.
    return "[number]"


def _without_phones(text: str) -> str:
    found: list[tuple[int, int]] = []
    for region in _REGIONS:
        if sum(map(str.isdigit, text)) < 7:
            break
        matcher = phonenumbers.PhoneNumberMatcher(text, region, max_tries=256)
        found += [(match.start, match.end) for match in matcher]
    return _replaced(text, found, "[phone]")


def _without_names(text: str) -> str:
    found: list[tuple[int, int]] = []
    for pattern in (_TITLE, _HINTED, _ACTING, _RUN, _INVERTED):
        hinted = pattern in (_TITLE, _HINTED, _ACTING)
        for match in pattern.finditer(text):
            span = _person(text, *match.span(1), hinted=hinted)
            if span is not None:
                found.append(span)
                beside = _BESIDE.match(text, span[1])
                also = _person(text, *beside.span(1), hinted=True) if beside else None
                found += [also] if also else []
    parts = {
        word[0].casefold()
        for start, end in found
        for word in _WORD.finditer(text[start:end])
        if len(word[0]) > 2 and word[0][0].isupper()
    }
    found += [
        word.span() for word in _WORD.finditer(text) if word[0][0].isupper() and _said_of(word[0], parts)
    ]
    return _replaced(text, found, "[name]")


def _said_of(word: str, parts: set[str]) -> bool:
    folded = word.casefold()
    return folded in parts or folded.removesuffix("'s").removesuffix("\u2019s") in parts


def _person(text: str, start: int, end: int, *, hinted: bool) -> tuple[int, int] | None:
    """The part of a run of capitalised words that may be a person's name."""
    words = list(_WORD.finditer(text, start, end))
    while words and words[0][0].casefold() in _OPENERS:
        words.pop(0)
    if not words or any(word[0].casefold().removesuffix("'s") in _NOT_PEOPLE for word in words):
        return None
    if all(word[0].isupper() and len(word[0]) > 1 for word in words) and not hinted:
        return None  # abbreviations
    named = [word for word in words if word[0] != word[0].lower()]
    if len(named) < (1 if hinted else 2):
        return None
    return words[0].start(), words[-1].end()


def _replaced(text: str, spans: Iterable[tuple[int, int]], kind: str) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if end <= at:
            continue
        pieces += (text[at:start], kind) if start >= at else ()
        at = end
    pieces.append(text[at:])
    return "".join(pieces)


def excerpt(text: str, matches: Callable[[str], bool], limit: int = EXCERPT_CHARS) -> str:
    """At most `limit` characters of the text, where most of its words match; "…" where it was cut."""
    text = " ".join(text[:MAX_CHARS].split())
    if len(text) <= limit:
        return text
    room = limit - 4
    words = list(_WORD.finditer(text))
    weights = [(word.start(), word.end(), matches(word[0])) for word in words]
    best, best_count, count, tail = 0, -1, 0, 0
    for head, (_, end, hit) in enumerate(weights):
        count += hit
        while end - weights[tail][0] > room:
            count -= weights[tail][2]
            tail += 1
            if tail > head:
                break
        if tail <= head and count > best_count:
            best, best_count = tail, count
    first = next((begin for begin, _, hit in weights[best:] if hit), weights[best][0] if weights else 0)
    # From the beginning of its sentence, if that is near.
    sentence = max(m.end() for m in re.finditer(r"^|[.!?] ", text[:first]))
    start = sentence if first - sentence <= room // 3 else first
    cut = text[start : start + room]
    if start + room < len(text):
        cut = cut[: cut.rfind(" ")] if " " in cut else cut
        cut += " …"
    return ("… " if start else "") + cut
