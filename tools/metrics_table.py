"""Writes docs/metrics.md from mesh/telemetry/metrics.py: every metric, its labels, and who shows it.

`python -m tools.metrics_table` writes the file, with `--check` it only looks whether it is current, as
tools/check_generated.sh and tests/architecture/test_docs.py do. Names and labels come from the code; which
section a metric stands in, and the words around them, are below.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from mesh.telemetry import metrics
from mesh.telemetry.metrics import BOTH, CATALOGUE, MAX_COLLECTIONS, MAX_ROUTES, MAX_TRUST_DOMAINS, Metric

FILE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

_INTRODUCTION = f"""# Metrics

Made by `tools/metrics_table.py` from `mesh/telemetry/metrics.py`; change it there.

`telemetry.listen` makes a daemon serve `/metrics` over plain HTTP, in Prometheus' text format and
as OpenMetrics, and `/livez` and `/readyz` beside it ([operations.md](operations.md)). Without that
setting nothing is counted.

**Nothing of a payload and nothing of a tenant is in it**, its name included: not a caller, not a
purpose, not a document, not a query. A label's values are those of a closed set, or of the daemon's
own configuration and records up to a bound: {MAX_TRUST_DOMAINS} trust domains, {MAX_COLLECTIONS}
collections, {MAX_ROUTES} pairs of countries, methods that are served. What a caller invents makes
no series. A node that uses everything has some thousand series, most of them buckets of how long calls
took.

Metrics are for operating. They are kept in memory, begin at nought with the process and are signed
by nobody: what has to be proved is in the decision log ([evidence.md](evidence.md)).

Beside these, each daemon shows `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_virtual_memory_bytes`, `process_start_time_seconds`, `process_open_fds` and
`process_max_fds` of its own process. What an engine's processes use is not in them.
"""

_SECTIONS: dict[str, tuple[str, tuple[Metric, ...]]] = {
    "Calls": (
        "Every method of every service, those of gRPC itself (health, reflection) included. A method that"
        " nobody serves is `other`. A call whose caller left is `CANCELLED`; one that was cut off by the"
        " node, since it is no longer permitted, has its code and its reason like any refusal.",
        (
            metrics.RPC_STARTED,
            metrics.RPC_HANDLED,
            metrics.RPC_DURATION,
            metrics.RPC_IN_FLIGHT,
            metrics.REFUSALS,
            metrics.RPC_CLIENT_HANDLED,
            metrics.RPC_CLIENT_DURATION,
        ),
    ),
    "Decisions and flows": (
        "Placing is asked of any daemon; a receiver decides again by itself (I2), which is counted apart."
        " A flow is counted where it arrives, once, after it is on record; a release of texts at the node"
        " that holds them. A request that carries several classes counts by the most sensitive one. `from`"
        " is the country of the asking node or of the caller's authority, `to` where the node stands; for"
        " a release, where it stood and the country of the requester's authority.",
        (
            metrics.PLACEMENT_DECISIONS,
            metrics.PLACEMENT_DURATION,
            metrics.RECEIVER_DECISIONS,
            metrics.FLOWS,
        ),
    ),
    "The engine": (
        "Of a node. Tokens are counted when a generation ends, not one by one. What answers from"
        " documents generate is not counted.",
        (
            metrics.ENGINE_STATE,
            metrics.ENGINE_CAPACITY,
            metrics.ENGINE_RUNNING,
            metrics.ENGINE_WAITING,
            metrics.ENGINE_QUEUE,
            metrics.ENGINE_FIRST_TOKEN,
            metrics.ENGINE_TOKENS,
            metrics.ENGINE_MODEL,
        ),
    ),
    "The board, identity and the authority": (
        "Borders close for an authority whose `record_age_seconds` passes its `record_age_limit_seconds`"
        " (I4).",
        (
            metrics.BOARD_CONNECTED,
            metrics.RECORD_AGE,
            metrics.RECORD_AGE_LIMIT,
            metrics.RECORDS,
            metrics.RECORDS_REFUSED,
            metrics.CERTIFICATE_NOT_BEFORE,
            metrics.CERTIFICATE_EXPIRY,
            metrics.CERTIFICATE_RENEWAL_FAILING,
            metrics.HEADS_AGE,
            metrics.ENROLMENTS,
        ),
    ),
    "Evidence": (
        "Of the log of decisions.",
        (metrics.EVIDENCE_ENTRIES, metrics.EVIDENCE_CHECKPOINT_AGE, metrics.EVIDENCE_COSIGNED_LAG),
    ),
    "Documents": (
        "Of a node that holds some.",
        (metrics.INDEX_STATE, metrics.INDEX_DOCUMENTS, metrics.INDEX_CHUNKS, metrics.INDEX_BEHIND),
    ),
    "The daemon": (
        "",
        (
            metrics.READY,
            metrics.DRAINING,
            metrics.LIVE_CALLS,
            metrics.LOOP_DELAY,
            metrics.SCRAPE_FAILURES,
            metrics.BUILD_INFO,
        ),
    ),
}


def sectioned() -> list[Metric]:
    """Every metric that stands in a section, as often as it does."""
    return [metric for _, listed in _SECTIONS.values() for metric in listed]


def render() -> str:
    """The whole file."""
    missing = set(map(_name, CATALOGUE)) - set(map(_name, sectioned()))
    if missing:
        raise SystemExit(f"tools/metrics_table.py has no section for {', '.join(sorted(missing))}")
    parts = ["\n\n".join(map(_wrapped, _INTRODUCTION.strip().split("\n\n"))) + "\n"]
    for title, (words, listed) in _SECTIONS.items():
        parts.append(f"\n## {title}\n\n" + (f"{_wrapped(words)}\n\n" if words else ""))
        parts.append("| metric | type | labels | shown by | what it is |\n| --- | --- | --- | --- | --- |\n")
        parts += [_row(metric) for metric in listed]
        parts += _label_words(listed)
    return "".join(parts)


def _wrapped(paragraph: str) -> str:
    """As the other documents are."""
    words = " ".join(paragraph.split())
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False)


def _name(metric: Metric) -> str:
    return metric.name


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    daemons = "both" if metric.daemons == BOTH else ", ".join(f"`{each}`" for each in metric.daemons)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {daemons} | {metric.help} |\n"


def _label_words(listed: tuple[Metric, ...]) -> list[str]:
    """Each label of a section with what its values are, where they differ by metric each of them."""
    found: dict[tuple[str, str], None] = {}
    for metric in listed:
        found |= {(label, values): None for label, values in metric.labels.items()}
    if not found:
        return []
    return [
        "\n| label | values |\n| --- | --- |\n",
        *(f"| `{label}` | {values} |\n" for label, values in found),
    ]


def main(arguments: list[str]) -> int:
    """Writes the file, or with `--check` says whether it is current."""
    if "--check" not in arguments:
        FILE.write_text(render())
        return 0
    if FILE.read_text() == render():
        return 0
    print(
        'drift: docs/metrics.md is not what the code says; run "python -m tools.metrics_table"',
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
