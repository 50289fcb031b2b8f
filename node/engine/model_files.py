"""Which model is this? A digest over its files.

Two nodes that state the same digest serve the same bytes; a permit names it. A folder's digest is
SHA-256 over (name, size, content digest) of every file, by sorted name. A hub id that was resolved
is the folder of its snapshot; one that was not is known by its name and revision alone, and its
digest says so by being that of the text.

Hashing 140 GB takes minutes, so results are kept beside what would change if the files did.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path


def model_digest(model: str, revision: str, cache: Path) -> str:
    """ "sha256:<hex>" of a folder or hub id; `cache` is a JSON file of earlier results."""
    folder = _folder(model, revision)
    if folder is None:
        return f"sha256:{hashlib.sha256(f'{model}@{revision}'.encode()).hexdigest()}"
    return folder_digest(folder, cache)


def folder_digest(folder: Path, cache: Path) -> str:
    """ "sha256:<hex>" over the files of a folder, hidden ones aside."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    looks = [
        (path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns)
        for path, stat in ((path, path.stat()) for path in files)
    ]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), looks]).encode()).hexdigest()
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(cache.read_text())
    if key in known:
        return known[key]
    total = hashlib.sha256()
    for path, (name, size, _) in zip(files, looks, strict=True):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        total.update(len(name.encode()).to_bytes(8, "big") + name.encode())
        total.update(size.to_bytes(8, "big") + content)
    result = f"sha256:{total.hexdigest()}"
    with contextlib.suppress(OSError):  # a full disk costs the next start some time, no more
        aside = cache.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps({key: result, **dict(list(known.items())[:15])}))
        aside.replace(cache)
    return result


def _folder(model: str, revision: str) -> Path | None:
    if Path(model).is_dir():
        return Path(model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, revision=revision or None, local_files_only=True))
    except Exception:  # not installed, not downloaded, not a hub id: each means "unresolvable"
        return None
