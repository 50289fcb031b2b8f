"""A period of a running node's log, exported by its administrators, and verified and reported on offline."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
from pathlib import Path

import pytest

from mesh.attested import attested_by
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import RangeProof, verify_range
from mesh.identity.log_keys import verify_ed25519
from mesh.sdk.profile import Profile
from tests.integration.test_meshctl_audit import PUBLIC, Desk, desk
from tests.support.audit_log import AT, place

pytestmark = pytest.mark.slow

__all__ = ["desk"]  # the fixture


async def placed(desk: Desk, times: int) -> None:
    client = desk.profile("DE", "/client/firm/desk")
    for _ in range(times):
        code, _, err = await desk.run("place", *PUBLIC, "--profile", client)
        assert code == 0, err


def export(
    desk: Desk, out: Path, *more: object, country: str = "DE", who: str = "/admin/first"
) -> list[object]:
    admin = desk.profile(country, who)
    words = ("audit", "export", "--format", "bundle", "--node", "fra-1", "--profile", admin)
    return [*words, "--out", out, *more]


async def test_a_log_is_exported_verified_and_reported_on(desk: Desk, tmp_path: Path) -> None:
    await placed(desk, 3)
    file = tmp_path / "all.bundle"
    written = await desk.json(*export(desk, file))
    assert (written["first"], written["last"], written["entries"], written["witnesses"]) == (0, 2, 3, 2)
    assert file.stat().st_mode & 0o777 == 0o600
    found = await desk.verify(file)
    assert (found["first"], found["last"], found["entries"]) == (0, 2, 3)
    assert {each["node"].rpartition("/")[2] for each in found["witnesses"]} == {"par-1", "iad-1"}
    code, out, _ = await desk.run("audit", "verify", file, *desk.trust)
    assert (code, out.startswith("The bundle holds. It proves:")) == (0, True)
    assert "all of them" in out
    assert "It does not prove:" in out
    # A copy of the log is held against its checkpoint, too.
    same = await desk.verify(file, "--log", tmp_path / "fra-1")
    assert any("entry by entry" in line for line in same["proven"])
    # It is read like an export.
    listed = await desk.json("audit", "list", "--log", file)
    assert [(each["log"], each["index"]) for each in listed["entries"]] == [
        ("de.mesh.example/node/fra-1", index) for index in range(3)
    ]
    shown = await desk.json("audit", "show", "1", "--log", file)
    assert shown["entries"][0]["index"] == 1
    report = await desk.json("audit", "report", "--log", file)
    assert report["logs"]
    # Nothing is overwritten.
    assert (await desk.json(*export(desk, file), code=1))["error"]["reason"] == "CONFIG_INVALID"


async def test_a_period_is_the_smallest_range_that_has_it(desk: Desk, tmp_path: Path) -> None:
    # By days of March; what is logged is not always in the order of the times that it states.
    log = desk.mesh["DE"].nodes["fra-1"].log
    for number, day in enumerate((1, 3, 2, 9, 4, 8, 9)):
        await log.record({**place(f"d{number}", "de", ["fr"]), "at": AT + (day - 1) * 86_400.0})
    for since, until, first, last in (
        ("2026-03-02", "2026-03-05", 1, 4),
        ("2026-03-08", "2026-03-09", 5, 5),
        ("2026-03-09", "", 3, 6),
        ("", "2026-03-03", 0, 2),
    ):
        file = tmp_path / f"{first}-{last}.bundle"
        await desk.json(*export(desk, file, "--from", since, "--to", until))
        found = await desk.verify(file)
        assert (found["first"], found["last"]) == (first, last)
        assert found["size"] > last
    none = await desk.json(*export(desk, tmp_path / "none", "--to", "2020-01-01"), code=1)
    assert none["error"]["reason"] == "NOT_FOUND"
    assert not (tmp_path / "none").exists()


async def test_what_was_altered_or_is_not_witnessed_enough_does_not_hold(desk: Desk, tmp_path: Path) -> None:
    await placed(desk, 3)
    file, other = tmp_path / "all.bundle", tmp_path / "other.bundle"
    await desk.json(*export(desk, file))
    data = file.read_bytes()
    head, *lines = data.splitlines(keepends=True)
    for changed in (
        data.replace(b"press/enquiry", b"press/enquirx", 1),
        head + b"".join(lines[:-1]),
        head + b"".join(lines[::-1]),
        data[:-10],
        b'{"format": "sovereign-mesh-bundle/2"}\n',
    ):
        other.write_bytes(changed)
        assert (await desk.verify(other, code=1))["error"]["reason"] == "RECEIPT_INVALID"
    opener = attested_by({bundle.trust_domain: bundle for bundle in desk.mesh.bundles})
    verify_range(io.BytesIO(data).readline, opener, verify_ed25519)
    chance = random.Random(7)
    for _ in range(150):
        at = chance.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        with pytest.raises(MeshError) as refused:
            verify_range(io.BytesIO(flipped).readline, opener, verify_ed25519)
        assert refused.value.reason is Reason.RECEIPT_INVALID, at
    assert (await desk.verify(file, "--witnesses", 3, code=1))["error"]["reason"] == "RECEIPT_UNWITNESSED"
    lacking = await desk.json("audit", "verify", file, *desk.trust[:2], code=1)
    assert lacking["error"]["reason"] == "RECEIPT_INVALID"


async def test_nobody_else_gets_one(desk: Desk, tmp_path: Path) -> None:
    await placed(desk, 1)
    out = tmp_path / "none.bundle"
    client = await desk.json(*export(desk, out, who="/client/firm/desk"), code=3)
    assert client["error"]["reason"] == "IDENTITY_NOT_ALLOWED"
    foreign = desk.profile("FR", "/admin/first")
    endpoint = desk.mesh["DE"].nodes["fra-1"].endpoint
    Profile.load(foreign).model_copy(update={"nodes": {"fra-1": endpoint}}).save(foreign)
    assert (await desk.run(*export(desk, out, country="FR")))[0] != 0
    # A whole range of one running node, or nothing.
    for more in (["--kind", "place"], ["--log", tmp_path / "fra-1"], ["--node", "par-1"], ["--caller", "x"]):
        refused = await desk.json(*export(desk, out, *more), code=2)
        assert refused["error"]["reason"] == "REQUEST_INVALID"
    assert not out.exists()


async def test_a_log_that_grows_meanwhile_gives_whole_ranges(desk: Desk, tmp_path: Path) -> None:
    await placed(desk, 2)
    log = desk.mesh["DE"].nodes["fra-1"].log

    async def grow() -> None:
        while True:
            await log.record({"kind": "place", "id": "more", "caller": "x" * 3000})
            await asyncio.sleep(0)

    growing = asyncio.create_task(grow())
    try:
        file = tmp_path / "growing.bundle"
        await desk.json(*export(desk, file))
    finally:
        growing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await growing
    found = await desk.verify(file)
    stated = RangeProof.from_line(file.read_bytes().splitlines(keepends=True)[0])
    assert (found["first"], found["last"]) == (stated.first, stated.last) == (0, found["entries"] - 1)
    assert found["size"] >= found["entries"] >= 2
