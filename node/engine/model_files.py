"""Which model is this? A digest over its files, and the one that a node may be pinned to.

Two nodes that state the same digest serve the same bytes; a permit names it. A folder's digest is
SHA-256 over (name, size, content digest) of every file, by sorted name; hidden files are not part of a
model. A hub id that was resolved is the folder of its snapshot; one that was not is known by its name
and revision alone, and its digest says so by being that of the text.

Hashing 140 GB takes minutes, so results are kept beside what would change if the files did: sizes and
the times of their last change, of which ctime is one that nobody sets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from mesh.core.errors import MeshError, Reason

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


def is_digest(text: str) -> bool:
    """Whether it reads "sha256:<64 hex>"."""
    return _DIGEST.fullmatch(text) is not None


def model_digest(model: str, revision: str, cache: Path) -> str:
    """ "sha256:<hex>" of a folder or hub id; `cache` is a JSON file of earlier results."""
    folder = _folder(model, revision)
    if folder is None:
        return f"sha256:{hashlib.sha256(f'{model}@{revision}'.encode()).hexdigest()}"
    return folder_digest(folder, cache)


def folder_digest(folder: Path, cache: Path) -> str:
    """ "sha256:<hex>" over the files of a folder, hidden ones aside."""
    looks = [
        (name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        for name, stat in ((name, (folder / name).stat()) for name in files_of(folder))
    ]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), looks]).encode()).hexdigest()
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(cache.read_text())
    if key in known:
        return known[key]
    result = computed_digest(folder)
    with contextlib.suppress(OSError):  # a full disk costs the next start some time, no more
        aside = cache.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps({key: result, **dict(list(known.items())[:15])}))
        aside.replace(cache)
    return result


def files_of(folder: Path) -> list[str]:
    """Names of the files that make up the model, relative to its folder, sorted by their parts."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path.as_posix() for path in sorted(found) if not any(part.startswith(".") for part in path.parts)]


def computed_digest(folder: Path, hashed: Callable[[int], None] = lambda size: None) -> str:
    """The digest from the files themselves. `hashed` is told of every piece, in bytes."""
    total = hashlib.sha256()
    for name in files_of(folder):
        content, size = hashlib.sha256(), 0
        with (folder / name).open("rb", buffering=0) as file:
            while piece := file.read(_CHUNK_BYTES):
                content.update(piece)
                size += len(piece)
                hashed(len(piece))
        total.update(len(name.encode()).to_bytes(8, "big") + name.encode())
        total.update(size.to_bytes(8, "big") + content.digest())
    return f"sha256:{total.hexdigest()}"


def require_digest(folder: Path, expected: str, cache: Path) -> None:
    """Raises MODEL_DIGEST_MISMATCH unless the folder holds the model that is `expected`.

    A link to a folder is refused too: what lies behind it is not part of the digest.
    """
    linked = [path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()]
    if linked:
        raise MeshError(Reason.MODEL_DIGEST_MISMATCH, "the model's folder links to another folder")
    found = folder_digest(folder, cache)
    if found != expected:
        raise MeshError(
            Reason.MODEL_DIGEST_MISMATCH, f"the model's digest is {found}, but only {expected} may be served"
        )


def permitted_model(model: str, revision: str, expected: str, cache: Path) -> str:
    """What to load for a model that may be pinned to a digest (`expected`; empty: it is not).

    A pinned hub id is downloaded whole, and its folder is what is loaded, so that nothing can come in
    between. Raises MODEL_DIGEST_MISMATCH, and whatever the hub's client raises.
    """
    if not expected:
        return model
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, revision=revision or None))
    require_digest(folder, expected, cache)
    return str(folder)


def _folder(model: str, revision: str) -> Path | None:
    if Path(model).is_dir():
        return Path(model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, revision=revision or None, local_files_only=True))
    except Exception:  # not installed, not downloaded, not a hub id: each means "unresolvable"
        return None
