"""A model in a folder of this machine (or of a volume that is mounted)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from node.models.source import Item, Wrote, pieces_of, write


class FolderSource:
    """See the module. Links are refused, whatever they lead to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def items(self) -> list[Item]:
        """All regular files. Raises MODEL_UNSAFE for anything that is neither a file nor a folder."""
        found = []
        for place, folders, files in os.walk(self._folder, onerror=_fail):
            for name in (*folders, *files):
                path = Path(place) / name
                mode = path.lstat().st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    raise MeshError(Reason.MODEL_UNSAFE, f"{path} is neither a file nor a folder")
                if stat.S_ISREG(mode):
                    relative = path.relative_to(self._folder).as_posix()
                    found.append(Item(relative, path.lstat().st_size, _Saver(path)))
        return found


class _Saver:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, target: Path, wrote: Wrote) -> None:
        # Looked at again: what it was a moment ago is not what is opened now.
        handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise MeshError(Reason.MODEL_UNSAFE, f"{self._path} is no regular file")
            write(target, pieces_of(file), wrote)


def _fail(error: OSError) -> None:
    raise error
