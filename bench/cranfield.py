"""What federating costs in quality on Cranfield: nothing, and what the wrong ways of it would cost.

    python -m bench.cranfield [--json FILE]

1,400 abstracts over five nodes, each with a topic of its own (k-means), 225 judged questions; the central
ranking is that of one index in float64. Beside the way that the mesh merges: with every node rounding
document frequencies below 5 up to 5 (a holder's threshold for statistics), and with every node weighing by
its own statistics, which is a common way and the wrong one. Overlap is the mean share of the central top
10 or 100 that is found. The collection lies beside the repository: tests/support/cranfield.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean

from mesh.core.types import SpiffeId
from tests.support import cranfield
from tests.support.shards import Central, Hit, by_topic, federated, spread

NODES = [SpiffeId(f"{country}.mesh.example", "/node/n") for country in ("de", "fr", "us", "it", "nl")]
THRESHOLD = 5
MODES = ("vector", "keyword", "hybrid")

Rankings = list[dict[str, list[bytes]]]


def measure() -> list[dict[str, object]]:
    """A row for each way and mode: the metrics, and how much of the central ranking is found."""
    collection = cranfield.load()
    corpus, questions = collection.corpus, collection.questions
    homes = by_topic(corpus.vectors, len(NODES), seed=5)
    index = Central(corpus, [NODES[home] for home in homes])
    exact = spread(corpus, homes, NODES)
    withheld = spread(corpus, homes, NODES, THRESHOLD)
    central = [_ids(index.rank(question)) for question in questions]
    ways: dict[str, Rankings] = {
        "central": central,
        "federated": [_ids(federated(exact, question)) for question in questions],
        f"statistics from {THRESHOLD} on": [_ids(federated(withheld, question)) for question in questions],
        "local statistics": [
            _ids(federated(exact, question, local_statistics=True)) for question in questions
        ],
    }
    return [
        {
            "way": way,
            "mode": mode,
            **dict(
                zip(
                    cranfield.METRICS,
                    cranfield.means([each[mode] for each in rankings], collection.judged),
                    strict=True,
                )
            ),
            "overlap@10": _overlap(rankings, central, mode, 10),
            "overlap@100": _overlap(rankings, central, mode, 100),
            "same top 100": fmean(
                found[mode] == right[mode] for found, right in zip(rankings, central, strict=True)
            ),
        }
        for way, rankings in ways.items()
        for mode in MODES
    ]


def table(rows: list[dict[str, object]]) -> str:
    """Markdown."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for row in rows:
        cells = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ids(found: dict[str, list[Hit]]) -> dict[str, list[bytes]]:
    return {mode: [each for each, _ in hits] for mode, hits in found.items()}


def _overlap(rankings: Rankings, central: Rankings, mode: str, top: int) -> float:
    """Questions to which the central index finds nothing do not count."""
    return fmean(
        len(set(found[mode][:top]) & set(right[mode][:top])) / len(right[mode][:top])
        for found, right in zip(rankings, central, strict=True)
        if right[mode]
    )


def main() -> int:
    """Prints the table; 1 where the collection is not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    if why_not := cranfield.why_not():
        print(why_not, file=sys.stderr)
        return 1
    rows = measure()
    print(table(rows))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
