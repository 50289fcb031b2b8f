"""Workers that read files: shut in, replaced when they die, and gone when they should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.core.errors import MeshError, Reason
from node.index.documents import ParsedDocument
from node.index.parsing import media
from node.index.parsing.limits import ParseLimits
from node.index.parsing.pool import ParserPool
from tests.support.files import WORDS, one_of_each
from tests.support.parsers import DEFAULTS, alive, proc, read, start_parent, texts, worker_pids
from tests.support.waiting import until

pytestmark = pytest.mark.slow

MIB = 1 << 20
TITLED = {media.HTML, media.MARKDOWN, media.DOCX}
SLOW_HTML = b"<div>" * 300_000  # many seconds of work


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with closing(ParserPool()) as made:
        yield made


@contextlib.asynccontextmanager
async def closing(pool: ParserPool) -> AsyncIterator[ParserPool]:
    try:
        yield pool
    finally:
        pids = worker_pids(pool)
        await pool.aclose()
        assert not any(map(alive, pids))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """More rows than fit into a pipe, so that a worker is in the middle while nobody takes them."""
    path = tmp_path / "rows"
    path.write_bytes(b"".join(b'{"text": "row %d %s"}\n' % (n, b"x" * 1000) for n in range(5000)))
    return path


async def drained(reading: AsyncIterator[object]) -> int:
    return len([found async for found in reading])


async def test_every_kind_is_read(pool: ParserPool, tmp_path: Path) -> None:
    for kind, data in one_of_each().items():
        (found,) = await read(pool, tmp_path / "f", kind, data)  # type: ignore[misc] # it was read
        assert isinstance(found, ParsedDocument)
        assert WORDS in [block.text for block in found.blocks], kind
        assert found.meta.title == ("Rules" if kind in TITLED else "")
    assert len(worker_pids(pool)) == 1


async def test_a_worker_killed_in_the_middle_costs_one_file(
    pool: ParserPool, rows: Path, tmp_path: Path
) -> None:
    reading = pool.parse(rows, media.JSONL, DEFAULTS)
    await anext(reading)
    (pid,) = worker_pids(pool)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(MeshError) as refusal:
        await drained(reading)
    assert refusal.value.reason is Reason.DOCUMENT_UNREADABLE
    assert texts(await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())) == [WORDS]
    assert worker_pids(pool) != [pid]


async def test_a_worker_killed_while_it_waits_costs_nothing(pool: ParserPool, tmp_path: Path) -> None:
    await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())
    (pid,) = worker_pids(pool)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))
    assert texts(await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())) == [WORDS]


@pytest.mark.parametrize(
    ("limits", "kind", "data", "reason"),
    [
        (ParseLimits(wall_s=0.3), media.HTML, SLOW_HTML, Reason.DOCUMENT_UNREADABLE),
        (ParseLimits(cpu_s=0), media.HTML, SLOW_HTML, Reason.DOCUMENT_UNREADABLE),
        (ParseLimits(memory_bytes=160 * MIB), media.TEXT, b"x " * (30 * MIB), Reason.DOCUMENT_TOO_LARGE),
        (ParseLimits(text_bytes=1000), media.TEXT, b"x" * 1001, Reason.DOCUMENT_TOO_LARGE),
        (ParseLimits(rows=2), media.JSONL, b'{"text": "x"}\n' * 3, Reason.DOCUMENT_TOO_LARGE),
    ],
    ids=["wall clock", "cpu", "memory", "text", "rows"],
)
async def test_limits_hold_and_the_next_file_is_read(
    limits: ParseLimits, kind: str, data: bytes, reason: Reason, tmp_path: Path
) -> None:
    async with closing(ParserPool(limits=limits)) as pool:
        outcome = await read(pool, tmp_path / "f", kind, data)
        assert isinstance(outcome, MeshError)
        assert outcome.reason is reason
        if kind == media.HTML:
            assert "longer than is allowed" in outcome.message
        assert texts(await read(pool, tmp_path / "f", media.TEXT, b"small")) == ["small"]


async def test_a_worker_is_replaced_after_its_number_of_files(tmp_path: Path) -> None:
    async with closing(ParserPool(limits=ParseLimits(files_per_worker=2))) as pool:
        seen = []
        for _ in range(2):
            await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())
            seen.append(worker_pids(pool))
        assert len(seen[0]) == 1
        assert seen[1] == []
        assert not alive(seen[0][0])


async def test_a_refusal_for_metadata_costs_no_worker(pool: ParserPool, tmp_path: Path) -> None:
    await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())
    before = worker_pids(pool)
    outcome = await read(pool, tmp_path / "f", media.TEXT, b"---\ntenant: other\n---\nx")
    assert isinstance(outcome, MeshError)
    assert outcome.reason is Reason.DOCUMENT_INVALID
    assert worker_pids(pool) == before


async def test_who_leaves_early_leaves_nothing_running(pool: ParserPool, rows: Path, tmp_path: Path) -> None:
    async with contextlib.aclosing(pool.parse(rows, media.JSONL, DEFAULTS)) as reading:
        async for _ in reading:
            (pid,) = worker_pids(pool)
            break
    assert not alive(pid)
    assert texts(await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())) == [WORDS]


async def test_two_workers_read_at_once(rows: Path, tmp_path: Path) -> None:
    async with (
        closing(ParserPool(workers=2)) as pool,
        contextlib.aclosing(pool.parse(rows, media.JSONL, DEFAULTS)) as reading,
    ):
        await anext(reading)
        assert texts(await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())) == [WORDS]
        assert len(worker_pids(pool)) == 2


async def test_closing_ends_what_reads(rows: Path) -> None:
    pool = ParserPool()
    begun = asyncio.Event()

    async def slow() -> None:
        async for _ in pool.parse(rows.with_name("slow"), media.HTML, DEFAULTS):
            pass

    async def streamed() -> None:
        async for _ in pool.parse(rows, media.JSONL, DEFAULTS):
            begun.set()

    rows.with_name("slow").write_bytes(SLOW_HTML)
    reader = asyncio.create_task(slow())
    waiting = asyncio.create_task(streamed())  # for the only worker
    await until(lambda: [pid for pid in worker_pids(pool) if pid])
    pids = worker_pids(pool)
    await pool.aclose()
    for task in (reader, waiting):
        with pytest.raises(MeshError) as refusal:
            await asyncio.wait_for(task, 20)
        assert refusal.value.reason is Reason.INDEX_UNAVAILABLE
    assert not begun.is_set()
    assert not any(map(alive, pids))
    assert worker_pids(pool) == []


async def test_a_worker_is_shut_in(pool: ParserPool, tmp_path: Path) -> None:
    await read(pool, tmp_path / "f", media.TEXT, WORDS.encode())
    (pid,) = worker_pids(pool)
    lines = proc(pid, "limits").splitlines()[1:]
    limits = {line[:26].strip(): line[26:].split()[1] for line in lines}
    assert limits["Max address space"] == str(512 * MIB)
    assert limits["Max file size"] == "0"
    assert limits["Max core file size"] == "0"
    assert limits["Max processes"] == "0"
    assert limits["Max open files"] == "32"
    assert "NoNewPrivs:\t1" in proc(pid, "status")
    assert os.getpgid(pid) == pid
    if pool.isolated:
        assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


PARENT = """
import asyncio, sys
from pathlib import Path
from node.index.parsing import media
from node.index.parsing.pool import ParserPool
from tests.support.parsers import DEFAULTS, worker_pids

async def main():
    pool = ParserPool(workers=2)
    async for _ in pool.parse(Path(sys.argv[1]), media.JSONL, DEFAULTS):
        async def slow():
            async for _ in pool.parse(Path(sys.argv[2]), media.HTML, DEFAULTS): pass
        task = asyncio.create_task(slow())
        while not (len(worker_pids(pool)) == 2 and pool._busy and all(not w.at_rest for w in pool._busy)):
            await asyncio.sleep(0.01)
        print(*worker_pids(pool), flush=True)
        await task

asyncio.run(main())
"""


async def test_workers_die_with_their_parent(rows: Path) -> None:
    slow = rows.with_name("slow")
    slow.write_bytes(SLOW_HTML)
    parent = start_parent(PARENT, str(rows), str(slow))
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        parent.kill()
        await until(lambda: not any(map(alive, pids)))
    finally:
        parent.kill()
        parent.communicate()


async def test_i1_nothing_of_a_file_is_printed_or_named(
    pool: ParserPool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "Zebra-77"
    for kind in sorted(media.MEDIA):
        outcome = await read(pool, tmp_path / secret, kind, secret.encode() + b"\xff\x00" * 100)
        assert isinstance(outcome, list) or secret not in str(outcome)
    data = json.dumps({"text": "x", "classes": secret}).encode()
    outcome = await read(pool, tmp_path / secret, media.JSONL, data)
    assert isinstance(outcome, list)
    assert secret not in str(outcome)
    (pid,) = worker_pids(pool)
    assert secret not in proc(pid, "cmdline")
    assert secret not in "".join(capfd.readouterr())
