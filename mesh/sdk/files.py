"""Which files of a folder are documents, what they are called, and what is in them.

Names are what a node knows a file by when it comes again, so they depend on where a file is inside the
folder that was named and on nothing else. Links are not followed, hidden files are left alone, and of
a folder only files with a known ending are taken; a file that is named itself is always taken.
It knows nothing of nodes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mesh.core.documents import MAX_FILE_NAME_BYTES, MAX_PIECE_BYTES
from mesh.core.errors import MeshError, Reason

EXTENSIONS = frozenset(
    {".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".pdf", ".docx", ".jsonl", ".ndjson"}
    | {".csv", ".tsv", ".rst", ".log"}
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and what it is called; `bytes` is its size when it was found."""

    path: Path
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A path that is not taken, and why. `unreadable`: a folder of which nothing is known."""

    path: Path
    why: str
    unreadable: bool = False


def files_under(paths: Iterable[Path], prefix: str = "") -> tuple[list[SourceFile], list[LeftOut]]:
    """The files to send, in order, and what is left out of them besides hidden files.

    A folder's files are called "<folder>/<path inside it>", a file by its own name, `prefix` before it.
    Raises NOT_FOUND for a path that is not there, REQUEST_INVALID if two files would have one name.
    """
    found: dict[str, SourceFile] = {}
    left_out: list[LeftOut] = []
    for path in paths:
        root = path.resolve()
        if not root.exists():
            raise MeshError(Reason.NOT_FOUND, f"{path} is not there")
        taken = _walk(root, left_out) if root.is_dir() else iter([root])
        for file in taken:
            name = prefix + file.relative_to(root.parent).as_posix()
            problem = _problem(file, name)
            if problem:
                left_out.append(LeftOut(file, problem))
                continue
            other = found.setdefault(name, SourceFile(file, name, file.stat().st_size))
            if other.path != file:
                raise MeshError(
                    Reason.REQUEST_INVALID,
                    f"{other.path} and {file} would have one name: send them apart, with --source-prefix",
                )
    return list(found.values()), left_out


def _walk(folder: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        left_out.append(LeftOut(folder, error.strerror or "cannot be read", unreadable=True))
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            left_out.append(LeftOut(path, "a link"))
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, left_out)
        elif path.suffix.lower() in EXTENSIONS:
            yield path
        else:
            left_out.append(LeftOut(path, "not a kind of document"))


def _problem(file: Path, name: str) -> str:
    if not stat.S_ISREG(file.lstat().st_mode):
        return "not a regular file"
    if not name.isprintable() or len(name.encode(errors="replace")) > MAX_FILE_NAME_BYTES:
        return f"its name has unprintable characters, or more than {MAX_FILE_NAME_BYTES} bytes"
    return ""


def open_file(file: SourceFile) -> BinaryIO:
    """The file, opened for reading, if it is still a regular one. Raises OSError."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    opened = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        opened.close()
        raise OSError("not a regular file")
    return opened


def fingerprint(opened: BinaryIO) -> tuple[bytes, int]:
    """SHA-256 of what is in it and how many bytes that is; reads from the beginning, and goes back there."""
    digest, size = hashlib.sha256(), 0
    opened.seek(0)
    while data := opened.read(4 * MAX_PIECE_BYTES):
        digest.update(data)
        size += len(data)
    opened.seek(0)
    return digest.digest(), size
