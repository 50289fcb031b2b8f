"""One renderer for all tests of the chart in a run, so that each case is rendered once."""

from __future__ import annotations

import pytest

from tests.support.chart.rendering import Renderer
from tests.support.chart_tools import tool


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Renderer:
    """Renders a case. Parallel processes share what each of them has rendered."""
    tool("helm")
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    folder = base / "chart-renders"
    folder.mkdir(exist_ok=True)
    return Renderer(folder)
