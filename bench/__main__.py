"""`make bench`: runs every benchmark, one after the other, and prints all figures as one table.

    python -m bench [NAME ...] [--quick] [--write]

`--write` puts the table into docs/benchmarks.md, between its two markers; of what did not run this time,
the figures of last time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from bench.report import Row

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
BENCHES = (
    "placement",
    "policy_proof",
    "propagation",
    "gateway",
    "engine",
    "retrieval",
    "evidence",
    "telemetry",
)


def run(name: str, quick: bool) -> list[Row]:
    """One benchmark, in a process of its own so that none disturbs the next."""
    found = _found(name)
    command = [sys.executable, "-m", f"bench.bench_{name}", "--json", str(found)]
    subprocess.run([*command, *(["--quick"] if quick else [])], cwd=ROOT, check=True)
    return earlier(name)


def earlier(name: str) -> list[Row]:
    """What a benchmark found when it last ran; nothing if it never did."""
    return [Row(**row) for row in json.loads(_found(name).read_text())] if _found(name).exists() else []


def _found(name: str) -> Path:
    return ROOT / ".bench" / f"{name}.json"


def table(results: dict[str, list[Row]]) -> str:
    """Markdown."""
    lines = [
        "| bench | what | measured | against | reach | reached |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in results.items():
        for row in rows:
            against = f"{row.against:.3g}" if row.against is not None else ""
            cells = (name, row.what, f"{row.value:.3g} {row.unit}".strip(), against, row.aim, row.reached)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Every figure of docs/benchmarks.md."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all of them if none"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that all of it runs")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(BENCHES):
        parser.error(f"there is no {' or '.join(sorted(unknown))}")
    results: dict[str, list[Row]] = {}
    for name in BENCHES:
        if arguments.names and name not in arguments.names:
            continue
        began = time.monotonic()
        print(f"\n{name} …", flush=True)
        results[name] = run(name, arguments.quick)
        print(f"{name}: {time.monotonic() - began:.0f} s")
    text = table(results)
    print("\n" + text)
    if arguments.write:
        text = table({name: results.get(name) or earlier(name) for name in BENCHES})
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
        print(f"written to {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
