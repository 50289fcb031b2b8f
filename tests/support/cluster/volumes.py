"""A pod's volumes as folders of this machine, with the owners and modes that the kubelet gives them.

What a chart gets wrong most often is who may read a mounted key: files of Secrets and ConfigMaps belong to
root and to the pod's fsGroup, their mode is `defaultMode` with the group's read bit added, and the names
are links into a folder that is swapped as a whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.cluster.manifests import NotThereYet, Pod

DATA = "..data"
# A claim's volume and an emptyDir: the group may write, and what is made in them stays the group's.
_SHARED = 0o2775

Data = Callable[[str, str], Mapping[str, bytes] | None]


class Volumes:
    """Of all pods; claims are kept by their names as long as the cluster."""

    def __init__(self, folder: Path, data: Data) -> None:
        """`data(kind, name)`: the files of a ConfigMap or Secret, or None."""
        self._folder = folder
        self._data = data
        self._filled: dict[Path, Any] = {}

    def of(self, pod: Pod) -> dict[str, Path]:
        """Volume name to folder, made anew but for claims. LookupError for what is not there or not known."""
        made: dict[str, Path] = {}
        home = self._folder / "pods" / pod.name
        shutil.rmtree(home, ignore_errors=True)
        for volume in pod.spec.get("volumes", ()):
            made[volume["name"]] = self._one(pod, volume, home / volume["name"])
        for name, claim in pod.claims.items():
            made[name] = self.claim(claim, pod.group)
        return made

    def claim(self, name: str, group: int = 0) -> Path:
        """The folder of a PersistentVolumeClaim."""
        folder = self._folder / "claims" / name
        if not folder.exists():
            folder.mkdir(parents=True)
        os.chown(folder, 0, group)
        folder.chmod(_SHARED)
        return folder

    def _one(self, pod: Pod, volume: Mapping[str, Any], folder: Path) -> Path:
        (kind,) = set(volume) - {"name"}
        source = volume[kind]
        if kind == "persistentVolumeClaim":
            return self.claim(source["claimName"], pod.group)
        folder.mkdir(parents=True)
        if kind == "emptyDir":
            os.chown(folder, 0, pod.group)
            folder.chmod(0o2777)
        else:
            self._fill(folder, self._files_of(pod, kind, source), source.get("defaultMode", 0o644), pod.group)
        return folder

    def refresh(self, pod: Pod, made: Mapping[str, Path]) -> None:
        """What became of ConfigMaps and Secrets since appears in the pod, as with the kubelet."""
        for volume in pod.spec.get("volumes", ()):
            (kind,) = set(volume) - {"name"}
            folder, source = made[volume["name"]], volume[kind]
            if folder in self._filled:
                files = self._files_of(pod, kind, source)
                if files != self._filled[folder]:
                    self._fill(folder, files, source.get("defaultMode", 0o644), pod.group)

    def _files_of(
        self, pod: Pod, kind: str, source: Mapping[str, Any]
    ) -> dict[str, tuple[bytes, int | None]]:
        if kind in ("configMap", "secret"):
            return self._files(pod, kind, source)
        if kind != "projected":
            raise LookupError(f"{pod.owner}: a volume of kind {kind} is not understood by these tests")
        files: dict[str, tuple[bytes, int | None]] = {}
        for each in source["sources"]:
            (inner,) = each
            if inner not in ("configMap", "secret"):
                raise LookupError(f"{pod.owner}: a projected {inner} is not understood by these tests")
            files |= self._files(pod, inner, each[inner])
        return files

    def _fill(
        self, folder: Path, files: Mapping[str, tuple[bytes, int | None]], mode: int, group: int
    ) -> None:
        inside = Path(tempfile.mkdtemp(dir=folder, prefix="..at-"))
        for name, (value, own_mode) in files.items():
            path = inside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
            os.chown(path, 0, group)
            path.chmod((own_mode if own_mode is not None else mode) | (0o040 if group else 0))
        for each in (inside, folder):
            os.chown(each, 0, group)
            each.chmod(0o2755)
        link = folder / "..new"
        link.symlink_to(inside.name)
        link.replace(folder / DATA)
        for top in {Path(name).parts[0] for name in files}:
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(f"{DATA}/{top}")
        self._filled[folder] = dict(files)

    def _files(self, pod: Pod, kind: str, source: Mapping[str, Any]) -> dict[str, tuple[bytes, int | None]]:
        name = source.get("secretName") or source.get("name")
        found = self._data("ConfigMap" if kind == "configMap" else "Secret", str(name))
        if found is None:
            if source.get("optional"):
                return {}
            raise NotThereYet(f"{pod.owner}: needs {kind} {name}")
        if "items" not in source:
            return {key: (value, None) for key, value in found.items()}
        missing = [item["key"] for item in source["items"] if item["key"] not in found]
        if missing and not source.get("optional"):
            raise NotThereYet(f"{pod.owner}: {kind} {name} has no {', '.join(missing)}")
        return {
            item["path"]: (found[item["key"]], item.get("mode"))
            for item in source["items"]
            if item["key"] in found
        }
