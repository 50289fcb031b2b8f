"""What a witness keeps: over restarts, damage, full disks, and logs that lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import COSIGNATURE, ED25519, Checkpoint, Note, VerifierKey, parse_note, sign, verify
from mesh.core.types import SpiffeId
from mesh.evidence import MemoryDecisionLog
from mesh.evidence.witness import MAX_ALARMS_OF_A_LOG, Witness
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
    return list(folder.iterdir())


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
    # Whoever goes back to the first key is found out as well, and alarms do not fill the disk.
    for number in range(2 * MAX_ALARMS_OF_A_LOG):
        key = (LOG, OTHER)[number % 2]
        await shown(witness(tmp_path), await log_of(*"abcdef"[: number % 5 + 1], key=key), 0, key)
    assert len(await witness(tmp_path).alarms()) <= MAX_ALARMS_OF_A_LOG


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
