"""`python -m tools.chart.generate`: values.schema.json and README.md of the chart, from values.yaml.

values.schema.json is what `helm` checks values with, strictly: unknown keys are errors. README.md opens with
the text of README.head.md, which people write, and goes on with a table of all values. With --check nothing
is written, and a file that differs is exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.chart.values import Value, ValuesError, read_values

CHART = Path(__file__).resolve().parents[2] / "helm" / "sovereign-mesh"
HEAD = "README.head.md"


def schema_of(values: Sequence[Value]) -> str:
    """values.schema.json."""
    document = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart sovereign-mesh",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{value.path: dict(value.schema) for value in values},
            # Helm passes this to every chart that is part of another one.
            "global": {"type": "object", "additionalProperties": True},
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def readme_of(head: str, values: Sequence[Value]) -> str:
    """README.md: `head`, then each top-level value with everything under it."""
    parts = [head.rstrip(), "", "## Values", ""]
    parts += ["Generated from `values.yaml` (`python -m tools.chart.generate`).", ""]
    single = [value for value in values if not value.children]
    if single:
        parts += [*_table(single), ""]
    for value in values:
        if value.children:
            parts += [f"### {value.path}", "", value.description, "", *_table(list(value.leaves())), ""]
    return "\n".join(parts).rstrip() + "\n"


def _table(values: Sequence[Value]) -> list[str]:
    rows = ["| value | default | what |", "| --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        what = value.description
        if "enum" in value.schema:
            what += f" One of {', '.join(f'`{choice}`' for choice in value.schema['enum'])}."
        rows.append(f"| `{value.path}` | `{_cell(default)}` | {_cell(what)} |")
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: Sequence[str] | None = None, chart: Path = CHART) -> int:
    """The command: 0 done or nothing differs, 1 a file differs or values.yaml breaks its own rules."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file differs")
    options = parser.parse_args(arguments)
    try:
        values = read_values((chart / "values.yaml").read_text())
    except ValuesError as error:
        print(f"values.yaml: {error}", file=sys.stderr)
        return 1
    made = {
        chart / "values.schema.json": schema_of(values),
        chart / "README.md": readme_of((chart / HEAD).read_text(), values),
    }
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            print(f"{path.name} is stale: run python -m tools.chart.generate", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path])
        print(f"{path.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
