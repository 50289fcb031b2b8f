"""How far a fetch is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from node.models.rules import readable

_LINE_EVERY_S = 10.0


class Progress:
    """Told in bytes; shows nothing. Its kinds below do."""

    def total(self, size: int) -> None:
        """So much there will be."""

    def wrote(self, size: int) -> None:
        """So much more has arrived."""

    def verified(self, size: int) -> None:
        """So much more has been compared."""


class Lines(Progress):
    """For a log: nothing for ten seconds, then a line in ten."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float], every_s: float = _LINE_EVERY_S
    ) -> None:
        self._say, self._clock, self._every_s = say, clock, every_s
        self._due = clock() + every_s
        self._total = 0
        self._done = {"fetched": 0, "verified": 0}

    def total(self, size: int) -> None:
        """As the base says."""
        self._total = size

    def wrote(self, size: int) -> None:
        """As the base says."""
        self._more("fetched", size)

    def verified(self, size: int) -> None:
        """As the base says."""
        self._more("verified", size)

    def _more(self, what: str, size: int) -> None:
        self._done[what] += size
        if self._clock() >= self._due:
            of = f" of {readable(self._total)}" if self._total else ""
            self._say(f"{what} {readable(self._done[what])}{of}")
            self._due = self._clock() + self._every_s


class OnTerminal(Progress):
    """Two bars."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks = {}
        for what in ("fetching", "verifying"):
            self._tasks[what] = bars.add_task(what, total=None, visible=False)

    def total(self, size: int) -> None:
        """As the base says."""
        for task in self._tasks.values():
            self._bars.update(task, total=size)

    def wrote(self, size: int) -> None:
        """As the base says."""
        self._bars.update(self._tasks["fetching"], advance=size, visible=True)

    def verified(self, size: int) -> None:
        """As the base says."""
        self._bars.update(self._tasks["verifying"], advance=size, visible=True)


@contextmanager
def shown(for_people: bool) -> Iterator[Progress]:
    """The kind that fits standard error; none for programs."""
    if not for_people:
        yield Progress()
    elif sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            yield OnTerminal(bars)
    else:
        yield Lines(lambda line: print(f"mesh-model: {line}", file=sys.stderr, flush=True), time.monotonic)
