"""Records: which keys exist, who may sign what, and how generations move (I5).

The board (etcd) holds signed statements. A statement is believed only if the signer may sign that
key, it is inside its validity, and its generation is not behind one that was seen before. These
rules are here, as pure functions; signatures themselves are verified in mesh/identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId

ROOT = "/sovereign/v1/"
MAX_ENVELOPE_BYTES = 256 * 1024
MAX_KEY_BYTES = 256

# How far a peer's clock may be off, in seconds. Two minutes of skew is refused, with a message that
# says to look at the clocks.
CLOCK_TOLERANCE_S = 30.0


class RecordType(StrEnum):
    """Payload types of signed statements."""

    POLICY = "policy"
    FACTS = "facts"
    NODE = "nodes"
    STATUS = "status"
    REVOCATIONS = "revocations"
    FEDERATION = "federation"
    GROUPS = "groups"
    HEADS = "heads"
    COLLECTION = "collections"
    PERMIT = "permit"  # not on the board: travels with a request


# Signed by the node that the key names; everything else by the authority.
SIGNED_BY_NODE = frozenset({RecordType.NODE, RecordType.STATUS})
# Keys that end in a name: a node's, or a collection's.
PER_NODE = frozenset({RecordType.FACTS, RecordType.NODE, RecordType.STATUS})
NAMED = PER_NODE | {RecordType.COLLECTION}
# Records whose generation the authority's heads list. Heads does not list itself.
COVERED_BY_HEADS = frozenset(
    {
        RecordType.POLICY,
        RecordType.FACTS,
        RecordType.REVOCATIONS,
        RecordType.FEDERATION,
        RecordType.GROUPS,
        RecordType.COLLECTION,
    }
)


@dataclass(frozen=True, slots=True)
class RecordKey:
    """``/sovereign/v1/<trust domain>/<type>[/<name>]``."""

    trust_domain: str
    type: RecordType
    name: str = ""

    def __post_init__(self) -> None:
        # A name with a slash would make a key that cannot be read back.
        nested = "/" in self.name
        if nested or (self.type in NAMED) != bool(self.name) or self.type is RecordType.PERMIT:
            raise MeshError(Reason.RECORD_WRONG_KEY, "expected /sovereign/v1/<trust domain>/<type>[/<name>]")
        SpiffeId(self.trust_domain, f"/node/{self.name or 'x'}")  # validates both parts

    @classmethod
    def parse(cls, text: str) -> RecordKey:
        """Reads a key; raises RECORD_WRONG_KEY."""
        parts = text.removeprefix(ROOT).split("/")
        if len(text) > MAX_KEY_BYTES or not text.startswith(ROOT) or len(parts) not in (2, 3):
            raise MeshError(Reason.RECORD_WRONG_KEY, "expected /sovereign/v1/<trust domain>/<type>[/<name>]")
        try:
            return cls(parts[0], RecordType(parts[1]), parts[2] if len(parts) == 3 else "")
        except (ValueError, MeshError):
            raise MeshError(
                Reason.RECORD_WRONG_KEY, "expected /sovereign/v1/<trust domain>/<type>[/<name>]"
            ) from None

    def __str__(self) -> str:
        return f"{ROOT}{self.trust_domain}/{self.type}" + (f"/{self.name}" if self.name else "")

    @property
    def signer(self) -> SpiffeId:
        """The only identity that may sign this key."""
        if self.type in SIGNED_BY_NODE:
            return SpiffeId(self.trust_domain, f"/node/{self.name}")
        return SpiffeId(self.trust_domain, "/authority")

    @property
    def node(self) -> SpiffeId:
        """The node that a per-node key is about."""
        return SpiffeId(self.trust_domain, f"/node/{self.name}")


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified statement: its signature, signer and validity have been checked.

    Times are Unix seconds. `payload` is still protobuf; mesh/codec.py reads it. `signer_serial` is
    the signing certificate's serial number, lower-case hex, so that a later revocation reaches it.
    """

    type: RecordType
    key: str
    generation: int
    not_before: float
    not_after: float
    payload: bytes
    signer: SpiffeId
    signer_serial: str
    digest: str


def check_validity(not_before: float, not_after: float, now: float) -> None:
    """Raises RECORD_NOT_YET_VALID or RECORD_EXPIRED; all in Unix seconds."""
    if now < not_before - CLOCK_TOLERANCE_S:
        raise MeshError(
            Reason.RECORD_NOT_YET_VALID,
            f"valid only in {not_before - now:.0f} s: compare the clocks of signer and verifier",
        )
    if now >= not_after:
        raise MeshError(
            Reason.RECORD_EXPIRED, f"expired {now - not_after:.0f} s ago: the signer must publish it anew"
        )


def check_place(statement: Statement, key: RecordKey) -> None:
    """Raises unless the statement says that it belongs under this key and its signer may sign it."""
    if statement.key != str(key) or statement.type is not key.type:
        raise MeshError(Reason.RECORD_WRONG_KEY, "the statement was signed for another key")
    if statement.signer != key.signer:
        raise MeshError(Reason.RECORD_WRONG_SIGNER, f"only {key.signer} may sign this key")


def check_generation(seen: Mapping[str, tuple[int, str]], statement: Statement) -> bool:
    """Whether the statement is news. Raises RECORD_ROLLED_BACK if it is older than what was seen.

    `seen` maps keys to (generation, digest). The same generation with another digest is refused as
    well: a signer never says two things under one number.
    """
    generation, digest = seen.get(statement.key, (0, ""))
    if statement.generation == generation and statement.digest == digest:
        return False
    if statement.generation <= generation:
        raise MeshError(
            Reason.RECORD_ROLLED_BACK,
            f"generation {statement.generation} does not follow {generation}, seen before",
        )
    return True
