"""How a benchmark is run from the command line and says what it found."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure.

    `reach` is what it should be at most (at least, if `at_least`), None where it is only stated;
    `against` is the alternative's own figure, measured in the same run.
    """

    what: str
    value: float
    unit: str
    reach: float | None = None
    against: float | None = None
    at_least: bool = False

    @property
    def reached(self) -> str:
        """ "yes", "NO", or nothing where there is no aim."""
        if self.reach is None:
            return ""
        held = self.value >= self.reach if self.at_least else self.value <= self.reach
        return "yes" if held else "NO"

    @property
    def aim(self) -> str:
        """The aim, for people."""
        if self.reach is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.reach:g} {self.unit}".strip()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 <= share <= 1."""
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def command(
    description: str | None, measure: Callable[..., list[Row]], flags: Mapping[str, str] | None = None
) -> int:
    """`--quick` and `--json FILE`; prints a line for each row.

    `flags` are further switches with their help; `measure` gets them by name, after `quick`.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    for name, words in (flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=words)
    arguments = parser.parse_args()
    rows = measure(arguments.quick, **{name: getattr(arguments, name) for name in flags or {}})
    for row in rows:
        against = f"against {row.against:.3f}" if row.against is not None else ""
        print(f"{row.what:64} {row.value:9.2f} {row.unit:14} {row.aim:16} {row.reached:4} {against}".rstrip())
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0
