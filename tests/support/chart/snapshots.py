"""What the examples render to, kept in tests/helm/snapshots so that a change of the chart shows what it
changes.

    python -m tests.support.chart.snapshots

writes them anew. Normalised: sorted, without what changes with every release (the chart's version, the
digests in names of Jobs) and without the text of files that are in the chart as they are.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart.cases import EXAMPLE_CASES
from tests.support.chart.rendering import CHART, Case, Manifest, manifests, template
from tests.support.chart_tools import ROOT

SNAPSHOTS = ROOT / "tests" / "helm" / "snapshots"
_JOB = re.compile(r"-[0-9a-f]{8}$")


class _Text(yaml.SafeDumper):
    """Files in ConfigMaps as people read them."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Text.add_representer(str, _text)


def _as_it_is(value: Any, files: set[str]) -> Any:
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            if key in {"helm.sh/chart", "app.kubernetes.io/version"} or key.startswith("checksum/"):
                continue
            result[key] = "(the file)" if key in files and isinstance(item, str) else _as_it_is(item, files)
        return result
    if isinstance(value, list):
        return [_as_it_is(item, files) for item in value]
    return value


def normalised(found: list[Manifest]) -> str:
    """The objects as text, one YAML document each."""
    files = {path.name for path in (CHART / "files").rglob("*") if path.is_file()}
    documents = []
    for manifest in found:
        plain = _as_it_is(manifest, files)
        if plain["kind"] == "Job":
            plain["metadata"]["name"] = _JOB.sub("-DIGEST", plain["metadata"]["name"])
        documents.append(plain)
    documents.sort(key=lambda item: (item["kind"], item["metadata"]["name"]))
    return yaml.dump_all(documents, Dumper=_Text, sort_keys=True, width=120, default_flow_style=None)


def path_of(case: Case) -> Path:
    """Where the snapshot of an example is kept."""
    return SNAPSHOTS / f"{case.name}.yaml"


def main() -> None:
    """Write all of them, and remove those of examples that are gone."""
    SNAPSHOTS.mkdir(exist_ok=True)
    for old in set(SNAPSHOTS.glob("*.yaml")) - {path_of(case) for case in EXAMPLE_CASES}:
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        for case in EXAMPLE_CASES:
            result = template(case, Path(folder))
            if result.returncode:
                raise SystemExit(f"{case.name}: {result.stderr}")
            path_of(case).write_text(normalised(manifests(result.stdout)))
            print(path_of(case).relative_to(ROOT))


if __name__ == "__main__":
    main()
