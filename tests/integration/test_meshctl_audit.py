"""meshctl audit against running nodes: receipts kept and verified offline, logs read, alarms told."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control.cli.identity_files import write_identity, write_profile
from mesh.core.errors import MeshError
from mesh.core.notes import Checkpoint, parse_note
from mesh.evidence.configured import origin_of
from mesh.evidence.log import MerkleLog
from mesh.identity.bundle import save_bundle
from mesh.identity.log_keys import LogKey
from mesh.sdk.profile import Profile
from tests.support.mesh import Mesh, mesh_of
from tests.support.meshctl import in_thread

pytestmark = pytest.mark.slow

PUBLIC = ("--class", "public", "--purpose", "press/enquiry", "--model", "scripted")


@dataclass
class Desk:
    """meshctl of whoever is named, beside three nodes that witness each other."""

    mesh: Mesh
    folder: Path
    keys: dict[str, LogKey]
    trust: list[str] = field(default_factory=list)

    def profile(self, country: str, path: str) -> Path:
        out = self.folder / f"{country}{path.replace('/', '-')}"
        if not out.exists():
            home = self.mesh[country]
            svid = home.identity.svid(path, now=time.time())
            write_identity(out / "identity", svid.chain, svid.key, self.mesh.bundles, home.id(path))
            nodes = {name: node.endpoint for name, node in home.nodes.items()}
            write_profile(out, Profile(trust_domain=home.trust_domain, nodes=nodes))
        return out

    async def run(self, *arguments: object) -> tuple[int, str, str]:
        return await in_thread(*arguments)

    async def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        found, out, err = await self.run(*arguments, "--output", "json")
        assert found == code, (out, err)
        return dict(json.loads((out or err).splitlines()[-1]))

    async def verify(self, file: Path, *more: object, code: int = 0) -> dict[str, Any]:
        return await self.json("audit", "verify", file, *self.trust, *more, code=code)


def bundles_of(mesh: Mesh, folder: Path) -> list[str]:
    words: list[str] = []
    for bundle in mesh.bundles:
        place = folder / bundle.trust_domain
        place.mkdir(parents=True)
        # By any name: what an authority publishes is called bundle.json.
        words += ["--trust", str(save_bundle(place, bundle).rename(place / "bundle.json"))]
    return words


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with mesh_of(tmp_path / "mesh", "DE", "FR", "US") as mesh:
        keys: dict[str, LogKey] = {}
        for country, name in (("DE", "fra-1"), ("FR", "par-1"), ("US", "iad-1")):
            home = mesh[country]
            keys[name] = LogKey.generate()
            log = MerkleLog.open(
                tmp_path / name, origin=origin_of(home.id(f"/node/{name}")), signer=keys[name]
            )
            await home.node(name, evidence=tmp_path / f"{name}-witness", log=log)
        made = Desk(mesh, tmp_path / "profiles", keys)
        made.trust = bundles_of(mesh, tmp_path / "trust")
        yield made


async def test_a_receipt_is_kept_and_verified_offline(desk: Desk, tmp_path: Path) -> None:
    client = desk.profile("DE", "/client/firm/desk")
    file = tmp_path / "chat.json"
    code, out, err = await desk.run(
        "chat", *PUBLIC, "--jurisdiction", "FR", "--receipt", file, "--profile", client, "the secret word"
    )
    assert (code, err) == (0, ""), out
    assert file.stat().st_mode & 0o777 == 0o600
    found = await desk.verify(file)
    assert found["holds"]
    assert [end["node"].rpartition("/")[2] for end in found["ends"]] == ["fra-1", "par-1"]
    assert any("on the permit of decision" in line for line in found["proven"])
    code, out, _ = await desk.run("audit", "verify", file, *desk.trust)
    assert (code, out.startswith("The receipt holds. It proves:")) == (0, True)
    assert "It does not prove:" in out
    assert "secret" not in file.read_text() + out
    # Nothing is overwritten, and that is known before anything is sent.
    before = len(await entries(desk, "fra-1"))
    refused = await desk.json("place", *PUBLIC, "--receipt", file, "--profile", client, code=1)
    assert refused["error"]["reason"] == "CONFIG_INVALID"
    assert len(await entries(desk, "fra-1")) == before


async def entries(desk: Desk, node: str) -> list[dict[str, Any]]:
    admin = desk.profile("DE", "/admin/first")
    found = await desk.json("audit", "list", "--node", node, "--profile", admin)
    return list(found["entries"])


async def test_what_does_not_hold_is_an_error_of_one_line(desk: Desk, tmp_path: Path) -> None:
    client = desk.profile("DE", "/client/firm/desk")
    file = tmp_path / "place.json"
    code, _, _ = await desk.run("place", *PUBLIC, "--receipt", file, "--profile", client)
    assert code == 0
    altered = tmp_path / "altered.json"
    altered.write_bytes(file.read_bytes().replace(b"press/enquiry", b"press/enquirx"))
    assert (await desk.verify(altered, code=1))["error"]["reason"] == "RECEIPT_INVALID"
    assert (await desk.verify(file, "--witnesses", 3, code=1))["error"]["reason"] == "RECEIPT_UNWITNESSED"
    one = await desk.json("audit", "verify", file, *desk.trust[:2], code=1)
    assert one["error"]["reason"] == "RECEIPT_INVALID"
    code, out, err = await desk.run("audit", "verify", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (await desk.verify(tmp_path / "none.json", code=1))["error"]["reason"] == "NOT_FOUND"
    twice = await desk.json("audit", "verify", file, *desk.trust, *desk.trust, code=1)
    assert twice["error"]["reason"] == "CONFIG_INVALID"


async def test_a_copy_of_a_log_is_held_against_a_receipt(desk: Desk, tmp_path: Path) -> None:
    client = desk.profile("DE", "/client/firm/desk")
    file = tmp_path / "place.json"
    for _ in range(3):
        await desk.run("place", *PUBLIC, "--profile", client)
    await desk.run("place", *PUBLIC, "--receipt", file, "--profile", client)
    await desk.run("place", *PUBLIC, "--profile", client)  # what came later is no matter
    found = await desk.verify(file, "--log", tmp_path / "fra-1")
    assert any("entry by entry" in line for line in found["proven"])
    other = await desk.verify(file, "--log", tmp_path / "iad-1", code=1)
    assert other["error"]["reason"] in ("RECEIPT_INVALID", "EVIDENCE_DAMAGED")


async def test_administrators_read_the_logs_of_their_own_nodes(desk: Desk) -> None:
    client, admin = desk.profile("DE", "/client/firm/desk"), desk.profile("DE", "/admin/first")
    await desk.run("place", *PUBLIC, "--profile", client)
    (entry,) = await entries(desk, "fra-1")
    assert (entry["kind"], entry["purpose"]) == ("place", "press/enquiry")
    shown = await desk.json("audit", "show", "0", "--node", "fra-1", "--profile", admin)
    assert shown["entries"][0]["log"] == "de.mesh.example/node/fra-1"
    report = await desk.json("audit", "report", "--node", "fra-1", "--profile", admin)
    assert report["logs"]
    # Nobody else does.
    refused = await desk.json("audit", "list", "--node", "fra-1", "--profile", client, code=3)
    assert refused["error"]["reason"] == "IDENTITY_NOT_ALLOWED"
    foreign = desk.profile("FR", "/admin/first")
    home = desk.mesh["DE"].nodes["fra-1"]
    profile = Profile.load(foreign).model_copy(update={"nodes": {"fra-1": home.endpoint}})
    profile.save(foreign)
    assert (await desk.run("audit", "list", "--node", "fra-1", "--profile", foreign))[0] != 0


async def test_alarms_are_told_with_their_proof(desk: Desk, tmp_path: Path) -> None:
    client, admin = desk.profile("DE", "/client/firm/desk"), desk.profile("FR", "/admin/first")
    told = await desk.json("audit", "alarms", "--node", "par-1", "--profile", admin)
    assert told["alarms"] == []
    file = tmp_path / "place.json"
    await desk.run("place", *PUBLIC, "--receipt", file, "--profile", client)
    node, witness = desk.mesh["DE"].nodes["fra-1"], desk.mesh["FR"].nodes["par-1"].runtime.evidence
    assert witness is not None
    signer = desk.keys["fra-1"]
    forked = MerkleLog.open(tmp_path / "forked", origin=origin_of(node.id), signer=signer)
    await forked.record({"kind": "place", "id": "never"})
    size = Checkpoint.parse(parse_note((await node.log.checkpoint()).note).text).size
    while forked.size < size:
        await forked.record({"kind": "place", "id": str(forked.size)})
    note = (await forked.checkpoint()).note
    with pytest.raises(MeshError):
        await witness.witness.cosign(origin_of(node.id), forked.key.public, note, size, ())
    await forked.aclose()
    told = await desk.json("audit", "alarms", "--node", "par-1", "--profile", admin)
    (alarm,) = told["alarms"]
    assert (alarm["origin"], alarm["finding"]) == ("de.mesh.example/node/fra-1", "fork")
    code, out, _ = await desk.run("audit", "alarms", "--node", "par-1", "--profile", admin)
    assert (code, "fork" in out) == (0, True)
