"""Rules, dashboard and metrics before Prometheus itself: promtool's checks and tests, and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.ports import free_ports
from tests.support.mesh import context
from tests.support.node_process import node_process
from tests.support.prometheus import ROOT, RULES, program, promtool
from tools import dashboard

pytestmark = pytest.mark.slow

TESTS = sorted((ROOT / "tests/promtool").glob("*.test.yaml"))
DEADLINE_S = 60.0


def queries() -> list[str]:
    """The dashboard's, with Grafana's variables filled in as it does."""
    found = []
    for panel in dashboard.dashboard()["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
            for name in ("job", "instance", "trust_domain"):
                query = query.replace(f"${name}", ".*")
            found.append(query)
    return found


def test_the_rules_are_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_alerts_fire_when_they_should_and_not_else(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", file.name, cwd=file.parent)


def test_an_alert_that_does_not_fire_would_be_noticed(tmp_path: Path) -> None:
    """The tests can fail: expecting nothing where something fires is an error."""
    wrong = yaml.safe_load((ROOT / "tests/promtool/daemons.test.yaml").read_text())
    wrong["rule_files"] = [str(RULES)]
    wrong["tests"] = wrong["tests"][:1]
    for expected in wrong["tests"][0]["promql_expr_test"]:
        expected["exp_samples"] = []
    file = tmp_path / "wrong.test.yaml"
    file.write_text(yaml.safe_dump(wrong))
    with pytest.raises(AssertionError, match="MeshNotScraped"):
        promtool("test", "rules", file)


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{i}", "expr": query} for i, query in enumerate(queries())]
    assert len(rules) > 40
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def ask(port: int, path: str, **parameters: str) -> Any:
    """Prometheus' API; None while it does not answer."""
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def values(port: int, query: str) -> Any:
    """The series of an instant query; None while there is no answer."""
    found = ask(port, "/api/v1/query", query=query)
    return found["result"] if found is not None else None


async def until(what: Callable[[], Any]) -> Any:
    """What it gives, once that is something."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await asyncio.to_thread(what)):  # noqa: ASYNC110  it has no stream of events
            await asyncio.sleep(0.1)
    return found


@contextlib.asynccontextmanager
async def prometheus(folder: Path, *targets: str) -> AsyncIterator[int]:
    """A server that scrapes these and evaluates the rules, every second; its port."""
    (port,) = free_ports(1)
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group.pop("interval", None)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "mesh", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(program("prometheus")), f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
            stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield port
    finally:
        process.kill()
        await process.wait()


async def test_a_server_scrapes_a_node_and_evaluates_every_rule(tmp_path: Path) -> None:
    program("prometheus")  # before a node is started for nothing
    (metrics,) = free_ports(1)
    address = f"127.0.0.1:{metrics}"
    served = tmp_path / "node"
    served.mkdir()
    async with (
        node_process(served, settings={"telemetry": {"listen": address}}) as node,
        prometheus(tmp_path, address) as port,
    ):
        caller = node.mesh["DE"].caller("clinic")
        await caller.place(context(["special-category"]))

        def up() -> Any:
            found = ask(
                port, "/api/v1/query", query='up{job="mesh"} == 1 and on () sovereign_mesh_ready == 1'
            )
            return found and found["result"]

        await until(up)

        def evaluated() -> Any:
            found = ask(port, "/api/v1/rules")
            rules = [rule for group in (found or {"groups": ()})["groups"] for rule in group["rules"]]
            return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

        rules = await until(evaluated)
        assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
        firing = {rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] == "firing"}
        assert firing == set()
        # What the rules and the dashboard look at is there under these names.
        for name in ("certificate_expiry_timestamp_seconds", "placement_decisions_total", "evidence_entries"):
            assert await until(lambda name=name: values(port, f"sovereign_mesh_{name}")), name
        for query in queries():
            assert await asyncio.to_thread(values, port, query) is not None, query
