"""The source of a process's identity: kept on disk, renewed at half life, changed under its users."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity import source as source_module
from mesh.identity.keys import generate_key
from mesh.identity.source import SvidSource
from mesh.identity.svid import Svid, load_svid, save_svid
from tests.support.identities import AuthorityForTests, root_certificate

NOW = 1_800_000_000.0
TTL = 86_400.0


class World:
    """A clock that moves when somebody sleeps, until it is `enough`; and an authority that renews, or not."""

    def __init__(self, authority: AuthorityForTests, directory: Path | None = None) -> None:
        self.now = NOW
        self.naps: list[float] = []
        self.authority = authority
        self.failures: list[Exception] = []
        self.bundles: tuple[TrustBundle, ...] = ()
        self.requests: list[bytes] = []
        self.settled = asyncio.Event()
        self.enough: Callable[[], bool] = lambda: bool(self.requests) and self.source.last_error == ""
        svid = authority.svid("/node/fra-1", TTL, NOW)
        self.source = SvidSource(
            svid,
            [authority.bundle],
            clock=lambda: self.now,
            random=lambda: 0.0,
            directory=directory,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        if self.enough():
            self.settled.set()
            await asyncio.Event().wait()
        self.naps.append(seconds)
        self.now += seconds

    async def renew(self, csr: bytes) -> tuple[tuple[bytes, ...], tuple[TrustBundle, ...]]:
        self.requests.append(csr)
        if self.failures:
            raise self.failures.pop(0)
        return self.authority.ca.issue(csr, self.source.id, TTL, self.now), self.bundles

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.source.run(self.renew))
        try:
            async with asyncio.timeout(10):
                yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_it_renews_at_half_life_with_a_new_key(de: AuthorityForTests) -> None:
    world = World(de)
    before = world.source.svid
    changes: list[str] = []
    stop = world.source.subscribe(lambda: changes.append(world.source.svid.serial))
    async with world.running():
        await world.settled.wait()
    assert world.now == pytest.approx(before.half_life)
    assert max(world.naps) <= 60
    after = world.source.svid
    assert after.serial != before.serial
    assert after.key.public_key() != before.key.public_key()
    assert changes == [after.serial]
    assert world.source.version == 2
    assert world.source.signer.not_after == after.not_after
    stop()
    world.source.rotate(de.svid("/node/fra-1", TTL, world.now))
    assert len(changes) == 1


async def test_failures_are_retried_with_growing_pauses(de: AuthorityForTests) -> None:
    world = World(de)
    world.failures = [MeshError(Reason.UNREACHABLE, "no answer"), OSError(5, "broken"), *[OSError()] * 12]
    half_life = world.source.svid.half_life
    async with world.running():
        await world.settled.wait()
    assert world.source.last_error == ""
    waited = world.naps.index(next(nap for nap in world.naps if nap < 60 and nap != (half_life - NOW) % 60))
    pauses = world.naps[waited:]
    assert len(pauses) == len(world.requests) - 1 == 14
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert pauses[-4:] == [1024, 1800, 1800, 1800]
    assert world.source.svid.not_before > NOW


async def test_a_wrong_answer_changes_nothing(de: AuthorityForTests, us: AuthorityForTests) -> None:
    world = World(de)
    before = world.source.svid
    wrong = [
        de.svid("/node/fra-2", TTL, NOW),  # another name
        us.forged_svid(
            "spiffe://de.mesh.example/node/fra-1", "fra-1.node.de.mesh.example"
        ),  # another authority
        de.svid("/node/fra-1", TTL, NOW - 2 * TTL),  # over
    ]
    for svid in wrong:
        with pytest.raises(MeshError):
            world.source.rotate(svid)
    assert world.source.svid is before
    assert world.source.version == 1


async def test_it_renews_when_asked(de: AuthorityForTests) -> None:
    world = World(de)
    asked = asyncio.Event()

    async def forever(seconds: float) -> None:
        (world.settled if world.requests else asked).set()
        await asyncio.Event().wait()

    world.source._sleep = forever
    before = world.source.svid.serial
    async with world.running():
        await asked.wait()
        world.source.request_renewal()
        await world.settled.wait()
    assert world.source.svid.serial != before
    assert world.now == NOW


async def test_new_bundles_come_with_a_renewal(de: AuthorityForTests, us: AuthorityForTests) -> None:
    world = World(de)
    world.bundles = (us.bundle, de.bundle)
    async with world.running():
        await world.settled.wait()
    assert list(world.source.bundles) == ["de.mesh.example", "us.mesh.example"]  # the own one first


def test_bundles_that_are_not_fit_are_left_out(de: AuthorityForTests, us: AuthorityForTests) -> None:
    source = de.source("/node/fra-1", [us.bundle])
    bad = TrustBundle("fr.mesh.example", us.bundle.roots)
    assert source.set_bundles([de.bundle, bad]) == ("fr.mesh.example",)
    assert list(source.bundles) == ["de.mesh.example"]  # and us is dropped all the same
    version = source.version
    source.set_bundles([de.bundle])
    assert source.version == version  # no change, no news
    for unfit in ([us.bundle], [], [TrustBundle("de.mesh.example", us.bundle.roots)]):
        with pytest.raises(MeshError) as caught:
            source.set_bundles(unfit)
        assert caught.value.reason is Reason.BUNDLE_INVALID
    assert list(source.bundles) == ["de.mesh.example"]


def test_a_root_under_anothers_subject_is_left_out(de: AuthorityForTests) -> None:
    """It could not speak for the other, but TLS stacks find roots by subject: it would be in the way."""
    root = root_certificate("fr.mesh.example", subject=de.root.subject)
    source = de.source("/node/fra-1")
    assert source.set_bundles([TrustBundle("fr.mesh.example", (root,)), de.bundle]) == ("fr.mesh.example",)
    assert list(source.bundles) == ["de.mesh.example"]


def test_a_subscriber_that_fails_does_not_keep_the_others(de: AuthorityForTests) -> None:
    source = de.source("/node/fra-1")
    told: list[int] = []

    def fails() -> None:
        raise RuntimeError

    source.subscribe(fails)
    source.subscribe(lambda: told.append(source.version))
    source.rotate(de.svid("/node/fra-1"))
    assert told == [2]


def load(directory: Path) -> SvidSource:
    return SvidSource.load(directory, clock=lambda: NOW, random=lambda: 0.0)


def test_saved_and_loaded(de: AuthorityForTests, us: AuthorityForTests, tmp_path: Path) -> None:
    directory = tmp_path / "svid"
    source = de.source("/node/fra-1", [us.bundle], directory=directory)
    source.save()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "svid.key").stat().st_mode & 0o777 == 0o600
    again = load(directory)
    assert (again.id, again.svid.serial, again.bundles) == (source.id, source.svid.serial, source.bundles)
    source.set_bundles([de.bundle])
    source.save()
    assert list(load(directory).bundles) == ["de.mesh.example"]


def test_loading_what_is_not_there_or_not_private(de: AuthorityForTests, tmp_path: Path) -> None:
    with pytest.raises(MeshError) as caught:
        load(tmp_path)
    assert caught.value.reason is Reason.NOT_FOUND
    directory = tmp_path / "svid"
    de.source("/node/fra-1", directory=directory).save()
    (directory / "svid.key").chmod(0o644)
    with pytest.raises(MeshError) as caught:
        load(directory)
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_broken_bundle_of_another_domain_does_not_keep_a_node_from_starting(
    de: AuthorityForTests, us: AuthorityForTests, tmp_path: Path
) -> None:
    de.source("/node/fra-1", [us.bundle], directory=tmp_path).save()
    (tmp_path / "bundles" / "us.mesh.example.json").write_bytes(b"{")
    assert list(load(tmp_path).bundles) == ["de.mesh.example"]
    (tmp_path / "bundles" / "de.mesh.example.json").write_bytes(b"{")
    with pytest.raises(MeshError) as caught:
        load(tmp_path)
    assert caught.value.reason is Reason.BUNDLE_INVALID


@pytest.mark.parametrize("crash_after", [0, 1, 2])
def test_a_crash_between_key_and_certificate(
    de: AuthorityForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_after: int
) -> None:
    """Whenever it stops, what is on disk is the old SVID or the new one, complete."""
    old, new = de.svid("/node/fra-1"), de.svid("/node/fra-1")
    save_svid(tmp_path, old)
    writes = 0
    from mesh.identity import svid as svid_module

    real = svid_module.write_file

    def write(*args: object, **options: object) -> None:
        nonlocal writes
        if writes == crash_after:
            raise OSError(28, "No space left on device")
        writes += 1
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(svid_module, "write_file", write)
    if crash_after < 2:
        with pytest.raises(OSError, match="No space"):
            save_svid(tmp_path, new)
        assert load_svid(tmp_path).serial == old.serial
    else:
        monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):  # noqa: PT011
            save_svid(tmp_path, new)
        assert load_svid(tmp_path).serial == new.serial
    monkeypatch.undo()
    save_svid(tmp_path, new)
    assert load_svid(tmp_path).serial == new.serial


def test_loading_while_another_process_renews(
    de: AuthorityForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal comes right after the certificate was read: the key on disk is another one by then."""
    from mesh.identity import svid as svid_module

    old, new = de.svid("/node/fra-1"), de.svid("/node/fra-1")
    save_svid(tmp_path, old)
    real = svid_module.read_file
    renewed = False

    def read(path: Path, **options: object) -> bytes:
        nonlocal renewed
        found = real(path, **options)  # type: ignore[arg-type]
        if not renewed:
            renewed = True
            save_svid(tmp_path, new)
        return found

    monkeypatch.setattr(svid_module, "read_file", read)
    assert load_svid(tmp_path).serial == new.serial


async def test_a_full_disk_does_not_stop_a_renewal(
    de: AuthorityForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(de, tmp_path)
    world.source.save()
    old = world.source.svid.serial
    refusals = [OSError(28, "No space left on device")] * 3
    real = save_svid

    def full(directory: Path, svid: Svid) -> None:
        if refusals:
            raise refusals.pop()
        real(directory, svid)

    monkeypatch.setattr(source_module, "save_svid", full)
    in_memory: list[str] = []
    world.source.subscribe(lambda: in_memory.append(load_svid(tmp_path).serial))
    async with world.running():
        await world.settled.wait()
    assert in_memory == [old]  # in use before it was on the disk
    assert refusals == []
    assert len(world.requests) == 1  # only the writing was tried again
    assert load_svid(tmp_path).serial == world.source.svid.serial != old


def test_an_svid_never_shows_its_key(de: AuthorityForTests) -> None:
    assert "PRIVATE" not in repr(de.svid("/node/fra-1"))
    with pytest.raises(MeshError):
        Svid(de.svid("/node/fra-1").chain, generate_key())
    with pytest.raises(MeshError):
        Svid((), generate_key())
