"""What may be part of a fetched model: names, kinds of files, how many, how large. Pure.

Every name comes from a hub, a bucket or an archive, and is hostile until it passed here. Hidden files are
no part of a model (its digest leaves them out) and are not fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from mesh.core.errors import MeshError, Reason

MOST_FILES = 10_000
_MOST_CHARACTERS, _DEEPEST = 512, 8
# Formats whose readers run what the file says: Python's pickle, and what wraps it.
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,18})([KMGT]?)(i?)B?")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator permits. `exclude` are shell patterns of names that are left out."""

    max_bytes: int
    allow_pickle: bool = False
    exclude: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether a file of this name is to be fetched. Raises MODEL_UNSAFE for one that must not be."""
        if not is_safe_name(name):
            raise MeshError(
                Reason.MODEL_UNSAFE, "a file's name leads out of the model's folder, or is no plain name"
            )
        path = PurePosixPath(name)
        if any(part.startswith(".") for part in path.parts):
            return False
        if any(fnmatchcase(name, pattern) or fnmatchcase(path.name, pattern) for pattern in self.exclude):
            return False
        if path.suffix.lower() in _PICKLES and not self.allow_pickle:
            raise MeshError(
                Reason.MODEL_UNSAFE,
                f"{name} may be a pickle, which runs programs when it is loaded: use safetensors, leave it"
                " out with --exclude, or --allow-pickle",
            )
        return True


class Tally:
    """Counts what is fetched against the rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._names: set[str] = set()
        self.bytes = 0

    @property
    def files(self) -> int:
        """How many there were."""
        return len(self._names)

    def add_name(self, name: str) -> None:
        """One more file. Raises MODEL_UNSAFE for a name that was there, MODEL_TOO_LARGE past the bound."""
        if name in self._names:
            raise MeshError(Reason.MODEL_UNSAFE, f"{name} comes twice")
        if len(self._names) == MOST_FILES:
            raise MeshError(Reason.MODEL_TOO_LARGE, f"more than {MOST_FILES} files")
        self._names.add(name)

    def add_bytes(self, size: int) -> None:
        """So much more of content. Raises MODEL_TOO_LARGE past the bound."""
        self.bytes += size
        require_room(self.bytes, self._rules)


def require_room(size: int, rules: Rules) -> None:
    """Raises MODEL_TOO_LARGE if `size` bytes are more than permitted."""
    if size > rules.max_bytes:
        raise MeshError(Reason.MODEL_TOO_LARGE, f"more than {rules.max_bytes} bytes (--max-bytes)")


def is_safe_name(name: str) -> bool:
    """Whether it is a relative path of plain names that stays below where it begins."""
    parts = name.split("/")
    return (
        0 < len(name) <= _MOST_CHARACTERS
        and len(parts) <= _DEEPEST
        and name.isprintable()
        and "\\" not in name
        and not any(part in ("", ".", "..") for part in parts)
    )


def size_of(text: str) -> int:
    """Bytes of "500GiB", "2TB" or "1000". Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise ValueError("expected a size, such as 500GiB")
    units = _BINARY_UNITS if found[3] else _UNITS
    return int(found[1]) * units[found[2]]


def readable(size: int) -> str:
    """The size for people."""
    units: Sequence[str] = ("B", "KiB", "MiB", "GiB", "TiB")
    value, unit = float(size), 0
    while value >= 1024 and unit < len(units) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.{0 if unit == 0 else 1}f} {units[unit]}"
