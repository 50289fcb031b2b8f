"""What a test installs of the chart in a cluster of this folder: our image, and a scripted engine."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mesh.store.etcd_server import find_etcd
from tests.support.chart.rendering import Manifest

ROOT = Path(__file__).parents[3]
SCRIPTED: Mapping[str, Any] = {
    "model": {"source": "none", "name": ""},
    "node": {"engine": {"kind": "scripted"}, "retrieval": {"enabled": False}, "witnesses": 0},
}


def image() -> dict[str, Path]:
    """What our image and etcd's have, where these tests have it: installed here, it is a way to these sources
    and this interpreter, wherever they lie."""
    interpreter = Path(sys.base_prefix)
    return {
        "/opt/sovereign-mesh": ROOT / ".venv",
        "/usr/local/bin": Path(find_etcd()).resolve().parent,
        str(ROOT): ROOT,
        str(interpreter): interpreter,
    }


def runnable(manifests: Iterator[Manifest] | tuple[Manifest, ...]) -> list[Manifest]:
    """The wheel's etcd is older than the one that the chart asks for, and has no /readyz yet."""
    made = []
    for manifest in copy.deepcopy(list(manifests)):
        if manifest["kind"] == "StatefulSet" and manifest["metadata"]["name"].endswith("-etcd"):
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
                container["readinessProbe"]["httpGet"]["path"] = "/health"
        made.append(manifest)
    return made
