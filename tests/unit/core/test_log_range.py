"""Bundles: a range of a log holds as it was written, whole, and in no other form."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import (
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    MAX_RANGE,
    RangeCheck,
    RangeProof,
    entry_line,
    read_entries,
    read_proof,
)
from mesh.core.merkle import Frontier, inclusion_proof, leaf_hash, root_of
from mesh.core.notes import Checkpoint, parse_note
from mesh.core.receipt_story import story_of_range
from mesh.core.tiles import MAX_ENTRY_BYTES
from tests.support.ranges import SEEN, Bundled, log_of

LOG = log_of(9)
FILE = LOG.file(2, 6, 8)
HEAD, *LINES = FILE.splitlines(keepends=True)


def refused(data: bytes, reason: Reason = Reason.RECEIPT_INVALID, log: Bundled = LOG) -> str:
    with pytest.raises(MeshError) as error:
        log.verify(data)
    assert error.value.reason is reason, error.value
    return error.value.message


def test_it_says_what_it_proves_and_what_not() -> None:
    found = LOG.verify(FILE)
    assert (found.first, found.last, found.checkpoint.size) == (2, 6, 8)
    assert found.times == (1_700_000_002.0, 1_700_000_006.0)
    story = story_of_range(found)
    whole = "entries 2 to 6 of the log of de.mesh.example/node/fra-1 are these 5: all of them"
    assert story.proven[0].startswith(whole)
    assert "2023-11-14 22:13:22 UTC to 2023-11-14 22:13:26 UTC" in story.proven[1]
    assert "fr.mesh.example/node/par-1 (2027-01-15" in story.proven[2]
    assert any("no other entry is of this period" in line for line in story.not_proven)
    assert {each.at for each in found.witnessed} == {SEEN}


def test_every_range_under_every_later_checkpoint_holds() -> None:
    log = log_of(7)
    for size in range(1, 8):
        for last in range(size):
            for first in range(last + 1):
                log.verify(log.file(first, last, size))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_written_is_read(data: st.DataObject) -> None:
    texts = st.text(st.characters(max_codepoint=127), max_size=40)
    entries = [each.encode() for each in data.draw(st.lists(texts, min_size=1, max_size=20))]
    first = data.draw(st.integers(0, len(entries) - 1))
    last = data.draw(st.integers(first, len(entries) - 1))
    size = data.draw(st.integers(last + 1, len(entries)))
    log = Bundled(entries)
    file = io.BytesIO(log.file(first, last, size))
    proof = read_proof(file.readline)
    assert proof == log.proof(first, last, size)
    assert list(read_entries(file.readline, proof)) == list(enumerate(entries))[first : last + 1]
    log.verify(file.getvalue())


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_what_was_before_a_leaf_is_in_its_proof(size: int, data: st.DataObject) -> None:
    """Against roots from the leaves alone."""
    leaves = [leaf_hash(b"%d" % each) for each in range(size)]
    index = data.draw(st.integers(0, size - 1))

    def read(level: int, at: int) -> bytes:
        return root_of(leaves[at << level : (at + 1) << level])

    proof = inclusion_proof(read, index, size)
    frontier = Frontier.before(leaves[index], index, size, proof, root_of(leaves))
    for end in range(index, size):
        assert (frontier.size, frontier.root()) == (end, root_of(leaves[:end]))
        frontier.append(leaves[end])
    assert frontier.root() == root_of(leaves)


@pytest.mark.slow
def test_altered_at_any_byte_it_does_not_hold() -> None:
    log = log_of(4)
    file = log.file(1, 2)
    for at in range(len(file)):
        for other in (file[at] ^ 1, file[at] ^ 0x20, 0x0A, 0xFF):
            if other != file[at]:
                refused(file[:at] + bytes([other]) + file[at + 1 :], log=log)


def test_cut_anywhere_it_does_not_hold() -> None:
    for at in (*range(0, len(FILE), 97), len(FILE) - 1):
        refused(FILE[:at])
    refused(FILE + b"\n")
    refused(FILE + LINES[-1])


def test_entries_missing_moved_twice_or_renumbered_do_not_hold() -> None:
    assert "entry 4" in refused(HEAD + b"".join(LINES[:2] + LINES[3:]))
    refused(HEAD + b"".join(reversed(LINES)))
    refused(HEAD + b"".join([LINES[0], *LINES]))
    # With indexes put right, and the first line too.
    entries = [json.loads(line)["entry"].encode() for line in LINES]
    for changed in (entries[:-1], entries[1:], entries[::-1], [*entries, entries[-1]], entries[:2] * 2):
        stated = replace(RangeProof.from_line(HEAD), last=1 + len(changed))
        lines = [entry_line(index, each) for index, each in enumerate(changed, 2)]
        refused(stated.to_line() + b"".join(lines))


def test_an_entry_of_another_log_does_not_hold() -> None:
    lines = [*LINES]
    lines[2] = entry_line(4, b'{"kind": "place", "id": "never", "at": 1.0}')
    assert "path that leads to both roots" in refused(HEAD + b"".join(lines))
    lines = [entry_line(2, b"{}"), *LINES[1:]]
    assert "path that leads to the root" in refused(HEAD + b"".join(lines))


def test_another_place_or_a_checkpoint_that_is_too_small_does_not_hold() -> None:
    for first, last in ((1, 5), (3, 7), (7, 11)):
        head = replace(RangeProof.from_line(HEAD), first=first, last=last).to_line()
        lines = [
            entry_line(index, json.loads(line)["entry"].encode()) for index, line in enumerate(LINES, first)
        ]
        refused(head + b"".join(lines))


def test_witnesses_must_be_as_many_and_those_that_are_named() -> None:
    alone = Bundled(LOG.entries, (), LOG.keys)
    refused(alone.file(0, 3), Reason.RECEIPT_UNWITNESSED)
    found = LOG.verify(alone.file(0, 3), witnesses=0)
    assert any("has not rewritten its log" in line for line in story_of_range(found).not_proven)
    head = RangeProof.from_line(HEAD)
    for witnesses in (head.witnesses[:1], head.witnesses * 2, (*head.witnesses, b"nobody")):
        refused(replace(head, witnesses=witnesses).to_line() + b"".join(LINES))


def test_other_formats_and_other_forms_are_refused() -> None:
    later = HEAD.replace(b"bundle/1", b"bundle/2")
    spaced = HEAD.replace(b'", "', b'",  "', 1)
    for head in (b"", b"\n", b"{}\n", b"[]\n", b"null\n", b'"x"\n', b"[" * 50_000, later, spaced, HEAD[:-1]):
        refused(head + b"".join(LINES))
    packed = LINES[0].replace(b": ", b":")
    for line in (b"{}\n", b"[" * 50_000 + b"\n", b'{"index": 2, "entry": 5}\n', packed):
        refused(HEAD + line + b"".join(LINES[1:]))
    with pytest.raises(MeshError):
        entry_line(0, "\u00e9".encode())
    with pytest.raises(MeshError):
        entry_line(0, b"x" * (MAX_ENTRY_BYTES + 1))
    assert len(entry_line(MAX_RANGE, b"\0" * MAX_ENTRY_BYTES)) <= MAX_LINE_BYTES


def test_no_more_is_read_than_a_line_may_have() -> None:
    asked: list[int] = []

    def endless(limit: int) -> bytes:
        asked.append(limit)
        return HEAD if len(asked) == 1 else b"x" * limit

    proof = read_proof(endless)
    with pytest.raises(MeshError):
        list(read_entries(endless, proof))
    assert asked == [MAX_HEAD_BYTES, MAX_LINE_BYTES]
    many = replace(proof, first=0, last=MAX_RANGE)
    with pytest.raises(MeshError, match=str(MAX_RANGE)):
        RangeProof.from_line(many.to_line())
    with pytest.raises(MeshError):
        RangeProof.from_line(replace(proof, first=5, last=4).to_line())


def test_a_check_that_was_given_too_few_or_too_many_says_so() -> None:
    proof = LOG.proof(2, 4)
    tree = Checkpoint.parse(parse_note(proof.checkpoint).text)
    for count in (0, 1, 4):
        check = RangeCheck(proof, tree)
        for each in LOG.entries[2 : 2 + count]:
            check.add(each)
        with pytest.raises(MeshError):
            check.finish()
