"""What an index remembers of files that it has taken in, so that they need not be sent again.

A file is known by its name, and by a mark over its bytes and what was said of it: sent with another data
class, it is another file. Tenants do not share names. Pure.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import fields, replace

from mesh.core.documents import FileOffer, FileStored
from node.index.documents import MAX_ID, MetaDefaults

# Changes whenever files are to be read anew after an update of this software.
_VERSION = b"sovereign-mesh/v1/file/1\x00"
# The first 24 bytes of a SHA-256, and the figures to tell when the file comes again.
_MARK = struct.Struct(">24sII")


class FileMarks:
    """The names and marks of the files of one upload."""

    def __init__(self, defaults: MetaDefaults) -> None:
        self._defaults = defaults
        self._tenant = defaults.tenant if "tenant" in defaults.locked else ""
        said = {f.name: getattr(defaults, f.name) for f in fields(MetaDefaults)}
        said["classes"], said["locked"] = sorted(defaults.classes), sorted(defaults.locked)
        self._said = json.dumps(said, sort_keys=True, default=str).encode()

    def key(self, name: str) -> str:
        """The name that the index remembers a file by: whoever is held to a tenant has names of its own."""
        return f"{self._tenant}/{name}"

    def defaults(self, name: str) -> MetaDefaults:
        """What holds for a file: what was said, completed by where it came from."""
        known = replace(self._defaults, id=document_id_of(name))
        return known if known.source else replace(known, source=name)

    def mark(self, offer: FileOffer, documents: int, chunks: int) -> bytes:
        """32 bytes for a file of which everything is held."""
        return _MARK.pack(self._fingerprint(offer), documents, chunks)

    def recall(self, mark: bytes | None, offer: FileOffer) -> FileStored | None:
        """What is held of this very file, if the mark is its own."""
        if mark is None or len(mark) != _MARK.size:
            return None
        fingerprint, documents, chunks = _MARK.unpack(mark)
        if fingerprint != self._fingerprint(offer):
            return None
        return FileStored(documents, chunks, unchanged=documents)

    def _fingerprint(self, offer: FileOffer) -> bytes:
        return hashlib.sha256(_VERSION + offer.sha256 + self._said).digest()[:24]


def document_id_of(name: str) -> str:
    """The id of a document whose file names none: the file's name, or a digest and the end of it."""
    if len(name) <= MAX_ID:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{digest}~{name[len(digest) + 1 - MAX_ID :]}"
