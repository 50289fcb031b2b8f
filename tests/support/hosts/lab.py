"""Several hosts on one machine: a network namespace each, real addresses, one bridge between them.

    with lab_of(tmp_path, "fra-1", "par-1") as lab:
        process = lab.start("fra-1", [sys.executable, "-m", "node.daemon", ...], log=...)
        lab.lose("fra-1", "par-1")          # one way only
        lab.partition(["fra-1"], ["par-1"])
        lab.heal()
        with lab.capture("first") as capture:
            ...
        capture.packets

A lab touches nothing outside itself: bridge and cables are in namespaces that only its own processes hold
(holder.py), so labs run beside each other with the same addresses, and kill -9 of the test leaves nothing:
every process here is ended by the kernel when its parent ends. It needs Linux, the tools of util-linux, and
either root or user namespaces for everybody; `why_not` says what is lacking.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.support.hosts.dialogue import Dialogue
from tests.support.hosts.packets import Packet, read

ROOT = Path(__file__).parents[3]
TOOLS = ("unshare", "nsenter", "setpriv")
FIRST_ADDRESS = ipaddress.IPv4Address("10.77.0.1")  # of a /16 (wire.py)
DEADLINE_S = 20.0
END_S = 10.0


class LabFailed(Exception):
    """The machine did not allow, or no longer does, what a lab is made of."""


class Capture:
    """What the hosts sent in the course of a block; `packets` once it is over."""

    def __init__(self, file: Path, dialogue: Dialogue) -> None:
        self.file = file
        self._dialogue = dialogue

    def end(self) -> None:
        """Raises LabFailed if a frame is missing."""
        self._dialogue.no_more()
        told = self._dialogue.read(DEADLINE_S)
        self._dialogue.wait(END_S)
        if told["missed"]:
            raise LabFailed(f"{told['missed']} frames were too many for the capture")

    @functools.cached_property
    def packets(self) -> list[Packet]:
        return read(self.file)


class Lab:
    """Use `lab_of`. Host names are those of the caller; addresses are 10.77.0.1 and up."""

    def __init__(self, folder: Path, names: Sequence[str], *, as_root: bool | None = None) -> None:
        """`as_root` False: by a user namespace, also where this process is root. None: as it has to be."""
        self.folder = folder
        self.addresses = {name: str(FIRST_ADDRESS + number) for number, name in enumerate(names)}
        self._root = os.geteuid() == 0 if as_root is None else as_root
        self._processes: list[subprocess.Popen[Any]] = []
        unshare = ["unshare", "--net"] if self._root else ["unshare", "--map-root-user", "--net"]
        hosts = [f"{name}={address}" for name, address in self.addresses.items()]
        command = [*unshare, "--", sys.executable, "-m", "tests.support.hosts.holder", *hosts]
        with (folder / "holder.log").open("ab") as log:
            holder = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, bufsize=0
            )
        self._holder = Dialogue(holder)
        try:
            held = self._said(self._holder.read(DEADLINE_S))
        except BaseException as error:
            self._holder.kill()
            if isinstance(error, EOFError):
                raise LabFailed(f"no namespaces: {(folder / 'holder.log').read_text().strip()}") from None
            raise
        self._pid: int = held["pid"]
        self._namespaces: dict[str, int] = held["namespaces"]

    def inside(self, host: str, command: Sequence[str]) -> list[str]:
        """The command line that runs this one on a host; "" is the bridge's own namespace."""
        enter = ["nsenter", f"--net=/proc/{self._pid}/fd/{self._namespaces[host]}"]
        if not self._root:
            enter += [f"--user=/proc/{self._pid}/ns/user", "--preserve-credentials"]
        # In this order: going into a user namespace takes the wish back that setpriv makes.
        return [*enter, "--", "setpriv", "--pdeathsig", "KILL", "--", *command]

    def start(
        self, host: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, **pipes: Any
    ) -> subprocess.Popen[Any]:
        """Starts a process on a host, with its output in a file; it ends with the lab at the latest.

        Its process id is the one that is returned: signals reach the command itself.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.inside(host, command),
                **{"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **pipes},
                cwd=ROOT,
                env={**os.environ, **(env or {})},
            )
        self._processes.append(process)
        return process

    def talk(self, host: str, command: Sequence[str], log: Path) -> Dialogue:
        """Starts a process that takes and gives lines of JSON."""
        pipe = subprocess.PIPE
        return Dialogue(self.start(host, command, log, stdin=pipe, stdout=pipe, bufsize=0))

    @contextlib.contextmanager
    def capture(self, name: str) -> Iterator[Capture]:
        """Everything that any host sends meanwhile."""
        file = self.folder / f"{name}.pcap"
        command = [sys.executable, "-m", "tests.support.hosts.capture", str(file)]
        dialogue = self.talk("", command, self.folder / f"{name}.log")
        capture = Capture(file, dialogue)
        dialogue.read(DEADLINE_S)
        try:
            yield capture
        except BaseException:
            dialogue.kill()
            raise
        capture.end()

    # --- faults ----------------------------------------------------------------------------------

    def lose(self, source: str, destination: str, one_in: int = 1) -> None:
        """What one host sends to another vanishes silently, or one packet in so many does. One way only."""
        self._do("lose", source=source, destination=destination, one_in=one_in)

    def partition(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Nothing passes between these and those, either way."""
        there = list(others)
        for one in some:
            for other in there:
                self.lose(one, other)
                self.lose(other, one)

    def delay(self, hosts: Iterable[str], milliseconds: int) -> None:
        """What these hosts send arrives so much later. LabFailed where the kernel has no netem."""
        self._do("delay", hosts=list(hosts), milliseconds=milliseconds)

    def lost(self) -> int:
        """How many packets the faults in force took away so far."""
        return int(self._do("lost"))

    def heal(self) -> None:
        """All faults end."""
        self._do("heal")

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Heals at the end of the block, whatever happens in it."""
        try:
            yield
        finally:
            self.heal()

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends every process, then the namespaces."""
        running = [process for process in self._processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGKILL)
        for process in running:
            process.wait(END_S)
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
        self._holder.no_more()
        self._holder.kill()

    def _do(self, what: str, **how: Any) -> Any:
        self._holder.write({"do": what, **how})
        return self._said(self._holder.read(DEADLINE_S)).get("done")

    @staticmethod
    def _said(answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise LabFailed(answer["error"])
        return answer


def _close(pipe: IO[Any] | None) -> None:
    if pipe is not None:
        pipe.close()


@contextlib.contextmanager
def lab_of(folder: Path, *names: str, as_root: bool | None = None) -> Iterator[Lab]:
    """A lab with a host of each name; logs and captures go into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(folder, names, as_root=as_root)
    try:
        yield lab
    finally:
        lab.close()


@functools.cache
def why_not() -> str:
    """What this machine lacks for a lab, found out by making one; "" if it lacks nothing."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"util-linux is not all there: no {', '.join(lacking)}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with lab_of(Path(folder), "one", "two") as lab:
                lab.lose("one", "two")
                process = lab.start("one", ["true"], Path(folder) / "true.log")
                if process.wait(DEADLINE_S) != 0:
                    return f"no process may enter a namespace: {(Path(folder) / 'true.log').read_text()}"
        except (LabFailed, TimeoutError) as error:
            return f"network namespaces are not permitted here (root, or user namespaces for all): {error}"
    return ""
