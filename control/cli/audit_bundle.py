"""`meshctl audit export --format bundle`: a range of a running node's log, all of it, with what proves it."""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import grpc

from control.cli.audit_sources import NodeSource
from control.cli.audit_view import Trouble, unreadable_text
from control.cli.node_link import open_evidence
from control.cli.output import Output, emit
from control.cli.receipts import WAIT_S
from control.cli.session import act
from mesh.codec import evidence as codec
from mesh.core.audit_filter import EntryFilter, Period
from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import RangeCheck, RangeProof, entry_line
from mesh.core.notes import Checkpoint, parse_note
from mesh.core.types import SpiffeId
from mesh.identity.private_files import writing_file
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import evidence_pb2


def export_bundle(
    out: Path,
    logs: list[Path] | None,
    nodes: list[str] | None,
    wanted: EntryFilter,
    profile: Path | None,
    output: Output,
    *,
    replace: bool,
) -> None:
    """Writes the smallest range that has all entries of the wanted period, whatever else is in it.

    REQUEST_INVALID for a choice that a whole range cannot be made by; NOT_FOUND where there is no entry.
    """
    if logs or not nodes or len(nodes) != 1:
        raise MeshError(
            Reason.REQUEST_INVALID, "a bundle comes from one running node: name it with --node, and no --log"
        )
    if wanted != EntryFilter(wanted.period):
        raise MeshError(
            Reason.REQUEST_INVALID,
            "a bundle is of a whole range: choose by --from and --to alone",
        )
    (name,) = nodes
    trouble = Trouble()

    async def work(file: BinaryIO) -> RangeProof:
        start, end = await _range_of(NodeSource(name, profile), wanted.period, trouble)
        return await _fetch(name, profile, start, end, file)

    with writing_file(out, replace=replace) as file:
        proof = act(work(file), output, "exporting")
    log, size = origin_of(proof.node), _tree(proof).size
    emit(
        output,
        {
            "file": str(out),
            "format": "bundle",
            "log": log,
            "entries": proof.count,
            "first": proof.first,
            "last": proof.last,
            "size": size,
            "witnesses": len(proof.witnesses),
            **trouble.json(),
        },
        f"wrote entries {proof.first} to {proof.last} of {log} to {out}, under its checkpoint of {size:,}"
        f" entries, which {len(proof.witnesses)} witnesses have cosigned",
        *unreadable_text(trouble.found, trouble.total),
    )


async def _range_of(source: NodeSource, period: Period, trouble: Trouble) -> tuple[int, int]:
    """From the first entry of the period to after the last: [start, end), an end of 0 for the log's."""
    if period == Period():
        return 0, 0
    first = last = -1
    async with aclosing(source.entries()) as leaves:
        async for leaf in leaves:
            entry = trouble.read(leaf)
            if entry is not None and entry.at in period:
                first, last = (leaf.index if first < 0 else first), leaf.index
    if first < 0:
        raise MeshError(Reason.NOT_FOUND, "expected an entry of this period in the log")
    return first, last + 1


async def _fetch(name: str, profile: Path | None, start: int, end: int, file: BinaryIO) -> RangeProof:
    request = evidence_pb2.ProveRangeRequest(start=start, end=end, wait_ms=round(WAIT_S * 1000))
    async with open_evidence(profile, name) as (node, evidence):
        reading = evidence.ProveRange(request)
        try:
            return await write_range(reading, node, start, end, file)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            reading.cancel()


async def write_range(
    parts: AsyncIterable[evidence_pb2.ProveRangeResponse],
    node: SpiffeId,
    start: int,
    end: int,
    file: BinaryIO,
) -> RangeProof:
    """Writes what `node` shows of [start, end), and holds it against its own proof on the way.

    PEER_MISBEHAVED if it is not the range that was asked for, PROOF_INVALID, NOTE_INVALID if that does not
    hold. Whether the signatures do is not looked at.
    """
    proof: RangeProof | None = None
    async for part in parts:
        if proof is None:
            proof = codec.range_proof_from_pb(part.proof, node)
            if proof.first != start or (end and proof.last + 1 != end):
                raise _misbehaved("the range that was asked for")
            check, index = RangeCheck(proof, _tree(proof)), start
            file.write(proof.to_line())
        for at, entry in enumerate(part.entries, part.start):
            if at != index or at > proof.last:
                raise _misbehaved("the entries of the range in their order")
            check.add(entry)
            file.write(entry_line(at, entry))
            index += 1
    if proof is None:
        raise _misbehaved("a proof before all else")
    check.finish()
    return proof


def _tree(proof: RangeProof) -> Checkpoint:
    return Checkpoint.parse(parse_note(proof.checkpoint).text)


def _misbehaved(what: str) -> MeshError:
    return MeshError(Reason.PEER_MISBEHAVED, f"expected {what}")
