"""meshctl against a running control plane and node: an authority's day, from founding to revoking."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.client import Finished, MeshClient, RequestContext, Sampling, Token
from mesh.evidence import MemoryDecisionLog
from mesh.identity.ca import CertificateAuthority
from mesh.identity.source import SvidSource
from mesh.sdk.profile import ControlPlane, Profile
from mesh.store.memory import MemoryBoard, MemoryStore
from node.engine.scripted import ScriptedEngine
from node.runtime import NodeParts, NodeRuntime
from tests.support.control import control_of
from tests.support.meshctl import in_thread

ROOT = Path(__file__).parents[2]
DE_POLICY = ROOT / "examples" / "policies" / "de.cedar"
DEADLINE_S = 20.0

pytestmark = pytest.mark.slow


class Meshctl:
    """Runs meshctl in a thread of this process, as the profile says."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile

    async def __call__(self, *arguments: object) -> tuple[int, str, str]:
        return await in_thread(*arguments, "--profile", self.profile)

    async def json(self, *arguments: object) -> dict[str, Any]:
        code, out, err = await self(*arguments, "--output", "json")
        assert (code, err) == (0, "")
        return dict(json.loads(out))

    async def text(self, *arguments: object) -> str:
        code, out, err = await self(*arguments)
        assert (code, err) == (0, "")
        return out

    async def refused(self, expected: int, *arguments: object) -> tuple[str, dict[str, Any]]:
        """Standard output, and the error."""
        code, out, err = await self(*arguments, "--output", "json")
        assert (code, err.count("\n")) == (expected, 1), err
        return out, dict(json.loads(err)["error"])


class Day:
    """A founded authority with its control plane running, and what meshctl made of it."""

    def __init__(self, root: Path, board: MemoryBoard, admin: Meshctl, enrolment: str) -> None:
        self.root = root
        self.board = board
        self.admin = admin
        self.enrolment = enrolment
        self.engine = ScriptedEngine()
        self._closing = contextlib.AsyncExitStack()

    async def join(self, name: str = "fra-1", **facts: str) -> NodeRuntime:
        """Token, enrolment, and a running node with what came of it."""
        country = {"location": "DE", "operator": "DE", "controller": "DE", "admin-access": "DE", **facts}
        options = [part for key, value in country.items() for part in (f"--{key}", value)]
        token = (await self.admin.text("node", "token", name, *options)).strip()
        out = self.root / "nodes" / name
        bundle = self.root / "de" / "bundle.json"
        code, _, err = await in_thread("node", "enroll", "--token", token, "--control", self.enrolment,
            "--trust-bundle", bundle, "--out", out,
        )  # fmt: skip
        assert (code, err) == (0, "")
        runtime = NodeRuntime(
            NodeParts(
                source=SvidSource.load(out, clock=time.time, random=random.random),
                store=MemoryStore(self.board),
                engine=self.engine,
                log=MemoryDecisionLog(),
                listen=("127.0.0.1:0",),
            )
        )
        self._closing.push_async_callback(runtime.stop)
        await runtime.start()
        await self.until(name, "ready")
        return runtime

    async def until(self, name: str, state: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while state not in await self.admin.text("node", "describe", name):
                pass

    async def client(self, runtime: NodeRuntime | None = None, name: str = "desk") -> Meshctl:
        """A client of the tenant "clinic" whose profile names the node as its home."""
        out = self.root / "clients" / name
        await self.admin.json("client", "issue", name, "--tenant", "clinic", "--out", out)
        if runtime is not None:
            profile = Profile.load(out)
            nodes = {runtime.id.name: runtime.endpoints[0]}
            profile.model_copy(update={"nodes": nodes, "identity": Path("identity")}).save(out)
        return Meshctl(out)

    async def aclose(self) -> None:
        await self._closing.aclose()


@pytest.fixture
async def day(tmp_path: Path) -> AsyncIterator[Day]:
    home = tmp_path / "de"
    code, _, err = await in_thread("authority", "init", home, "--trust-domain", "de.mesh.example")
    assert (code, err) == (0, "")
    board = MemoryBoard()
    async with control_of(CertificateAuthority.load(home / "ca"), board, tmp_path / "state") as control:
        plane = control.plane
        endpoints = ControlPlane(endpoint=plane.endpoint, enrolment=plane.enrolment_endpoint)
        profile = Profile.load(home / "admin")
        profile.model_copy(update={"control": endpoints, "identity": Path("identity")}).save(home / "admin")
        found = Day(tmp_path, board, Meshctl(home / "admin"), plane.enrolment_endpoint)
        try:
            await found.admin.json("policy", "apply", DE_POLICY)
            yield found
        finally:
            await found.aclose()


async def test_from_a_token_to_an_answer(day: Day):
    runtime = await day.join()
    listed = await day.admin.json("node", "list")
    assert [n["node"] for n in listed["nodes"]] == ["spiffe://de.mesh.example/node/fra-1"]
    table = await day.admin.text("node", "list")
    assert "fra-1" in table
    assert "ready" in table
    client = await day.client(runtime)
    question = ("--model", "scripted", "--class", "special-category", "--purpose", "care/triage")
    events = [
        json.loads(line)
        for line in (await client.text("chat", "hello", *question, "-o", "json")).splitlines()
    ]
    assert [e["event"] for e in events[:2]] == ["placed", "started"]
    assert events[-1]["event"] == "finished"
    answer = "".join(e["text"] for e in events if e["event"] == "token")
    assert (await client.text("chat", "hello", *question)).strip() == answer.strip()
    explained = await client.text("chat", "hello", *question, "--explain")
    assert "chosen" in explained
    embedded = await client.json("embed", "eins", "zwei", "--class", "public", "--purpose", "search/index")
    assert len(embedded["embeddings"]) == 2
    assert "DIMENSIONS" in await client.text(
        "embed", "eins", "--class", "public", "--purpose", "search/index"
    )
    models = await client.json("models")
    assert "scripted" in [m["name"] for m in models["models"]]
    status = await day.admin.json("status")
    assert status["board_connected"]
    assert status["fresh"] == ["de.mesh.example"]


async def test_a_refusal_has_a_reason_for_every_node_and_exit_code_3(day: Day):
    """Story step 4."""
    runtime = await day.join()
    client = await day.client(runtime)
    asked = ("--class", "special-category", "--purpose", "care/triage", "--jurisdiction", "US")
    out, error = await client.refused(3, "place", "--explain", *asked)
    assert error["reason"] == "NOT_PERMITTED"
    decision = json.loads(out)
    assert [r["reason"] for r in decision["refused"]] == ["NARROWED_JURISDICTION"]
    code, out, err = await client("place", "--explain", *asked)
    assert code == 3
    assert "NARROWED_JURISDICTION" in out
    assert err.count("\n") == 1
    _, error = await client.refused(3, "chat", "secret", "--model", "scripted", *asked)
    assert error["reason"] == "NOT_PERMITTED"
    assert day.engine.seen == 0


async def test_a_bad_policy_changes_nothing_and_names_its_line(day: Day, tmp_path: Path):
    before = await day.admin.json("policy", "show")
    bad = tmp_path / "bad.cedar"
    bad.write_text('@id("one")\npermit(principal, action, resource);\n\n@id("two")\npermit(principal')
    _, error = await day.admin.refused(1, "policy", "apply", bad)
    assert error["reason"] == "POLICY_MALFORMED"
    assert "line" in error["message"]
    assert await day.admin.json("policy", "show") == before
    good = tmp_path / "good.cedar"
    good.write_text('@id("one")\npermit(principal, action, resource);\n')
    checked = await day.admin.json("policy", "apply", good, "--dry-run")
    assert await day.admin.json("policy", "show") == before
    applied = await day.admin.json("policy", "apply", good)
    assert applied["old"]["digest"] == before["digest"]
    assert applied["new"] == {"digest": checked["new"]["digest"], "generation": before["generation"] + 1}
    assert "->" in await day.admin.text("policy", "apply", good)


async def test_what_a_policy_change_opens_and_closes(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """I3, I4: told before it is in force; asked on a terminal, and a no changes nothing."""
    await day.join()
    before = await day.admin.json("policy", "show")
    closed = tmp_path / "closed.cedar"
    closed.write_text(DE_POLICY.read_text() + '@id("closed") forbid (principal, action, resource);')
    told = await day.admin.json("policy", "diff", closed)
    assert {change["change"] for change in told["changes"]} == {"closes"}
    assert {tuple(change["nodes"]) for change in told["changes"]} == {
        ("spiffe://de.mesh.example/node/fra-1",)
    }
    assert all("closed" in change["policies"] for change in told["changes"])
    assert (await day.admin.json("policy", "apply", closed, "--dry-run"))["diff"] == told
    assert "de-everything-at-home" in str(told["changes"][0]["witness"])
    answers = iter(["n\n", "y\n"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdin, "readline", lambda: next(answers), raising=False)
    code, out, err = await day.admin("policy", "apply", closed)
    assert code == 1
    assert "closes" in out
    assert "put it in force?" in err
    assert await day.admin.json("policy", "show") == before
    code, out, _ = await day.admin("policy", "apply", closed)
    assert (code, "in force" in out) == (0, True)
    again = await day.admin.text("policy", "apply", closed)  # nothing changes: nobody is asked
    assert "no flow opens or closes" in again
    assert "diff" not in await day.admin.json("policy", "apply", DE_POLICY, "--no-diff")


async def test_proving_over_the_nodes_that_there_are(day: Day):
    await day.join()
    control = 'resource.controller == Jurisdiction::"US"'
    proved = await day.admin.json("policy", "prove", "--never-to", control)
    assert (proved["holds"], proved["over"], proved["nodes"]) == (True, "nodes", 1)
    await day.join("fra-2", controller="US")
    asked = ("policy", "prove", "--class", "confidential", "--never-to", control)
    out, error = await day.admin.refused(1, *asked)
    assert error["reason"] == "POLICY_NOT_PROVED"
    assert json.loads(out)["witness"]["node"]["id"] == "spiffe://de.mesh.example/node/fra-2"
    anywhere = await day.admin.json(
        "policy", "prove", "--class", "special-category", "--from", "DE", "--never-to", control, "--any-node"
    )
    assert (anywhere["holds"], anywhere["over"]) == (True, "any-node")
    await day.admin.refused(2, "policy", "prove", "--from", "FR")  # it has published none


async def test_a_change_is_applied_even_where_nobody_can_say_what_it_opens(day: Day, tmp_path: Path):
    odd = tmp_path / "odd.cedar"
    odd.write_text(
        '@id("odd") permit (principal, action, resource) when { {a: context.purpose} == {a: "x"} };'
    )
    await day.join()
    applied = await day.admin.json("policy", "apply", odd)
    assert applied["diff"]["undecided"].startswith("undecided, because policy odd ")
    assert "cannot be said" in await day.admin.text("policy", "apply", odd)


async def test_cordon_drain_and_back(day: Day):
    runtime = await day.join()
    client = await day.client(runtime)
    asked = ("place", "--class", "public", "--purpose", "press/leaflet")
    drained = await day.admin.json("node", "drain", "fra-1")
    assert drained["drained"]
    await runtime.board.wait_for(lambda s: s.candidates[runtime.id].facts.cordoned, DEADLINE_S)
    out, error = await client.refused(1, *asked)
    assert error["reason"] == "NO_NODE_AVAILABLE"
    assert json.loads(out)["refused"][0]["reason"] == "NODE_CORDONED"
    await day.admin.json("node", "uncordon", "fra-1")
    await runtime.board.wait_for(lambda s: not s.candidates[runtime.id].facts.cordoned, DEADLINE_S)
    assert (await client.json(*asked))["permitted"]
    assert "cordoned    yes" in await day.admin.text("node", "cordon", "fra-1")
    _, error = await day.admin.refused(1, "node", "cordon", "nowhere")
    assert error["reason"] == "NOT_FOUND"


async def test_draining_waits_for_what_runs(day: Day):
    runtime = await day.join()
    day.engine.script.per_token_s = 0.02
    desk = await day.client(runtime)
    asked = RequestContext.of(["public"], "press/leaflet")
    async with MeshClient.from_profile(desk.profile, renew=False) as client:
        stream = client.chat(
            "scripted", "hello", context=asked, sampling=Sampling(max_tokens=4000, ignore_eos=True)
        )
        while not isinstance(await anext(stream), Token):
            pass
        _, error = await day.admin.refused(1, "node", "drain", "fra-1", "--timeout", "1.5")
        assert (error["reason"], error["metadata"]["running"]) == ("DEADLINE_EXCEEDED", "1")
        assert error["message"].endswith("1 running call left")
        draining = asyncio.create_task(day.admin.json("node", "drain", "fra-1", "--timeout", DEADLINE_S))
        day.engine.script.per_token_s = 0.0
        last = [event async for event in stream][-1]
        assert isinstance(last, Finished)
        assert last.completion_tokens == 4000
    drained = await draining
    assert (drained["drained"], drained["note"]) == (True, "")
    await runtime.stop()
    gone = await day.admin.json("node", "drain", "fra-1", "--timeout", DEADLINE_S)
    assert gone["drained"]
    assert gone["note"].startswith("it is gone from the board")
    assert "gone from the board" in await day.admin.text("node", "drain", "fra-1")
    _, error = await day.admin.refused(1, "node", "drain", "nowhere")
    assert error["reason"] == "NOT_FOUND"


async def test_a_client_is_no_administrator_and_an_administrator_sends_nothing(day: Day):
    runtime = await day.join()
    client = await day.client(runtime)
    _, error = await client.refused(3, "node", "list")
    assert error["reason"] == "IDENTITY_NOT_ALLOWED"
    question = ("--model", "scripted", "--class", "public", "--purpose", "press/leaflet")
    _, error = await day.admin.refused(3, "chat", "hello", *question)
    assert error["reason"] == "IDENTITY_NOT_ALLOWED"
    assert (await day.admin.json("place", *question[2:]))["permitted"]
    assert day.engine.seen == 0


async def test_whoever_is_revoked_is_cut_off(day: Day):
    runtime = await day.join()
    client, other = await day.client(runtime), await day.client(runtime, "other")
    asked = ("place", "--class", "public", "--purpose", "press/leaflet")
    assert (await client.json(*asked))["permitted"]
    await day.admin.json("client", "revoke", "/client/clinic/desk")
    await runtime.board.wait_for(
        lambda s: bool(s.revocations) and bool(s.revocations["de.mesh.example"].ids), DEADLINE_S
    )
    _, error = await client.refused(3, *asked)
    assert error["reason"] == "IDENTITY_REVOKED"
    assert (await other.json(*asked))["permitted"]


async def test_bundles_are_exchanged_as_files(day: Day, tmp_path: Path):
    await in_thread("authority", "init", tmp_path / "fr", "--trust-domain", "fr.mesh.example")
    accepted = await day.admin.json("trust", "import", tmp_path / "fr" / "bundle.json")
    assert accepted["federated"] == ["fr.mesh.example"]
    client = await day.client()
    assert [b["trust_domain"] for b in (await client.json("trust", "list"))["bundles"]] == [
        "de.mesh.example",
        "fr.mesh.example",
    ]
    assert (await day.admin.json("trust", "drop", "fr.mesh.example"))["federated"] == []
    _, error = await day.admin.refused(1, "trust", "import", tmp_path / "de" / "bundle.json")
    assert error["reason"] == "BUNDLE_INVALID"


async def test_further_administrators_are_issued(day: Day, tmp_path: Path):
    await day.admin.json("admin", "issue", "second", "--out", tmp_path / "second")
    second = Meshctl(tmp_path / "second")
    assert (await second.json("status"))["trust_domain"] == "de.mesh.example"


async def process(*arguments: object, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Runs meshctl as a process of its own."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control.cli.main", *map(str, arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(running.communicate(stdin), DEADLINE_S)
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    return running.returncode or 0, out.decode(), err.decode()


async def test_as_a_process_with_the_prompt_on_standard_input(day: Day):
    runtime = await day.join()
    client = await day.client(runtime)
    question = ("--model", "scripted", "--class", "special-category", "--purpose", "care/triage")
    code, out, err = await process(
        "chat", "-", *question, stdin=b"a secret", MESHCTL_PROFILE=str(client.profile)
    )
    assert (code, err) == (0, "")
    assert out.strip()
    assert day.engine.prompts[-1].messages[-1].content == "a secret"
    code, out, err = await process("place", *question[2:], "-j", "US", "--profile", client.profile)
    assert (code, err.count("\n")) == (3, 1)
    code, out, err = await process("place", "--class", "nonsense", "--purpose", "x", "-o", "json")
    assert code == 2
    assert json.loads(err)["error"]["reason"] == "DATA_CLASS_UNKNOWN"


async def test_the_shell_completes_commands():
    code, out, _ = await process(_MESHCTL_COMPLETE="complete_bash", COMP_WORDS="meshctl po", COMP_CWORD="1")
    assert code == 0
    assert "policy" in out
