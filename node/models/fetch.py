"""Fetches a model: beside where it is to be, verified by digest, then renamed. All of it or nothing.

The folder that it is fetched into lies beside the target (so that a rename is enough), is hidden, has the
target's name in its own, and is locked by whoever works in it: one at a time, and what a killed one left
is swept by the next. A target that holds the right model already is left as it is; one that holds
anything else is not touched, and refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import sync_directory
from node.engine.model_files import computed_digest, files_of
from node.models.rules import Rules, Tally, require_room
from node.models.source import Item, Source, Wrote


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of it. `already`: it had been there."""

    digest: str
    files: int
    bytes: int
    already: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how far it is: all bytes once known, those that were written, those that were verified."""

    total: Wrote = lambda size: None
    wrote: Wrote = lambda size: None
    verified: Wrote = lambda size: None


def fetch(
    source_in: Callable[[Path], Source], target: Path, digest: str, rules: Rules, watch: Watch
) -> Fetched:
    """Brings the model of this digest to `target`. `source_in` makes the source, given a scratch folder.

    Raises MeshError: MODEL_DIGEST_MISMATCH, MODEL_UNSAFE, MODEL_TOO_LARGE, STORE_CONFLICT while another
    fetches the same, and what the source raises; OSError for this machine's disk. Then nothing is left.
    """
    target = target.absolute()
    if (found := _already(target, digest, watch)) is not None:
        return found
    target.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(target) as place:
        if (found := _already(target, digest, watch)) is not None:  # made by whom we waited for
            return found
        model, scratch = place / "model", place / "scratch"
        model.mkdir()
        scratch.mkdir()
        tally = Tally(rules)
        for item in _wanted(source_in(scratch).items(), rules, watch):
            tally.add_name(item.name)
            (path := model / item.name).parent.mkdir(parents=True, exist_ok=True)
            item.save(path, _both(tally.add_bytes, watch.wrote))
        root = _root(model)
        arrived = computed_digest(root, watch.verified)
        if arrived != digest:
            raise MeshError(
                Reason.MODEL_DIGEST_MISMATCH, f"what was fetched has digest {arrived}, expected {digest}"
            )
        for folder, _, _ in os.walk(root):
            sync_directory(Path(folder))
        root.rename(target)
        sync_directory(target.parent)
    return Fetched(digest, tally.files, tally.bytes, already=False)


def _already(target: Path, digest: str, watch: Watch) -> Fetched | None:
    """None if nothing is there. Raises MODEL_DIGEST_MISMATCH if something else is."""
    if not target.is_dir():
        if target.exists() or target.is_symlink():
            raise MeshError(Reason.MODEL_DIGEST_MISMATCH, f"{target} is there, and is no folder")
        return None
    if not any(target.iterdir()):
        return None
    files = files_of(target)
    size = sum((target / name).stat().st_size for name in files)
    watch.total(size)
    found = computed_digest(target, watch.verified)
    if found != digest or any(path.is_symlink() for path in target.rglob("*")):
        raise MeshError(
            Reason.MODEL_DIGEST_MISMATCH,
            f"{target} is there and holds something else ({found}): remove it, or choose another folder",
        )
    return Fetched(digest, len(files), size, already=True)


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, ours alone, and gone afterwards."""
    place = target.parent / f".{target.name}.mesh-model"
    place.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle), place.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:  # locked, or just swept away by whoever had it
            raise MeshError(Reason.STORE_CONFLICT, f"another mesh-model fetches {target}", retry_after_s=30)
        try:
            _empty(place)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(handle)


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _wanted(items: Iterable[Item], rules: Rules, watch: Watch) -> Iterator[Item]:
    """Those to be fetched; where all are known beforehand, all are judged before the first."""
    if isinstance(items, Sequence):
        items = [item for item in items if rules.wants(item.name)]
        total = sum(item.size for item in items)
        require_room(total, rules)
        watch.total(total)
        yield from items
        return
    for item in items:
        if rules.wants(item.name):
            yield item


def _root(model: Path) -> Path:
    """An archive often holds one folder with everything in it: then that is the model."""
    inside = list(model.iterdir())
    if not inside:
        raise MeshError(Reason.NOT_FOUND, "the source has no file that is wanted")
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else model


def _both(one: Wrote, other: Wrote) -> Wrote:
    def wrote(size: int) -> None:
        one(size)
        other(size)

    return wrote
