"""What the examples render to is what was looked at last."""

from __future__ import annotations

import difflib

import pytest

from tests.support.chart.cases import EXAMPLE_CASES
from tests.support.chart.rendering import Case, Renderer
from tests.support.chart.snapshots import SNAPSHOTS, normalised, path_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", EXAMPLE_CASES, ids=lambda case: case.name)
def test_an_example_renders_to_its_snapshot(case: Case, render: Renderer) -> None:
    kept, now = path_of(case).read_text(), normalised(list(render(case).manifests))
    difference = difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", lineterm="", n=2)
    assert kept == now, "if this is meant: python -m tests.support.chart.snapshots\n" + "\n".join(
        list(difference)[:80]
    )


def test_there_is_a_snapshot_for_each_example_and_no_other() -> None:
    assert set(SNAPSHOTS.glob("*.yaml")) == {path_of(case) for case in EXAMPLE_CASES}
    assert len(EXAMPLE_CASES) >= 3
