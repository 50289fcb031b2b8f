"""What a verified receipt or a verified range of a log proves, in words, and what it does not.

The ends of a receipt are held against each other first: a log's entries prove something about a request only
if they speak of the same one. What links them is the decision's id, which the permit carries from one end to
the other.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mesh.core.cosigned import VerifiedCheckpoint, origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import VerifiedRange
from mesh.core.receipt import VerifiedEnd
from mesh.core.text import shortened

_MAX_CHARS = 400

NOT_PROVEN = (
    "that no second history of a log was shown to other witnesses: those that signed saw this one",
    "that a node did what its log says: a log shows what was recorded, not what was left out",
    "that the caller classed its data rightly, or meant the purpose that it stated",
    "where a machine stands or who controls it: that is what its authority states",
    "what was asked or answered: no payload is in any log",
    "that certificates which were good then have not been revoked since",
)
_NOT_OF_THE_PERIOD = (
    "that no other entry is of this period: entries are in the order in which they were logged, and the times"
    " in them are those of the node's own clock"
)
_NO_WITNESS = "that {} has not rewritten its log since: nobody else has cosigned it"


@dataclass(frozen=True, slots=True)
class Story:
    """Sentences for people; `decisions` are the ids that the receipt is about."""

    decisions: tuple[str, ...]
    proven: tuple[str, ...]
    not_proven: tuple[str, ...]


def story_of(ends: Sequence[VerifiedEnd]) -> Story:
    """The story of a receipt whose proofs hold; RECEIPT_INVALID if its ends are not of one request."""
    decisions = _decided(ends[0])
    for end in ends[1:]:
        _require_linked(ends[0], decisions, end)
    proven: list[str] = []
    for end in ends:
        proven += [_line(end, index, entry) for index, entry in end.entries]
        proven.append(_witnessed(end))
    lacking = tuple(_NO_WITNESS.format(end.node) for end in ends if not end.witnessed)
    return Story(tuple(sorted(decisions)), tuple(proven), (*lacking, *NOT_PROVEN))


def story_of_range(found: VerifiedRange) -> Story:
    """The story of a range whose proofs hold. It is about no decision in particular."""
    count = found.last - found.first + 1
    proven = [
        f"entries {found.first} to {found.last} of the log of {origin_of(found.node)} are these {count:,}:"
        " all of them, in this order, as they were logged"
    ]
    if found.times is not None:
        proven.append(f"they state times from {_time(found.times[0])} to {_time(found.times[1])}")
    lacking = () if found.witnessed else (_NO_WITNESS.format(found.node),)
    return Story((), (*proven, _witnessed(found)), (*lacking, _NOT_OF_THE_PERIOD, *NOT_PROVEN))


def _decided(end: VerifiedEnd) -> set[str]:
    """What this end itself decided, by id; not what it did on somebody else's permit."""
    found: set[str] = set()
    for _, entry in end.entries:
        ids = (entry.get("id"), _mapping(entry.get("decision")).get("id"))
        found |= {each for each in ids if isinstance(each, str) and each}
    return found


def _require_linked(first: VerifiedEnd, decisions: set[str], end: VerifiedEnd) -> None:
    """Every entry of a later end rests on what the first decided: on a permit that it signed, or under the id
    of an entry that does; and the first decided about this node."""
    named = {
        ranked.get("node")
        for _, entry in first.entries
        for decision in (_mapping(entry.get("decision")), _mapping(entry.get("asks")))
        for ranked in map(_mapping, _list(decision.get("ranked")))
    }
    contexts = {digest for _, entry in first.entries if (digest := _context(entry))}
    linked: set[object] = set()
    for _, entry in end.entries:
        permit = _mapping(entry.get("permit"))
        if permit.get("decision") in decisions and permit.get("signer") == str(first.node):
            linked.add(entry.get("id"))
    for _, entry in end.entries:
        digest = _context(entry)
        if entry.get("id") not in linked or (digest and contexts and digest not in contexts):
            _unlinked(end, "that all rest on what the first end decided, about the same context")
    if str(end.node) not in named:
        _unlinked(end, "about a node that the first end decided on")


def _context(entry: Mapping[str, Any]) -> object:
    return _mapping(entry.get("context")).get("digest")


def _unlinked(end: VerifiedEnd, what: str) -> NoReturn:
    raise MeshError(
        Reason.RECEIPT_INVALID, f"the receipt does not hold: expected entries of {end.node} {what}"
    )


def _line(end: VerifiedEnd, index: int, entry: Mapping[str, Any]) -> str:
    what = _WORDS.get(str(entry["kind"]), _other)(entry)
    return f"{end.node} logged as entry {index}, {_time(entry.get('at'))}: {shortened(what, _MAX_CHARS)}"


def _witnessed(end: VerifiedCheckpoint) -> str:
    size, root = end.checkpoint.size, end.checkpoint.root.hex()[:16]
    whole = f"that is part of its log of {size} entries with the root {root}…"
    if not end.witnessed:
        return f"{whole}, which it has signed"
    who = ", ".join(f"{each.witness} ({_time(each.at)})" for each in end.witnessed)
    return f"{whole}, which it has signed and others have seen to follow from all they saw before: {who}"


def _placed(entry: Mapping[str, Any]) -> str:
    decision = _mapping(entry.get("decision"))
    if "refused" in entry:
        return f"{_who(entry)} asked where {_data(entry)} may go, and was refused ({entry['refused']})"
    if not decision.get("permitted"):
        return f"{_who(entry)} may send {_data(entry)} nowhere ({_refusals(decision)})"
    return (
        f"{_who(entry)} may send {_data(entry)} to {_nodes(decision)}, by {_policies(decision)};"
        f" {decision.get('refused_total', 0)} refused"
    )


def _served(entry: Mapping[str, Any]) -> str:
    decision, permit = _mapping(entry.get("decision")), _mapping(entry.get("permit"))
    by = (
        f"on the permit of decision {permit.get('decision')} by {permit.get('signer')}"
        if permit
        else "without a permit"
    )
    if entry.get("outcome") == "refused":
        return f"refused {_who(entry)} ({entry.get('reason')}), {by}"
    levels = _mapping(entry.get("levels"))
    seen = f"; groups of documents by level: {_counts(levels)}" if levels else ""
    size = f" in {entry['bytes']:,} bytes" if isinstance(entry.get("bytes"), int) else ""
    served = f"decided for itself and served {_who(entry)} with {_data(entry)}{size}"
    return f"{served}, {by}, by {_policies(decision)}{seen}"


def _asked(entry: Mapping[str, Any]) -> str:
    asks = _mapping(entry.get("asks"))
    if entry.get("outcome") == "refused":
        return _served(entry)
    return f"{_served(entry)}; asked {_nodes(asks) or 'no node'}, not {_refusals(asks) or 'leaving any out'}"


def _covered(entry: Mapping[str, Any]) -> str:
    nodes = [_mapping(each) for each in _list(entry.get("nodes"))]
    return "what became of each: " + ", ".join(
        f"{each.get('node')} {each.get('outcome')}" + (f" ({each['reason']})" if each.get("reason") else "")
        for each in nodes
    )


def _released(entry: Mapping[str, Any]) -> str:
    to = entry.get("requester", entry.get("caller"))
    return f"released to {to}, chunks by level: {_counts(_mapping(entry.get('released')))}"


def _cut(entry: Mapping[str, Any]) -> str:
    return f"cut the request off ({entry.get('reason')})"


def _other(entry: Mapping[str, Any]) -> str:
    return f"an entry of the kind {entry['kind']}"


_WORDS = {
    "place": _placed,
    "serve": _served,
    "shard": _served,
    "search": _asked,
    "answer": _asked,
    "fetch": _asked,
    "covered": _covered,
    "release": _released,
    "cut": _cut,
}


def _who(entry: Mapping[str, Any]) -> str:
    requester, caller = entry.get("requester"), entry.get("caller")
    return f"{requester}, through {caller}," if requester and requester != caller else f"{caller}"


def _data(entry: Mapping[str, Any]) -> str:
    context = _mapping(entry.get("context"))
    classes = " and ".join(map(str, _list(context.get("data_classes")))) or "unclassed"
    basis = f" on the basis {context['transfer_basis']}" if context.get("transfer_basis") else ""
    return f"{classes} data for {context.get('purpose') or 'no purpose'}{basis} ({entry.get('action')})"


def _nodes(decision: Mapping[str, Any]) -> str:
    ranked = [_mapping(each) for each in _list(decision.get("ranked"))]
    return ", ".join(f"{each.get('node')} in {each.get('location')}" for each in ranked)


def _refusals(decision: Mapping[str, Any]) -> str:
    refused = [_mapping(each) for each in _list(decision.get("refused"))]
    return ", ".join(f"{each.get('node')}: {each.get('reason')}" for each in refused[:8])


def _policies(decision: Mapping[str, Any]) -> str:
    digests = _mapping(decision.get("policies"))
    said = ", ".join(f"{name} {str(digest)[:19]}…" for name, digest in sorted(digests.items()))
    return f"the policies {said}" if said else "no policies"


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _time(at: object) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(float(at), datetime.UTC)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError, OSError):
        return "at no stated time"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
