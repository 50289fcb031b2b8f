"""The Grafana dashboard: `python -m tools.dashboard` writes it, the tests compare.

What it shows is in tools/dashboard_rows.py; this is how that becomes Grafana's JSON. It runs on Grafana 9 or
newer with any Prometheus data source, which is chosen on the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.dashboard_rows import ROWS, Panel

FILE = Path(__file__).resolve().parents[1] / "helm/sovereign-mesh/files/dashboards/sovereign-mesh.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana has it."""
    return {
        "uid": "sovereign-mesh",
        "title": "Sovereign Mesh",
        "description": "Nodes, borders, evidence and control planes. Made by tools/dashboard.py.",
        "tags": ["sovereign-mesh"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": list(_panels()),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "current": {}, "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1,
        },
        _query_variable("job", "Job", "build_info"),
        _query_variable("instance", "Daemon", 'build_info{job=~"$job"}'),
        _query_variable("trust_domain", "Authority", 'record_age_seconds{job=~"$job"}'),
    ]  # fmt: skip


def _query_variable(name: str, label: str, series: str) -> dict[str, Any]:
    """All values of the label `name` that these series have."""
    query = f"label_values(sovereign_mesh_{series}, {name})"
    return {
        "name": name, "label": label, "type": "query", "datasource": _SOURCE,
        "query": {"query": query, "refId": "StandardVariableQuery"}, "definition": query,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "includeAll": True,
        "multi": True, "allValue": ".*", "hide": 0, "options": [], "refresh": 2, "regex": "", "sort": 1,
    }  # fmt: skip


def _panels() -> Iterable[dict[str, Any]]:
    number, y = 1, 0
    for title, panels in ROWS:
        yield {
            "id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"h": 1, "w": _WIDTH, "x": 0, "y": y},
        }  # fmt: skip
        number, y, x, high = number + 1, y + 1, 0, 0
        for panel in panels:
            if x + panel.width > _WIDTH:
                x, y, high = 0, y + high, 0
            yield _panel(panel, number, {"h": panel.height, "w": panel.width, "x": x, "y": y})
            number, x, high = number + 1, x + panel.width, max(high, panel.height)
        y += high


def _panel(panel: Panel, number: int, where: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in ("table", "stat", "bargauge")
    targets = [
        {
            "refId": chr(ord("A") + i), "datasource": _SOURCE, "editorMode": "code", "expr": expression,
            "legendFormat": legend, "instant": instant, "range": not instant,
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for i, (expression, legend) in enumerate(panel.queries)
    ]  # fmt: skip
    steps = [{"value": value, "color": colour} for value, colour in panel.thresholds]
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.help,
        "datasource": _SOURCE, "gridPos": where, "targets": targets, "options": _OPTIONS[panel.kind],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "min": 0, "mappings": [],
                "thresholds": {"mode": "absolute", "steps": steps},
                "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
                **({"custom": _custom(panel)} if panel.kind == "timeseries" else {}),
            },
            "overrides": [_named(target) for target in targets] if panel.kind == "table" else [],
        },
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }  # fmt: skip


def _named(target: dict[str, Any]) -> dict[str, Any]:
    """A column of a table by its query's legend."""
    return {
        "matcher": {"id": "byName", "options": f"Value #{target['refId']}"},
        "properties": [{"id": "displayName", "value": target["legendFormat"]}],
    }


# One line a daemon, without what is the same in all.
_TABLE = [
    {"id": "merge", "options": {}},
    {"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True, "endpoint": True}}},
]
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value", "graphMode": "area", "justifyMode": "auto",
        "textMode": "auto", "orientation": "auto",
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
    "bargauge": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "gradient", "orientation": "horizontal", "showUnfilled": True,
    },
}  # fmt: skip


def _custom(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if panel.stacked else 8, "showPoints": "never",
        "spanNulls": False, "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }  # fmt: skip


def render() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
