"""What a witness keeps: over restarts, damage, full disks, and logs that lie."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    Note,
    Signature,
    VerifierKey,
    parse_note,
    sign,
    verify,
)
from mesh.core.types import SpiffeId
from mesh.evidence import MemoryDecisionLog
from mesh.evidence.witness import MAX_ALARMS_OF_A_KIND, MAX_KEYS_OF_A_LOG, Witness
from mesh.identity import private_files
from mesh.identity.log_keys import LogKey, verify_ed25519

ORIGIN = "de.mesh.example/node/fra-1"
LOG, OTHER, WITNESS = LogKey.generate(), LogKey.generate(), LogKey.generate()
NODE = SpiffeId("fr.mesh.example", "/node/par-1")
NOW = 1_800_000_000.75


def witness(folder: Path) -> Witness:
    return Witness(folder, NODE, WITNESS, lambda: NOW)


async def log_of(*entries: str, key: LogKey = LOG, origin: str = ORIGIN) -> MemoryDecisionLog:
    log = MemoryDecisionLog(origin, key)
    for each in entries:
        await log.record({"kind": "place", "id": each})
    return log


async def shown(to: Witness, log: MemoryDecisionLog, old: int, key: LogKey = LOG) -> tuple[str, int]:
    signed = await log.checkpoint()
    proof = await log.consistency(min(old, log.size), log.size)
    return await to.cosign(ORIGIN, key.public, signed.note, old, proof)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


async def test_what_it_signs_is_a_cosignature_of_that_checkpoint(tmp_path: Path) -> None:
    log = await log_of("a", "b")
    line, size = await shown(witness(tmp_path), log, 0)
    note = parse_note((await log.checkpoint()).note + f"{line}\n".encode())
    key = VerifierKey("fr.mesh.example/node/par-1", COSIGNATURE, WITNESS.public)
    (signed,) = verify(note, [key], verify_ed25519)
    assert (signed.timestamp, size) == (int(NOW), 2)


async def test_it_remembers_over_a_restart_and_says_what_it_saw(tmp_path: Path) -> None:
    log = await log_of("a", "b")
    await shown(witness(tmp_path), log, 0)
    await log.record({"kind": "place", "id": "c"})
    again = witness(tmp_path)
    assert await shown(again, log, 0) == ("", 2)
    line, size = await shown(again, log, 2)
    assert line
    assert size == 3
    assert all(file.stat().st_mode & 0o077 == 0 for file in files(tmp_path))


@pytest.mark.parametrize(
    ("entries", "reason", "finding"),
    [
        (("a", "x"), Reason.LOG_FORKED, "fork"),
        (("a",), Reason.LOG_ROLLED_BACK, "rollback"),
        (("a", "x", "c"), Reason.PROOF_INVALID, "inconsistent"),
    ],
)
async def test_what_does_not_follow_is_refused_and_kept(
    tmp_path: Path, entries: tuple[str, ...], reason: Reason, finding: str
) -> None:
    before = await log_of("a", "b")
    await shown(witness(tmp_path), before, 0)
    lying = await log_of(*entries)
    for _ in range(3):  # said again, and to a witness that was restarted: one alarm
        with refused(reason):
            await shown(witness(tmp_path), lying, 2)
    (alarm,) = await witness(tmp_path).alarms()
    assert (alarm.origin, alarm.finding, alarm.at) == (ORIGIN, finding, NOW)
    key = VerifierKey(ORIGIN, ED25519, LOG.public)
    for note in (alarm.seen, alarm.offered):
        assert verify(parse_note(note.encode()), [key], verify_ed25519)
    # It has not forgotten the true one.
    await before.record({"kind": "place", "id": "c"})
    assert (await shown(witness(tmp_path), before, 2))[1] == 3


async def test_a_log_that_begins_anew_under_another_key_is_an_alarm(tmp_path: Path) -> None:
    await shown(witness(tmp_path), await log_of("a", "b"), 0)
    line, _ = await shown(witness(tmp_path), await log_of("x", key=OTHER), 0, OTHER)
    assert line
    (alarm,) = await witness(tmp_path).alarms()
    assert alarm.finding == "new-key"
    # Whoever goes back to the first key goes on where that was, and no history of its is signed twice.
    with refused(Reason.LOG_ROLLED_BACK):
        await shown(witness(tmp_path), await log_of("z"), 0)
    with refused(Reason.LOG_FORKED):
        await shown(witness(tmp_path), await log_of("a", "z"), 0)
    grown = await log_of("a", "b", "c")
    assert (await shown(witness(tmp_path), grown, 2))[1] == 3
    found = await witness(tmp_path).alarms()
    assert sorted(alarm.finding for alarm in found) == ["fork", "new-key", "rollback"]


async def test_keys_and_alarms_do_not_fill_the_disk_nor_hide_a_fork(tmp_path: Path) -> None:
    await shown(witness(tmp_path), await log_of("a", "b"), 0)
    for _ in range(MAX_KEYS_OF_A_LOG - 1):
        key = LogKey.generate()
        await shown(witness(tmp_path), await log_of("x", key=key), 0, key)
    with refused(Reason.LOG_FORKED):
        await shown(witness(tmp_path), await log_of("x", key=OTHER), 0, OTHER)
    with refused(Reason.LOG_FORKED):
        await shown(witness(tmp_path), await log_of("a", "z"), 0)
    findings = [alarm.finding for alarm in await witness(tmp_path).alarms()]
    assert findings.count("new-key") == MAX_ALARMS_OF_A_KIND
    assert findings.count("fork") == 1
    assert len(files(tmp_path)) == MAX_KEYS_OF_A_LOG + MAX_ALARMS_OF_A_KIND + 1


async def test_what_others_add_to_a_checkpoint_is_not_kept(tmp_path: Path) -> None:
    log = await log_of("a")
    note = parse_note((await log.checkpoint()).note)
    stuffed = note.signed(*(Signature(f"x{n}", b"1234", b"y" * 100) for n in range(60)))
    await witness(tmp_path).cosign(ORIGIN, LOG.public, bytes(stuffed), 0, ())
    (file,) = files(tmp_path)
    assert json.loads(file.read_bytes())["note"].encode() == bytes(note)
    extended = Checkpoint(ORIGIN, 1, bytes(32), ("more",))
    own = VerifierKey(ORIGIN, ED25519, LOG.public)
    with refused(Reason.NOTE_INVALID):
        line = sign(extended.text, own, LOG.sign)
        await witness(tmp_path).cosign(ORIGIN, LOG.public, bytes(Note(extended.text, (line,))), 0, ())


async def test_a_caller_that_goes_away_parts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on disk, what is remembered and what was signed are one, also if the call is cancelled."""
    here = witness(tmp_path)
    store, begun, go_on = here._store, threading.Event(), threading.Event()

    def slowly(origin: str, seen: object) -> None:
        begun.set()
        assert go_on.wait(20)
        store(origin, seen)  # type: ignore[arg-type]

    monkeypatch.setattr(here, "_store", slowly)
    first = asyncio.create_task(shown(here, await log_of("a", "b"), 0))
    assert await asyncio.to_thread(begun.wait, 20)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(shown(here, await log_of("a", "z"), 0))
    await asyncio.sleep(0)
    go_on.set()
    with refused(Reason.LOG_FORKED):
        await second
    assert (await shown(witness(tmp_path), await log_of("a", "b"), 2))[1] == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff", None])
async def test_what_it_cannot_read_is_not_a_log_never_seen(tmp_path: Path, damage: bytes | None) -> None:
    await shown(witness(tmp_path), await log_of("a", "b"), 0)
    (file,) = files(tmp_path)
    if damage is None:  # a note that is not signed by the log
        document = json.loads(file.read_bytes())
        document["note"] = document["note"].replace("\n2\n", "\n1\n")
        damage = json.dumps(document).encode()
    file.write_bytes(damage)
    with refused(Reason.EVIDENCE_DAMAGED):
        await shown(witness(tmp_path), await log_of("x"), 0)
    assert file.read_bytes() == damage


async def test_it_signs_nothing_that_it_cannot_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = witness(tmp_path)
    log = await log_of("a")
    with monkeypatch.context() as patched:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(private_files.os, "fsync", full)
        with refused(Reason.EVIDENCE_UNAVAILABLE):
            await shown(here, log, 0)
    assert (await shown(here, log, 0))[1] == 1


async def test_checkpoints_of_others_and_of_nobody_are_refused(tmp_path: Path) -> None:
    here = witness(tmp_path)
    theirs = await log_of("a", origin="us.mesh.example/node/iad-1")
    with refused(Reason.NOTE_INVALID):
        await shown(here, theirs, 0)
    forged = Checkpoint(ORIGIN, 1, bytes(32))
    own = VerifierKey(ORIGIN, ED25519, OTHER.public)
    note = bytes(Note(forged.text, (sign(forged.text, own, OTHER.sign),)))
    with refused(Reason.NOTE_INVALID):
        await here.cosign(ORIGIN, LOG.public, note, 0, ())
    # Signed by the log's key, but in the words of another log.
    words = Checkpoint("us.mesh.example/node/iad-1", 1, bytes(32)).text
    note = bytes(Note(words, (sign(words, VerifierKey(ORIGIN, ED25519, LOG.public), LOG.sign),)))
    with refused(Reason.NOTE_INVALID):
        await here.cosign(ORIGIN, LOG.public, note, 0, ())
    with refused(Reason.NOTE_INVALID):
        await here.cosign(ORIGIN, LOG.public, b"x" * 20_000, 0, ())
    assert not files(tmp_path)
