"""The log's folder: what it survives, what it refuses, and what others can read from it (I7)."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.evidence import MerkleLog, journal
from mesh.evidence.disk import STEPS, Disk
from mesh.evidence.held import RECENT_IDS, RecentIds
from mesh.evidence.offline import origin_in, read_entries, size_of
from mesh.identity.log_keys import LogKey
from tests.support.evidence import all_entries, bundle, journal_files, open_log, served

ROOT = Path(__file__).parents[3]
SIGNER = LogKey.generate()


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


@pytest.fixture(autouse=True)
def short_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FILE_ENTRIES", 300)


async def record(log: MerkleLog, count: int) -> None:
    await asyncio.gather(*(log.record({"id": str(log.size + n)}) for n in range(count)))


async def filled(folder: Path, *counts: int) -> MerkleLog:
    """A log that signed after each of so many entries, closed."""
    log = open_log(folder, SIGNER)
    for count in counts:
        await record(log, count)
        await log.checkpoint()
    await log.aclose()
    return log


async def check(log: MerkleLog, size: int) -> None:
    assert [entry["id"] for entry in await all_entries(log)] == [str(n) for n in range(size)]


# --- what others read -------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_folder_is_a_tiled_log(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    for count in (1, 254, 1, 1, 255, 700, 3):
        await record(log, count)
        signed = await log.checkpoint()
        checkpoint, entries = served(log.folder, log.key)
        assert checkpoint == signed.checkpoint
        assert [json.loads(entry)["id"] for entry in entries] == [str(n) for n in range(log.size)]
    await log.aclose()


async def test_sizes_that_were_signed_stay_readable_until_the_tile_is_full(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    for count in (3, 4, 5):
        await record(log, count)
        await log.checkpoint()
    for folder in ("tile/0/000.p", "tile/entries/000.p"):
        assert sorted(file.name for file in (log.folder / folder).iterdir()) == ["12", "3", "7"]
    await record(log, 300)
    await log.checkpoint()
    assert not (log.folder / "tile/0/000.p").exists()
    assert not (log.folder / "tile/entries/000.p").exists()
    await log.aclose()


async def test_everything_is_private(tmp_path: Path):
    log = await filled(tmp_path / "state" / "log", 300)
    for path in [log.folder, *log.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_the_entries_are_read_beside_the_log(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    for count in (1, 299, 1, 400, 20):
        await record(log, count)
        await log.checkpoint()
        read = [json.loads(entry)["id"] for entry in read_entries(log.folder)]
        assert read == [str(n) for n in range(log.size)]
        for start in (0, 1, 255, 256, 290, 5000):
            assert [json.loads(e)["id"] for e in read_entries(log.folder, start)] == read[start:]
        assert size_of(log.folder) == log.size
        assert origin_in(log.folder) == log.key.name
    await log.aclose()
    with refused(Reason.EVIDENCE_DAMAGED):
        list(read_entries(tmp_path))


# --- going on -----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_it_goes_on_after_a_restart_and_signs_nothing_twice(tmp_path: Path):
    total = 0
    for count in (1, 255, 300, 44, 0, 1000):
        log = open_log(tmp_path / "log", SIGNER)
        await check(log, total)
        assert log.latest is None or log.latest.size == total
        await record(log, count)
        total += count
        before = (log.folder / "checkpoint").stat().st_mtime_ns if count == 0 else 0
        await log.aclose()
        assert not before or (log.folder / "checkpoint").stat().st_mtime_ns == before
    assert served(log.folder, log.key)[0].size == total


@pytest.mark.slow
async def test_neither_the_journal_nor_memory_grows_with_the_log(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    for _ in range(12):
        await record(log, 200)
        await log.checkpoint()
        assert len(journal_files(log.folder)) <= 2
        assert log._held.size - log._held.stored < 256
    await log.aclose()


async def test_old_ids_are_found_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mesh.evidence.held.RECENT_IDS", 10)
    log = open_log(tmp_path / "log", SIGNER)
    for number in range(2):
        await record(log, 500)
        await log.record({"id": "twice"})
        await log.checkpoint()
        assert await log.find("twice") == (500, 1001)[: number + 1]
    for entry_id, index in (("0", 0), ("255", 255), ("499", 499), ("640", 641), ("900", 901), ("999", 1000)):
        assert await log.find(entry_id) in ((index,), (index - (index > 500),)), entry_id
    assert await log.find("0", recent_only=True) == ()
    assert await log.find("nobody") == ()
    await log.aclose()


def test_recent_ids_forget_the_oldest():
    recent = RecentIds(7)
    recent.add([("a",), (), ("a", "also")])
    recent.add((str(n),) for n in range(RECENT_IDS - 2))
    assert recent.find("a") == recent.find("also") == (9,)
    assert recent.since == 8
    recent.add([("b",), ("c",)])
    assert recent.find("a") == recent.find("also") == ()
    assert recent.find("c") == (8 + RECENT_IDS + 1,)
    assert len(recent._where) == RECENT_IDS


async def test_it_signs_by_itself_when_it_has_grown(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER, every_s=0.01)
    told: asyncio.Queue[int] = asyncio.Queue()
    log.subscribe(lambda signed: told.put_nowait(signed.size))
    async with asyncio.timeout(10):
        await record(log, 3)
        assert (await log.covering(3)).size == 3
        await record(log, 1)
        while await told.get() != 4:
            pass
    await log.aclose()


async def test_one_process_has_it_open(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        open_log(tmp_path / "log", SIGNER)
    await log.aclose()
    await open_log(tmp_path / "log", SIGNER).aclose()


async def test_after_closing_nothing_is_recorded_or_signed(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    await log.record({"id": 1})
    await log.aclose()
    await log.aclose()
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        await log.record({"id": 1})
    assert (await log.checkpoint()).size == 1


async def test_a_folder_that_cannot_be_made_refuses(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        open_log(tmp_path / "file" / "log", SIGNER)


# --- torn and full ------------------------------------------------------------------------------------------


async def test_a_batch_torn_at_any_byte_is_cut_off(tmp_path: Path):
    folder = tmp_path / "log"
    log = open_log(folder, SIGNER)
    await log.record({"id": "0"})
    await log.checkpoint()
    (file,) = journal_files(folder)
    whole = file.stat().st_size
    await log.record({"id": "1"})
    shutil.copytree(folder, tmp_path / "kept")  # as a machine that loses power here would leave it
    await log.aclose()
    torn = tmp_path / "kept" / file.relative_to(folder)
    data = torn.read_bytes()
    disk = Disk(tmp_path / "kept", lambda _: None)
    for length in range(whole, len(data)):
        for rest in (b"", bytes(len(data) - length)):
            torn.write_bytes(data[:length] + rest)
            part = journal.read_part(disk, 0, newest=True)
            assert part is not None
            assert (part.entries, part.whole) == ((b'{"id":"0"}',), whole)
            if length > whole:
                with refused(Reason.EVIDENCE_DAMAGED):  # where a newer part follows, nothing may be torn
                    journal.read_part(disk, 0, newest=False)
    log = open_log(tmp_path / "kept", SIGNER)
    await log.record({"id": "1"})
    await check(log, 2)
    await log.aclose()


def failing(step: str, times: int) -> Callable[[str], None]:
    left = times

    def failpoint(name: str) -> None:
        nonlocal left
        if name == step and left:
            left -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    return failpoint


FAILING = [step for step in STEPS if not step.endswith(":done") or step == "append:done"]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("step", FAILING)
async def test_a_full_disk_refuses_and_the_log_goes_on_when_there_is_room(
    step: str, times: int, tmp_path: Path
):
    await filled(tmp_path / "log", 299)
    log = open_log(tmp_path / "log", SIGNER, failpoint=failing(step, times))
    failed, total = 0, 299
    for _ in range(12):
        for count in (1, 100):
            batch = [log.record({"id": str(total + n)}) for n in range(count)]
            outcomes = await asyncio.gather(*batch, return_exceptions=True)
            if log.size == total:
                assert {getattr(outcome, "reason", None) for outcome in outcomes} == {
                    Reason.EVIDENCE_UNAVAILABLE
                }
                failed += 1
            else:
                assert outcomes == list(range(total, total + count))
            total = log.size
        try:
            assert (await log.checkpoint()).size == total
        except MeshError as error:
            if error.reason is not Reason.EVIDENCE_UNAVAILABLE:
                raise
            failed += 1
        await check(log, total)
    # What is dropped, swept and cut is tidied up; when that fails, nobody is refused anything.
    assert failed == (0 if step.startswith(("cut", "drop", "sweep")) else times)
    await log.aclose()
    await check_reopened(tmp_path / "log", total)


async def test_a_log_cannot_begin_on_a_full_disk(tmp_path: Path):
    for step in ("roll:write", "roll:sync", "roll:rename", "roll:folder"):
        with refused(Reason.EVIDENCE_UNAVAILABLE):
            open_log(tmp_path / "log", SIGNER, failpoint=failing(step, 1))
    await open_log(tmp_path / "log", SIGNER).aclose()


_DISK_THAT_FILLS_UP = """
import asyncio, resource, signal, sys
from pathlib import Path
from mesh.core.errors import MeshError
from mesh.identity.log_keys import LogKey
from tests.support.evidence import all_entries, open_log

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signer = LogKey.generate()
    log = open_log(Path(sys.argv[1]), signer)
    await log.record({"id": "before"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
    try:
        await log.record({"id": "does not fit" * 10})
        print("recorded")
    except MeshError as error:
        print(error.reason.code)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await log.record({"id": "after"})
    await log.aclose()
    log = open_log(Path(sys.argv[1]), signer)
    print([entry["id"] for entry in await all_entries(log)])
    await log.aclose()

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_batch_that_only_half_fitted_leaves_no_trace(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", _DISK_THAT_FILLS_UP, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == [Reason.EVIDENCE_UNAVAILABLE.code, "['before', 'after']"], done.stderr


async def check_reopened(folder: Path, total: int) -> None:
    log = open_log(folder, SIGNER)
    await check(log, total)
    await log.record({"id": str(total)})
    await log.aclose()
    assert served(folder, log.key)[0].size == total + 1


async def test_it_refuses_before_memory_is_full_of_what_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mesh.evidence.log.MAX_UNSTORED_BYTES", 10_000)
    stuck = True

    def failpoint(name: str) -> None:
        if stuck and name == "seal:write":
            raise OSError(errno.ENOSPC, "No space left on device")

    log = open_log(tmp_path / "log", SIGNER, failpoint=failpoint)
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        while log.size < 2000:
            await record(log, 50)
    size = log.size
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        await log.checkpoint()
    stuck = False
    await log.checkpoint()
    await record(log, 1)
    await check(log, size + 1)
    await log.aclose()


# --- altered ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log of 1,000 entries that signed for them."""
    folder = tmp_path_factory.mktemp("original") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "FILE_ENTRIES", 300)
        asyncio.run(filled(folder, 200, 200, 200, 200, 200))
    return folder


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def cut_journal(folder: Path) -> None:
    last = journal_files(folder)[-1]
    last.write_bytes(last.read_bytes()[:-5])


def swap_signed_entry(folder: Path) -> None:
    """Another entry in the journal, with every checksum right: as somebody would who knows the format."""
    last = journal_files(folder)[-1]
    first = int(last.name)
    part = journal.read_part(Disk(folder, lambda _: None), first, newest=True)
    entries = [*part.entries[:-1], b'{"id":"another"}']
    last.write_bytes(journal._header(first) + journal._frame(first, entries))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "the journal is gone": lambda folder: shutil.rmtree(folder / "journal"),
    "the journal's last part is gone": lambda folder: journal_files(folder)[-1].unlink(),
    "the journal's end is gone": cut_journal,
    "a byte in the middle of the journal": lambda folder: flip(journal_files(folder)[-1], 60),
    "the journal's header": lambda folder: flip(journal_files(folder)[-1], 9),
    "an entry in the journal, checksums and all": swap_signed_entry,
    "the checkpoint": lambda folder: flip(folder / "checkpoint", 30),
    "the checkpoint is empty": lambda folder: (folder / "checkpoint").write_bytes(b""),
    "a tile on the edge": lambda folder: flip(folder / "tile/0/001"),
    "a tile on the edge is torn": lambda folder: (folder / "tile/0/001").write_bytes(b"x" * 100),
    "a tile on the edge is gone": lambda folder: (folder / "tile/0/000").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_what_is_not_what_was_signed_does_not_open_and_is_left_alone(
    damage: Callable[[Path], object], original: Path, tmp_path: Path
):
    folder = shutil.copytree(original, tmp_path / "log")
    damage(folder)
    before = snapshot(folder)
    with refused(Reason.EVIDENCE_DAMAGED):
        open_log(folder, SIGNER)
    assert snapshot(folder) == before


async def test_another_key_or_name_does_not_open_it(tmp_path: Path):
    folder = tmp_path / "log"
    await filled(folder, 10)
    with refused(Reason.EVIDENCE_DAMAGED):
        open_log(folder, LogKey.generate())
    with refused(Reason.EVIDENCE_DAMAGED):
        MerkleLog.open(folder, origin="de.mesh.example/node/ber-1", signer=SIGNER)
    await open_log(folder, SIGNER).aclose()


async def test_an_older_backup_with_the_newer_checkpoint_does_not_open(tmp_path: Path):
    """The tail that a checkpoint covers is missing: what was signed is never taken back."""
    folder = tmp_path / "log"
    await filled(folder, 10)
    shutil.copytree(folder, tmp_path / "backup")
    await filled(folder, 10)
    shutil.copy(folder / "checkpoint", tmp_path / "backup" / "checkpoint")
    with refused(Reason.EVIDENCE_DAMAGED):
        open_log(tmp_path / "backup", SIGNER)


@pytest.mark.parametrize("damage", ["altered", "torn", "gone"])
async def test_a_damaged_bundle_is_found_when_it_is_read(damage: str, original: Path, tmp_path: Path):
    folder = shutil.copytree(original, tmp_path / "log")
    path = folder / bundle(0)
    if damage == "altered":
        path.write_bytes(path.read_bytes().replace(b'"id":"7"', b'"id":"8"'))
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    log = open_log(folder, SIGNER)
    with refused(Reason.EVIDENCE_DAMAGED):
        await log.entry(100)
    with refused(Reason.EVIDENCE_DAMAGED):
        await log.find("8")
    assert json.loads(await log.entry(300))["id"] == "300"
    await log.record({"id": "1000"})  # what is new is recorded all the same
    await log.aclose()


async def test_a_tile_that_is_altered_while_the_log_is_open_proves_nothing(original: Path, tmp_path: Path):
    folder = shutil.copytree(original, tmp_path / "log")
    log = open_log(folder, SIGNER)
    flip(folder / "tile/0/000", 5)
    with refused(Reason.EVIDENCE_DAMAGED):
        await log.inclusion(3, 1000)
    with refused(Reason.EVIDENCE_DAMAGED):
        await log.entry(3)
    assert await log.inclusion(999, 1000)
    await log.aclose()


async def test_what_could_not_be_cut_off_is_cut_off_before_anything_else_is_written(tmp_path: Path):
    plan = ["append:sync", "cut:truncate", "cut:truncate", "cut:sync"]

    def failpoint(name: str) -> None:
        if plan and name == plan[0]:
            del plan[0]
            raise OSError(errno.EIO, "Input/output error")

    log = open_log(tmp_path / "log", SIGNER, failpoint=failpoint)
    for _ in range(3):  # synced in vain, with what was written left behind; then twice not cut off
        with refused(Reason.EVIDENCE_UNAVAILABLE):
            await log.record({"id": "never"})
    await log.record({"id": "0"})
    assert not plan
    await log.aclose()
    await check_reopened(tmp_path / "log", 1)


async def test_what_was_recorded_before_a_crash_is_signed_after_it(tmp_path: Path):
    log = open_log(tmp_path / "log", SIGNER)
    await record(log, 3)
    shutil.copytree(log.folder, tmp_path / "crashed")
    await log.aclose()
    log = open_log(tmp_path / "crashed", SIGNER, every_s=0.01)
    async with asyncio.timeout(10):
        assert (await log.covering(3)).size == 3
    await log.aclose()


async def test_a_log_that_opens_with_too_much_in_memory_stores_it_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mesh.evidence.publishing.STORE_AT_BYTES", 5_000)
    monkeypatch.setattr("mesh.evidence.log.MAX_UNSTORED_BYTES", 5_000)
    await filled(tmp_path / "log", 290, 290)
    log = open_log(tmp_path / "log", SIGNER)
    async with asyncio.timeout(10):
        while log.size == 580:
            try:
                await log.record({"id": "580"})
            except MeshError:
                await asyncio.sleep(0)
    await check(log, 581)
    await log.aclose()


async def test_the_order_of_what_reaches_the_disk(tmp_path: Path):
    """What a step relies on is durable before it: entries before anybody is told, tiles before their
    checkpoint, bundles before the journal lets go."""
    trace: list[str] = []
    log = open_log(tmp_path / "log", SIGNER, failpoint=trace.append)
    for _ in range(3):
        trace.clear()
        await record(log, 290)
        assert trace[-3:] == ["append:write", "append:sync", "append:done"], "nobody is told before"
        trace.clear()
        await log.checkpoint()
        for purpose in ("seal", "partial", "checkpoint"):
            steps = [step.split(":")[1] for step in trace if step.startswith(f"{purpose}:")]
            if steps:
                order = ["write", "sync", "rename", "folder", "done"]
                assert list(dict.fromkeys(steps)) == order
                assert steps == sorted(steps, key=order.index)
                assert steps.count("write") == steps.count("sync") == steps.count("rename")
        firsts = [trace.index(f"{purpose}:write") for purpose in ("seal", "partial", "checkpoint")]
        assert firsts == sorted(firsts)
        assert trace.index("seal:done") < trace.index("partial:write")
        assert trace.index("partial:done") < trace.index("checkpoint:write")
        if "drop:unlink" in trace:
            assert trace.index("seal:done") < trace.index("drop:unlink")
    await log.aclose()
