"""Bundles at a desk: what a node shows is held against its own proof, and files are read as logs."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from control.cli.audit_bundle import write_range
from control.cli.audit_sources import LinesSource, followed, leaves_of, open_sources
from control.cli.log_files import BundleSource
from mesh.codec.evidence import prove_range_from_pb, range_proof_to_pb
from mesh.core.audit_entries import Leaf
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import MAX_RANGE
from sovereign.mesh.v1 import evidence_pb2
from tests.support.ranges import NODE, log_of

LOG = log_of(9)
Part = evidence_pb2.ProveRangeResponse


def shown(first: int = 2, last: int = 6) -> list[Part]:
    """What a node that means well answers, two entries at a time."""
    entries = [
        Part(start=at, entries=LOG.entries[at : min(at + 2, last + 1)]) for at in range(first, last + 1, 2)
    ]
    return [Part(proof=range_proof_to_pb(LOG.proof(first, last))), *entries]


async def written(parts: Iterable[Part], start: int = 2, end: int = 7) -> bytes:
    async def told() -> AsyncIterator[Part]:
        for part in parts:
            yield part

    file = io.BytesIO()
    await write_range(told(), NODE, start, end, file)
    return file.getvalue()


async def test_what_is_written_is_what_verifies() -> None:
    data = await written(shown())
    found = LOG.verify(data)
    assert (found.first, found.last) == (2, 6)
    assert await written(shown(0, 8), 0, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda parts: [], Reason.PEER_MISBEHAVED),
        (lambda parts: parts[1:], Reason.PEER_MISBEHAVED),
        (lambda parts: parts[:-1], Reason.PROOF_INVALID),
        (lambda parts: [*parts[:2], *parts[1:]], Reason.PEER_MISBEHAVED),
        (lambda parts: [parts[0], *parts[2:]], Reason.PEER_MISBEHAVED),
        (lambda parts: [*parts, Part(start=7, entries=[LOG.entries[7]])], Reason.PEER_MISBEHAVED),
        (lambda parts: [*parts[:-1], Part(start=6, entries=[b"{}"])], Reason.PROOF_INVALID),
        (lambda parts: [*parts[:-1], Part(start=6, entries=[b"\xff"])], Reason.RECEIPT_INVALID),
        (lambda parts: shown(2, 5), Reason.PEER_MISBEHAVED),
        (lambda parts: shown(1, 6), Reason.PEER_MISBEHAVED),
    ],
)
async def test_a_node_that_shows_something_else_is_refused(
    change: Callable[[list[Part]], list[Part]], reason: Reason
) -> None:
    with pytest.raises(MeshError) as refused:
        await written(change(shown()))
    assert refused.value.reason is reason


async def test_proofs_beyond_their_limits_are_refused() -> None:
    proof = LOG.proof(2, 6)
    for wrong in (
        replace(proof, last=2 + MAX_RANGE),
        replace(proof, witnesses=(b"x",) * 65),
        replace(proof, checkpoint=b"x" * 20_000),
        replace(proof, record=b"x" * 300_000),
        replace(proof, inclusion=(b"x",)),
        replace(proof, consistency=(b"x" * 32,) * 65),
    ):
        with pytest.raises(MeshError) as refused:
            await written([Part(proof=range_proof_to_pb(wrong))], 2, 0)
        assert refused.value.reason is Reason.PEER_MISBEHAVED


def test_only_a_range_with_entries_can_be_asked_for() -> None:
    assert prove_range_from_pb(evidence_pb2.ProveRangeRequest(start=3, wait_ms=500)) == (3, 0, 0.5)
    for wrong in ((3, 3, 0), (3, 2, 0), (0, MAX_RANGE + 1, 0), (0, 0, 10_001)):
        start, end, wait_ms = wrong
        with pytest.raises(MeshError) as refused:
            prove_range_from_pb(evidence_pb2.ProveRangeRequest(start=start, end=end, wait_ms=wait_ms))
        assert refused.value.reason is Reason.REQUEST_INVALID


async def test_a_bundle_is_read_as_a_log(tmp_path: Path) -> None:
    path = tmp_path / "march.bundle"
    path.write_bytes(LOG.file(2, 6))
    (source,) = open_sources([path])
    assert isinstance(source, BundleSource)
    assert await source.size() == 5
    leaves = [leaf async for leaf in leaves_of([source])]
    assert leaves == [Leaf("de.mesh.example/node/fra-1", at, LOG.entries[at]) for at in range(2, 7)]
    assert [leaf.index async for leaf in followed([source], 2)] == [5, 6]
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(LOG.entries[0] + b"\n")
    assert isinstance(open_sources([plain])[0], LinesSource)


async def test_a_bundle_that_lacks_entries_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "march.bundle"
    lines = LOG.file(2, 6).splitlines(keepends=True)
    for kept in (lines[:-1], [*lines, lines[-1]], [*lines[:2], *lines[3:]], [lines[0][:40]]):
        path.write_bytes(b"".join(kept))
        with pytest.raises(MeshError) as refused:
            [leaf async for leaf in leaves_of(open_sources([path]))]
        assert refused.value.reason is Reason.RECEIPT_INVALID
