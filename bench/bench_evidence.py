"""What evidence costs: entries a second on disk, and proofs by size of the log.

    python -m bench.bench_evidence [--quick] [--json FILE]

Entries are decisions of the usual size. Recording: as many tasks as a busy node has calls under way record
one entry after another in a log that signs every second; the alternative is one file to which the same
entries' bytes are appended in the same batches, each with one fdatasync, and nothing else. The two alternate,
in the same folder. Waiting: how long a request waits for its entry to be on disk, with 16 streams, against
one bare append with fdatasync. Proofs: trees of which the hash tiles are made up and kept in memory, so that
the figures are those of hashing; each proof is built from a tree that has just been restored from its tiles,
then verified.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Row, command, percentile
from mesh.core.merkle import (
    consistency_proof,
    inclusion_proof,
    root_at,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from mesh.core.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, pack_bundle, pack_hashes, parse_hashes
from mesh.evidence import MerkleLog
from mesh.evidence.entries import encode
from mesh.evidence.tree import TiledTree
from mesh.identity.log_keys import LogKey

SCRATCH = Path(__file__).resolve().parents[1] / ".bench"  # on the disk that the repository is on
TASKS = 64
STREAMS = 16
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def an_entry(number: int) -> dict[str, object]:
    """A decision to serve: about 1 kB."""
    return {
        "kind": "serve",
        "id": f"019b0000-0000-7000-8000-{number:012}",
        "at": 1_800_000_000.0 + number,
        "node": "spiffe://de.mesh.example/node/fra-1",
        "caller": "spiffe://fr.mesh.example/client/clinic/desk-1",
        "model": "tiny",
        "context": {
            "data_classes": ["personal", "special-category"],
            "purpose": "care/summarising",
            "tenant": "clinic",
            "digest": hashlib.sha256(str(number).encode()).hexdigest(),
        },
        "decision": {
            "permitted": True,
            "ranked": [{"node": "spiffe://de.mesh.example/node/fra-1", "permitted_by": ["care", "home"]}],
            "refused": [
                {"node": f"spiffe://us.mesh.example/node/iad-{n}", "reason": "POLICY_SENDER_DENIES"}
                for n in range(3)
            ],
            "policies": {
                f"{country}.mesh.example": "sha256:" + hashlib.sha256(country.encode()).hexdigest()
                for country in ("de", "fr")
            },
        },
        "outcome": "served",
    }


# --- recording ------------------------------------------------------------------------------------


async def recorded(folder: Path, entries: list[dict[str, object]]) -> tuple[float, list[int]]:
    """Records them from TASKS tasks; seconds, and the sizes of the batches that were synced together."""
    batches: list[int] = []
    log = MerkleLog.open(folder, origin="bench", signer=LogKey.generate())
    append = log._journal.append

    def counted(first: int, batch: list[bytes]) -> None:
        batches.append(len(batch))
        append(first, batch)

    log._journal.append = counted  # type: ignore[method-assign, assignment]

    async def task(part: list[dict[str, object]]) -> None:
        for entry in part:
            await log.record(entry)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(task(entries[number::TASKS]))
    taken = time.perf_counter() - start
    await log.aclose()
    return taken, batches


def appended(path: Path, entries: list[bytes], batches: list[int]) -> float:
    """Appends the same bytes in the same batches, each with one fdatasync; seconds."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    start = time.perf_counter()
    at = 0
    for count in batches:
        os.write(descriptor, pack_bundle(entries[at : at + count]))
        os.fdatasync(descriptor)
        at += count
    taken = time.perf_counter() - start
    os.close(descriptor)
    return taken


def recording(quick: bool) -> list[Row]:
    """Entries a second against the bare file."""
    count, rounds = (2_000, 2) if quick else (20_000, 7)
    entries = [an_entry(number) for number in range(count)]
    encoded = [encode(entry) for entry in entries]
    ours: list[float] = []
    bare: list[float] = []
    sizes: list[float] = []
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="evidence-") as folder:
        for number in range(rounds):
            taken, batches = asyncio.run(recorded(Path(folder) / f"log-{number}", entries))
            ours.append(count / taken)
            bare.append(count / appended(Path(folder) / f"bare-{number}", encoded, batches))
            sizes.append(count / len(batches))
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return [
        Row("entries/s recorded, over bare batches with fdatasync", ratio, "x", 0.8, at_least=True),
        Row(
            "entries/s recorded, 64 at once", statistics.median(ours), "1/s", against=statistics.median(bare)
        ),
        Row("entries synced together", statistics.median(sizes), ""),
        Row("bytes of an entry", statistics.mean(map(len, encoded)), "B"),
    ]


# --- what a request waits for it ------------------------------------------------------------------


async def waited(folder: Path, seconds: float) -> list[float]:
    """Seconds that each of 16 streams waited for its decisions to be on disk; each has some ten a second."""
    log = MerkleLog.open(folder, origin="bench", signer=LogKey.generate())
    waits: list[float] = []
    ends = time.perf_counter() + seconds

    async def stream(number: int) -> None:
        chance = random.Random(number)
        while time.perf_counter() < ends:
            await asyncio.sleep(chance.uniform(0.05, 0.15))
            began = time.perf_counter()
            await log.record(an_entry(number))
            waits.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(stream(number))
    await log.aclose()
    return waits


def synced(path: Path, count: int) -> list[float]:
    """Seconds of one append and fdatasync of an entry's bytes, now and then."""
    entry = encode(an_entry(0))
    taken: list[float] = []
    with path.open("ab", buffering=0) as file:
        for _ in range(count):
            time.sleep(0.02)
            began = time.perf_counter()
            file.write(entry)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return taken


def waiting(quick: bool) -> list[Row]:
    """What recording adds to the time to the first token, with 16 streams."""
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="evidence-") as folder:
        for number in range(1 if quick else 5):
            ours += asyncio.run(waited(Path(folder) / f"log-{number}", 1.0 if quick else 5.0))
            bare += synced(Path(folder) / f"bare-{number}", 20 if quick else 100)
    return [
        Row(
            f"added to a request by recording, {STREAMS} streams, {name}",
            1e3 * percentile(ours, share),
            "ms",
            aim,
            against=1e3 * percentile(bare, share),
        )
        for name, share, aim in (("p50", 0.5, 1.0), ("p99", 0.99, None))
    ]


# --- proofs ---------------------------------------------------------------------------------------


class MadeUp:
    """The tiles of a log of so many entries that nobody wrote: leaf hashes by number, the rest from them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._above: list[bytes] = []  # every hash of level 1: the roots of full tiles of level 0
        for number in range(size >> TILE_HEIGHT):
            self._above.append(root_of(parse_hashes(self._leaves(number, TILE_WIDTH))))

    def tree(self) -> TiledTree:
        """A tree as it is when a log has just been opened: nothing but the edge in memory."""
        even = self.size - self.size % TILE_WIDTH
        tree = TiledTree.restored(even, self._load)
        tree.append(parse_hashes(self._leaves(even >> TILE_HEIGHT, self.size - even), self.size - even))
        return tree

    def leaf(self, index: int) -> bytes:
        """The hash of an entry."""
        return self._leaves(index >> TILE_HEIGHT, TILE_WIDTH)[index % TILE_WIDTH * 32 :][:32]

    def _leaves(self, number: int, width: int) -> bytes:
        return hashlib.shake_256(number.to_bytes(8, "big")).digest(width * 32)

    def _load(self, tile: Tile) -> bytes:
        if tile.level == 0:
            return self._leaves(tile.index, TILE_WIDTH)
        row = self._above
        for _ in range(tile.level - 1):
            row = [root_of(row[i : i + TILE_WIDTH]) for i in range(0, len(row) - TILE_WIDTH + 1, TILE_WIDTH)]
        return pack_hashes(row[tile.index << TILE_HEIGHT : (tile.index + 1) << TILE_HEIGHT])


def proofs_of(size: int, rounds: int) -> list[Row]:
    """Both kinds of proofs of a log of this size."""
    rng = random.Random(size)
    made = MadeUp(size)
    tree = made.tree()
    root = root_at(tree.read, size)
    longest = 0
    build: list[float] = []
    check: list[float] = []
    for _ in range(rounds):
        index, old = rng.randrange(size), rng.randrange(1, size)
        leaf, old_root = made.leaf(index), root_at(tree.read, old)
        fresh = made.tree()  # so that no tile is in its cache
        for prove, verify in (
            (
                lambda index=index, fresh=fresh: inclusion_proof(fresh.read, index, size),
                lambda proof, leaf=leaf, index=index: verify_inclusion(leaf, index, size, proof, root),
            ),
            (
                lambda old=old, fresh=fresh: consistency_proof(fresh.read, old, size),
                lambda proof, old=old, old_root=old_root: verify_consistency(
                    old, size, old_root, root, proof
                ),
            ),
        ):
            taken, proof = timed(prove)
            build.append(taken)
            check.append(timed(lambda verify=verify, proof=proof: verify(proof))[0])
            longest = max(longest, len(proof))
    what = f"log of {size:,}"
    return [
        Row(f"{what}: longest proof", longest, "hashes", size.bit_length() + 1),
        Row(f"{what}: proof built, tiles not in memory, p50", statistics.median(build) * 1e6, "us"),
        Row(f"{what}: proof verified, p50", statistics.median(check) * 1e6, "us"),
    ]


def timed(work: Callable[[], tuple[bytes, ...]]) -> tuple[float, tuple[bytes, ...]]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(quick: bool) -> list[Row]:
    """All rows; two minutes, or seconds if quick."""
    rows = [*recording(quick), *waiting(quick)]
    for size in SIZES[:-1] if quick else SIZES:
        rows += proofs_of(size, 5 if quick else 50)
    smallest, largest = rows[-3 * (len(SIZES) - quick) + 2], rows[-1]
    growth = largest.value / smallest.value
    rows.append(Row("verifying in the largest log over the smallest", growth, "x", 4))
    return rows


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))
