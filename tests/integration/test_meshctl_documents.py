"""meshctl collection and meshctl index against a running control plane and node."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control.cli.identity_files import write_identity, write_profile
from mesh.sdk.profile import ControlPlane, Profile
from tests.support.control import RunningControl, control_of
from tests.support.documents import SPEC, Documents, documents_of
from tests.support.meshctl import in_thread

pytestmark = pytest.mark.slow

NODE = ("--node", "fra-1")


class Terminal(io.StringIO):
    """Somebody who types this."""

    def isatty(self) -> bool:
        return True


class Desk:
    """An administrator's and a client's meshctl beside a node."""

    def __init__(self, documents: Documents, control: RunningControl, directory: Path) -> None:
        self.documents, self._control, self._directory = documents, control, directory

    def profile(self, path: str, *, nodes: bool = False) -> Path:
        """A profile of this identity; its node is named in it, or has to be asked for."""
        out = self._directory / path.strip("/").replace("/", "-")
        identity, node = self.documents.de.identity, self.documents.node
        svid = identity.svid(path, now=time.time())
        write_identity(out / "identity", svid.chain, svid.key, [identity.bundle], identity.id(path))
        control = ControlPlane(endpoint=self._control.plane.endpoint)
        known = {node.id.name: node.endpoint} if nodes else {}
        write_profile(out, Profile(trust_domain=identity.trust_domain, control=control, nodes=known))
        return out

    async def run(self, profile: Path, *arguments: object) -> tuple[int, str, str]:
        return await in_thread(*arguments, "--profile", profile)

    async def json(self, profile: Path, *arguments: object, code: int = 0) -> dict[str, Any]:
        found, out, err = await self.run(profile, *arguments, "--output", "json")
        assert found == code, (out, err)
        return dict(json.loads(out if out else err))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with documents_of(tmp_path, create=False) as documents:
        ca, board = documents.de.identity.ca, documents.mesh.board
        async with control_of(ca, board, tmp_path / "control") as control:
            await control.plane.board.wait_for(
                lambda snapshot: documents.node.id in snapshot.candidates, 10.0
            )
            yield Desk(documents, control, tmp_path / "profiles")


async def published(desk: Desk, admin: Path) -> None:
    digest = SPEC.embedder_digest
    made = await desk.json(
        admin, "collection", "apply", "--name", "handbook", "--embedder", "scripted",
        "--embedder-digest", digest, "--dimensions", 32,
    )  # fmt: skip
    assert (made["generation"], made["changed"]) == (1, [])
    await desk.documents.node.runtime.board.wait_for(
        lambda snapshot: "handbook" in snapshot.collections.get("de.mesh.example", {}), 10.0
    )


async def test_from_settings_to_forgetting(desk: Desk):
    admin = desk.profile("/admin/first")
    await published(desk, admin)
    made = await desk.json(admin, "index", "create", "handbook", *NODE)
    assert made["documents"] == 0
    folder = desk.documents.write(
        {"a.txt": "The ward opens at nine.", "b.md": "# Doors\n\nBlue.", "c.txt": "\0\0\0", "d.bin": "x"}
    )
    done = await desk.json(
        admin, "index", "ingest", "handbook", folder, *NODE, "--class", "internal", "--owner", "desk", code=1
    )
    assert (done["documents"], done["sent"], done["skipped_total"]) == (2, 3, 1)
    assert [skipped["file"] for skipped in done["skipped"]] == ["files/c.txt"]
    assert [Path(each["path"]).name for each in done["left_out"]] == ["d.bin"]
    os.unlink(folder / "c.txt")
    code, out, _ = await desk.run(
        admin, "index", "ingest", "handbook", folder, *NODE, "--class", "internal", "--owner", "desk"
    )
    assert code == 0
    assert "2 documents were there already" in out
    status = await desk.json(admin, "index", "status", *NODE)
    assert [(i["documents"], i["state"]) for i in status["indexes"]] == [(2, "ready")]
    code, out, _ = await desk.run(admin, "index", "status", *NODE)
    assert "handbook" in out
    listed = await desk.json(admin, "index", "documents", "handbook", *NODE)
    assert [(d["id"], d["owner"]) for d in listed["documents"]] == [
        ("files/a.txt", "desk"), ("files/b.md", "desk"),
    ]  # fmt: skip
    assert (await desk.json(admin, "index", "rebuild", "handbook", *NODE))["chunks"] == 2
    collections = await desk.json(admin, "collection", "list")
    assert [(c["collection"]["name"], c["mismatched"]) for c in collections["collections"]] == [
        ("handbook", [])
    ]
    os.unlink(folder / "b.md")
    pruned = await desk.json(
        admin, "index", "ingest", "handbook", folder, *NODE, "--class", "internal", "--owner", "desk",
        "--prune", "--yes",
    )  # fmt: skip
    assert pruned["pruned"] == 1
    forgotten = await desk.json(admin, "index", "forget", "handbook", "files/a.txt", "x", *NODE, "--yes")
    assert (forgotten["asked"], forgotten["deleted"]) == (2, 1)
    removed = await desk.json(admin, "index", "delete", "handbook", *NODE, "--yes")
    assert removed["documents"] == 0
    assert (await desk.json(admin, "index", "status", *NODE))["indexes"] == []


async def test_what_is_deleted_is_asked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    admin = desk.profile("/admin/first")
    await published(desk, admin)
    await desk.json(admin, "index", "create", "handbook", *NODE)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    error = await desk.json(admin, "index", "delete", "handbook", *NODE, code=2)
    assert "--yes" in error["error"]["message"]
    for answer, expected in (("n\n", 1), ("\n", 1), ("", 1), ("y\n", 0)):
        assert len((await desk.json(admin, "index", "status", *NODE))["indexes"]) == 1
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        code, out, err = await desk.run(admin, "index", "delete", "handbook", *NODE)
        assert (code, "Remove handbook from fra-1" in err) == (expected, True), out
    assert (await desk.json(admin, "index", "status", *NODE))["indexes"] == []


async def test_a_client_sends_what_is_its_tenants(desk: Desk):
    admin = desk.profile("/admin/first")
    await published(desk, admin)
    await desk.json(admin, "index", "create", "handbook", *NODE)
    client = desk.profile("/client/clinic/desk", nodes=True)
    folder = desk.documents.write({"a.txt": "Ours."})
    await desk.json(client, "index", "ingest", "handbook", folder, *NODE, "--class", "personal")
    listed = await desk.json(admin, "index", "documents", "handbook", *NODE)
    assert [(d["id"], d["tenant"]) for d in listed["documents"]] == [("files/a.txt", "clinic")]
    error = await desk.json(client, "index", "delete", "handbook", *NODE, "--yes", code=3)
    assert error["error"]["reason"] == "IDENTITY_NOT_ALLOWED"
    lost = desk.profile("/client/clinic/other")
    error = await desk.json(lost, "index", "status", *NODE, code=1)
    assert "profile.yaml" in error["error"]["message"]


async def test_settings_come_from_a_file_another_authority_or_what_nodes_serve(desk: Desk, tmp_path: Path):
    admin = desk.profile("/admin/first")
    # The scripted engine says what it embeds with, so its digest need not be stated.
    made = await desk.json(
        admin, "collection", "apply", "--name", "notes", "--embedder", "scripted-embedding",
        "--dimensions", 32, "--dry-run",
    )  # fmt: skip
    assert made["collection"]["embedder_digest"].startswith("sha256:")
    error = await desk.json(admin, "collection", "apply", "--name", "notes", "--dry-run", code=1)
    assert "--embedder-digest" in error["error"]["message"]
    await published(desk, admin)
    code, shown, _ = await desk.run(admin, "collection", "show", "handbook")
    assert code == 0
    file = tmp_path / "handbook.yaml"
    file.write_text(shown.replace("k1: 1.2", "k1: 0.9"))
    changed = await desk.json(admin, "collection", "apply", file)
    assert (changed["generation"], changed["changed"]) == (2, ["k1"])
    copied = await desk.json(admin, "collection", "apply", "--name", "handbook", "--like", "de.mesh.example")
    assert (copied["generation"], copied["changed"]) == (2, [])
    file.write_text("colour: blue\n")
    error = await desk.json(admin, "collection", "apply", file, code=1)
    assert error["error"]["reason"] == "CONFIG_INVALID"
    error = await desk.json(admin, "collection", "show", "other", code=1)
    assert error["error"]["reason"] == "COLLECTION_UNKNOWN"


async def test_a_collection_is_listed_with_who_holds_it(desk: Desk):
    admin = desk.profile("/admin/first")
    await published(desk, admin)
    await desk.json(admin, "index", "create", "handbook", *NODE)
    async with asyncio.timeout(20):
        while not (view := (await desk.json(admin, "collection", "list"))["collections"][0])["nodes"]:
            pass
    assert (view["nodes"], view["mismatched"]) == ([str(desk.documents.node.id)], [])
    _, out, _ = await desk.run(admin, "collection", "list")
    assert "fra-1 (DE)" in out
