"""A vector store in use, closed only when the last search that uses it is done."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from node.index.base import VectorStore


@dataclass(eq=False)
class Shelf:
    """A store in use, and by how many searches; closed when it is retired and the last of them is done."""

    store: VectorStore
    folder: Path
    readers: int = 0
    retired: bool = False
    erase: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """Begins a search; False if the store has been retired."""
        with self.lock:
            self.readers += not self.retired
            return not self.retired

    def give_back(self) -> None:
        """Ends a search."""
        with self.lock:
            self.readers -= 1
            last = self.retired and self.readers == 0
        if last:
            self._close()

    def retire(self, *, erase: bool) -> None:
        """Takes no more searches; `erase` removes what it stores when it has been closed."""
        with self.lock:
            last = not self.retired and self.readers == 0
            self.retired, self.erase = True, erase
        if last:
            self._close()

    def _close(self) -> None:
        try:
            if self.erase:
                self.store.clear()  # what is on a server would stay there otherwise
            self.store.close()
        except Exception:  # noqa: S110 - it is being thrown away because it does not work
            pass
        if self.erase:
            shutil.rmtree(self.folder, ignore_errors=True)
