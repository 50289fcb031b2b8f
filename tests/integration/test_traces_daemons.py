"""Traces of the daemons as they are run: turned on by the configuration file, sent before the end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mesh.core.types import SpiffeId
from tests.integration.test_traces import CHAT, PLACE
from tests.support.collector import collector
from tests.support.control import client_of, control_of
from tests.support.mesh import context, mesh_of
from tests.support.node_process import node_process
from tests.support.waiting import until

pytestmark = pytest.mark.slow

CLINICAL = context(["special-category"])
PROMPT = "Wilhelmine Zufallsname"


async def test_a_node_sends_what_it_has_before_it_ends_and_its_log_says_which_request(tmp_path: Path):
    async with collector() as there:
        settings = {
            "telemetry": {"traces": {"endpoint": there.endpoint, "sample_ratio": 1.0}},
            "log": {"format": "json", "level": "debug"},
        }
        async with node_process(tmp_path, settings=settings) as node:
            clinic = node.mesh["DE"].caller("wilhelmine/desk")
            placed = await clinic.place(CLINICAL)
            permit = placed.targets[0].permit.SerializeToString()
            assert await clinic.chat(node, CLINICAL, PROMPT, permit=permit)
            node.process.send_signal(signal.SIGTERM)
            assert await node.ended() == 0
            decisions, lines = node.decisions, node.lines
            log = node.log.read_text()
        place, chat = there.named(PLACE)[0], there.named(CHAT)[0]
        assert place.instance == chat.instance == str(node.id)
        assert [names for names, _ in there.named("chat")[0].events] == ["gen_ai.first_token"]
        # One id in log, evidence and trace.
        (served,) = [entry for entry in decisions if entry["kind"] == "serve"]
        (line,) = [line for line in lines if line.get("method") == CHAT]
        assert line["request_id"] == served["id"] == chat.attributes["sovereign.mesh.request.id"]
        assert (line["trace_id"], line["span_id"]) == (chat.trace, chat.id)
        assert (line["code"], line["caller"]) == ("OK", "client of de.mesh.example")
        for word in (*PROMPT.split(), "wilhelmine", "desk"):
            assert word not in log
            assert word.encode() not in b"".join(there.received)


async def test_a_control_plane_has_traces_of_its_own(tmp_path: Path):
    async with collector() as there, mesh_of(tmp_path / "mesh", "DE") as mesh:
        home = mesh["DE"]
        await home.node("fra-1")
        tracing = there.tracing(SpiffeId(home.trust_domain, "/control/main"))
        async with control_of(home.identity.ca, mesh.board, tmp_path, tracing=tracing) as control:
            await control.plane.board.wait_for(lambda snapshot: snapshot.candidates, 10)
            home.nodes.clear()  # so that the control plane is asked
            async with client_of(mesh, "DE/clinic", control.server) as client:
                placement = await client.place(CLINICAL, model="scripted")
            await until(lambda: there.named(PLACE))
        (span,) = there.named("placement")
        assert there.path(span) == [PLACE, "placement"]
        assert span.instance == "spiffe://de.mesh.example/control/main"
        assert span.attributes["sovereign.mesh.decision.id"] == placement.decision.id
