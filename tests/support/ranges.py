"""Bundles of a log in memory, cosigned by witnesses of two other authorities; records are names in clear."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

from mesh.core.cosigned import Attested, origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import RangeProof, VerifiedRange, entry_line, verify_range
from mesh.core.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at
from mesh.core.notes import COSIGNATURE, ED25519, Checkpoint, Note, VerifierKey, sign
from mesh.core.types import SpiffeId
from mesh.evidence.tree import TiledTree
from mesh.identity.log_keys import LogKey, verify_ed25519

NODE = SpiffeId("de.mesh.example", "/node/fra-1")
WITNESSES = (SpiffeId("fr.mesh.example", "/node/par-1"), SpiffeId("us.mesh.example", "/node/iad-1"))
SEEN = 1_800_000_000


def entry(index: int) -> bytes:
    return json.dumps({"kind": "place", "id": f"d-{index}", "at": 1_700_000_000.0 + index}).encode()


@dataclass
class Bundled:
    """A log of some entries, and files of its ranges."""

    entries: list[bytes]
    witnesses: tuple[SpiffeId, ...] = WITNESSES
    keys: dict[SpiffeId, LogKey] = field(
        default_factory=lambda: {node: LogKey.generate() for node in (NODE, *WITNESSES)}
    )

    def proof(self, first: int, last: int, size: int = 0) -> RangeProof:
        """Under a checkpoint of this size, or of all."""
        size = size or len(self.entries)
        tree = TiledTree(_never)
        tree.append([leaf_hash(each) for each in self.entries])
        text = Checkpoint(origin_of(NODE), size, root_at(tree.read, size)).text
        own = self.keys[NODE]
        lines = [sign(text, VerifierKey(origin_of(NODE), ED25519, own.public), own.sign)]
        for node in self.witnesses:
            key = self.keys[node]
            lines.append(
                sign(text, VerifierKey(origin_of(node), COSIGNATURE, key.public), key.sign, timestamp=SEEN)
            )
        return RangeProof(
            NODE,
            first,
            last,
            bytes(Note(text, tuple(lines))),
            str(NODE).encode(),
            tuple(str(node).encode() for node in self.witnesses),
            inclusion_proof(tree.read, first, size),
            consistency_proof(tree.read, last + 1, size),
        )

    def file(self, first: int, last: int, size: int = 0) -> bytes:
        lines = [entry_line(index, self.entries[index]) for index in range(first, last + 1)]
        return b"".join([self.proof(first, last, size).to_line(), *lines])

    def opener(self, envelope: bytes, at: float | None) -> Attested:
        """Of the records of these nodes; MeshError for all else."""
        for node, key in self.keys.items():
            if envelope == str(node).encode():
                return Attested(node, key.public, key.public)
        raise MeshError(Reason.RECORD_MALFORMED, "expected a record")

    def verify(self, data: bytes, witnesses: int = 2) -> VerifiedRange:
        return verify_range(io.BytesIO(data).readline, self.opener, verify_ed25519, witnesses)


def log_of(size: int) -> Bundled:
    """A log of so many entries."""
    return Bundled([entry(index) for index in range(size)])


def _never(tile: object) -> bytes:
    raise AssertionError(tile)
