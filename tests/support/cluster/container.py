"""One container: `python -m tests.support.cluster.container SPEC.json` becomes the command that it describes.

In a mount namespace of its own: this machine's files under a layer that takes writes and vanishes, made
read-only where the manifest says so, the volumes on top. Then the user, no further privileges, and exec, so
that the process keeps its number and signals reach the command itself. Run as root, on a host of a lab.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.support.hosts.namespaces import die_with_parent

CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    root = build(spec, Path(spec["scratch"]))
    os.chroot(root)
    os.chdir(spec["directory"])
    become(spec)
    os.umask(0o022)
    environment = spec["environment"]
    os.execvpe(spec["command"][0], spec["command"], environment)


def build(spec: dict[str, Any], scratch: Path) -> Path:
    """The container's root folder, mounted; `scratch` is an empty folder of this machine."""
    _checked(_libc.unshare(CLONE_NEWNS))
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    mount("tmpfs", scratch, "tmpfs", 0, "mode=0755")
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir(mode=0o755)
    root = scratch / "root"
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work")
    (root / "root").chmod(0o755)  # where an interpreter may lie
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV)
    mount("/dev", root / "dev", "", MS_BIND | MS_REC)
    covered = [Path(each["target"]) for each in spec["mounts"]]
    bare = [root / name.lstrip("/") for name in spec["empty"] if Path(name) not in covered]
    for target in bare:  # what this machine has there is none of the image's
        mount("tmpfs", target, "tmpfs", 0, "mode=1777")
    for each in sorted(spec["mounts"], key=lambda one: str(one["target"])):
        source, target = Path(each["source"]), inside(root, each["target"])
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mount(str(source), target, "", MS_BIND | MS_REC)
        if each["read_only"]:
            mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
    for target in (root, *bare) if spec["read_only_root"] else ():
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
    return root


def inside(root: Path, path: str) -> Path:
    """Where a path of the container lies from here; its links lead to places in the container."""
    found = root
    for part in Path(path).relative_to("/").parts:
        found = found / part
        if found.is_symlink():
            target = found.readlink()
            found = inside(root, str(target)) if target.is_absolute() else found.parent / target
    return found


def become(spec: dict[str, Any]) -> None:
    """The container's user, for good."""
    os.setgroups(spec["groups"])
    os.setgid(spec["group"])
    os.setuid(spec["user"])
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    die_with_parent(signal.SIGKILL)  # the kernel forgets this wish when the user changes


def mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    """mount(2); OSError names the target."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, flags, options.encode() or None
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: mount {kind or source}", str(target))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
