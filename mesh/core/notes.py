"""Signed notes, checkpoints and cosignatures, in the formats of C2SP: signed-note, tlog-checkpoint,
tlog-cosignature.

A note is a text and signature lines under it; a checkpoint is a note that states a log's size and root; a
cosignature is a signature line by which somebody else says that they saw this checkpoint follow from all they
saw before. Verifier keys ("vkey") are one line of text: name, key id, type and key.

Only Ed25519 (0x01) and timestamped Ed25519 cosignatures (0x04) are made and checked here; lines of other
types are carried along unread. Reading is strict (what is read is written back byte for byte) and bounded;
what does not hold is NOTE_INVALID. Cryptography comes in as functions, so this stays pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import HASH_BYTES, MAX_TREE_SIZE

MAX_NOTE_BYTES = 128 * 1024
MAX_SIGNATURES = 64  # signed-note asks for 16 at least
MAX_SIGNATURE_BYTES = 5 * 1024  # post-quantum ones are nearly this long
MAX_NAME_CHARS = 512
MAX_EXTENSIONS = 16
MAX_LINE_CHARS = 1024
MAX_TIMESTAMP = (1 << 63) - 1

ED25519 = 0x01
COSIGNATURE = 0x04
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64

Sign = Callable[[bytes], bytes]
"""message -> Ed25519 signature, 64 bytes."""
Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key of 32 bytes, message, signature) -> whether it is that key's signature of the message."""

_DASH = "\u2014 "
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,128})")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name. `kind` is ED25519 or COSIGNATURE. Raises NOTE_INVALID."""

    name: str
    kind: int
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in (ED25519, COSIGNATURE) or len(self.public) != PUBLIC_KEY_BYTES:
            raise _invalid("an Ed25519 key of 32 bytes, for notes (01) or for cosignatures (04)")

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell this key from others of its name; no protection of any kind."""
        hashed = hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public)
        return hashed.digest()[:4]

    @property
    def vkey(self) -> str:
        """As one line of text: name+id+base64."""
        return f"{self.name}+{self.key_id.hex()}+{_encoded(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Reads what `vkey` writes; NOTE_INVALID, also if the id is not that of the key."""
        match = _VKEY.fullmatch(vkey) if len(vkey) <= MAX_LINE_CHARS else None
        if match is None:
            raise _invalid("a verifier key: name+id+base64")
        material = _decoded(match[3])
        key = cls(match[1], material[0] if material else 0, material[1:])
        if key.vkey != vkey:
            raise _invalid("a verifier key whose id belongs to it")
        return key


class Signature(NamedTuple):
    """A signature line: whose (`name` and `key_id`), and the signature as its type lays it out."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line, without its newline."""
        return f"{_DASH}{self.name} {_encoded(self.key_id + self.signature)}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and who signed it. Nothing is verified yet. Raises NOTE_INVALID."""

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or any(c < " " and c != "\n" for c in self.text):
            raise _invalid("a note's text that ends in a newline, without control characters")
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise _invalid(f"1 to {MAX_SIGNATURES} signatures")
        for each in self.signatures:
            _check_name(each.name)
            if len(each.key_id) != 4 or not 1 <= len(each.signature) <= MAX_SIGNATURE_BYTES:
                raise _invalid(f"a signature of 1 to {MAX_SIGNATURE_BYTES} bytes after its key id")

    def __bytes__(self) -> bytes:
        lines = "".join(f"{each.line}\n" for each in self.signatures)
        return f"{self.text}\n{lines}".encode()

    def signed(self, *more: Signature) -> Note:
        """The same note with further signatures; one that is there already is not added again."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *more))))


def parse_note(data: bytes) -> Note:
    """Reads a note of at most MAX_NOTE_BYTES; NOTE_INVALID."""
    if len(data) > MAX_NOTE_BYTES:
        raise _invalid(f"a note of at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise _invalid("a note in UTF-8") from None
    text, blank, rest = whole.rpartition("\n\n")
    lines = rest.split("\n")
    if not blank or lines.pop() != "" or len(lines) > MAX_SIGNATURES:
        raise _invalid(f"a text, an empty line and 1 to {MAX_SIGNATURES} signature lines")
    return Note(text + "\n", tuple(map(_parse_signature, lines)))


def _parse_signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or len(encoded) > 2 * MAX_SIGNATURE_BYTES:
        raise _invalid("signature lines of a dash, a name and base64")
    decoded = _decoded(encoded)
    return Signature(name, decoded[:4], decoded[4:])


class Signed(NamedTuple):
    """A key that signed a note; `timestamp` in Unix seconds, None unless the key is for cosignatures."""

    key: VerifierKey
    timestamp: int | None


def sign(text: str, key: VerifierKey, signer: Sign, *, timestamp: int = 0) -> Signature:
    """The signature line of a note's text; with `timestamp` (Unix seconds) if the key is for cosignatures."""
    if key.kind == ED25519:
        return Signature(key.name, key.key_id, signer(text.encode()))
    signature = signer(cosigned_message(text, timestamp))
    return Signature(key.name, key.key_id, timestamp.to_bytes(8, "big") + signature)


def verify(note: Note, keys: Iterable[VerifierKey], verifier: Verify) -> tuple[Signed, ...]:
    """Which of these keys signed the note, in the order of its lines; each once.

    Lines of other keys are passed over. NOTE_INVALID if a line in the name and id of one of the keys is not
    its signature, or if none of them signed.
    """
    known = {(key.name, key.key_id): key for key in keys}
    found: dict[VerifierKey, Signed] = {}
    for each in note.signatures:
        key = known.get((each.name, each.key_id))
        if key is None:
            continue
        timestamp, message, signature = None, note.text.encode(), each.signature
        if key.kind == COSIGNATURE:
            timestamp, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            if timestamp > MAX_TIMESTAMP:
                raise _invalid("a cosignature's time below 2**63")
            message = cosigned_message(note.text, timestamp)
        if len(signature) != SIGNATURE_BYTES or not verifier(key.public, message, signature):
            raise _invalid("a signature of the key that it names")
        found.setdefault(key, Signed(key, timestamp))
    if not found:
        raise _invalid("a signature of one of the known keys")
    return tuple(found.values())


def cosigned_message(text: str, timestamp: int) -> bytes:
    """What a cosignature signs: its header, the time in Unix seconds, and the checkpoint's text."""
    if not 0 <= timestamp <= MAX_TIMESTAMP:
        raise _invalid("a cosignature's time below 2**63")
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: its identity, how many entries it has, and their root. NOTE_INVALID."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.extensions) > MAX_EXTENSIONS:
            raise _invalid(f"at most {MAX_EXTENSIONS} extension lines")
        for line in (self.origin, *self.extensions):
            if not 1 <= len(line) <= MAX_LINE_CHARS or any(c < " " for c in line):
                raise _invalid(f"an origin and extensions of 1 to {MAX_LINE_CHARS} characters on one line")
        if not 0 <= self.size <= MAX_TREE_SIZE or len(self.root) != HASH_BYTES:
            raise _invalid("a size below 2**63 and a root of 32 bytes")

    @property
    def text(self) -> str:
        """The note's text."""
        lines = (self.origin, str(self.size), _encoded(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Reads the text of a note; NOTE_INVALID."""
        origin, *lines = text.split("\n")
        if len(lines) < 3 or lines.pop() != "" or not _NUMBER.fullmatch(lines[0]):
            raise _invalid("a checkpoint: origin, size, root and extensions, a line each")
        return cls(origin, int(lines[0]), _decoded(lines[1]), tuple(lines[2:]))


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME_CHARS or any(c.isspace() or c < " " or c == "+" for c in name):
        raise _invalid(f"a key's name of 1 to {MAX_NAME_CHARS} characters, without spaces and plus")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or _encoded(data) != text:
        raise _invalid("standard base64, padded")
    return data


def _invalid(what: str) -> MeshError:
    return MeshError(Reason.NOTE_INVALID, f"the signed note does not hold: expected {what}")
