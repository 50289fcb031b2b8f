"""Where a process gets its identity from while it runs: the current SVID and the accepted bundles.

One source per process. TLS credentials (tls.py) and signers ask it each time, so that a renewal or a
new root takes effect without a restart. Memory first, disk second: a full disk costs a restart its
newest certificate, never a running node its service. The source knows no enrolment protocol: whoever
runs it passes a `renew` callable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.acceptance import accept_bundles
from mesh.identity.bundle import load_bundle_file, save_bundle
from mesh.identity.keys import make_key_and_csr
from mesh.identity.private_files import make_private_directory, sync_directory
from mesh.identity.signing import Signer
from mesh.identity.svid import Svid, load_svid, save_svid
from mesh.identity.verify import verify_chain

# Given a CSR (DER), returns the new chain (DER, leaf first) and the bundles to accept from now on,
# empty for no change. Raises MeshError or OSError when that fails.
Renew = Callable[[bytes], Awaitable[tuple[tuple[bytes, ...], tuple[TrustBundle, ...]]]]

# Retries double from the first pause to the last: half a life of 24 h has room for 24 of the longest,
# while a control plane that comes back is found within half an hour at most.
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 1800.0
# Each pause is drawn from 50 to 100 % of itself, so that nodes do not retry in step.
JITTER = 0.5
# However long there is to wait, look at the clock this often: it may be set, or the machine may sleep.
LONGEST_NAP_S = 60.0
BUNDLE_DIRECTORY = "bundles"

_log = logging.getLogger(__name__)


class SvidSource:
    """The current SVID and bundles of one process; thread-safe to read, one thread changes it.

    `version` counts changes. Reads are of immutable values, so a reader sees the old state or the new.
    """

    def __init__(
        self,
        svid: Svid,
        bundles: Iterable[TrustBundle],
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        directory: Path | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._svid = svid
        self._bundles, _ = self._accepted(bundles)
        self._clock = clock
        self._random = random
        self._directory = directory
        self._sleep = sleep
        self._version = 1
        self._subscribers: list[Callable[[], None]] = []
        self._wanted = asyncio.Event()
        self._unsaved = False
        self.last_error = ""

    @classmethod
    def load(
        cls,
        directory: Path | str,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> SvidSource:
        """Reads what `save` wrote. NOT_FOUND if nobody has enrolled; CONFIG_INVALID, BUNDLE_INVALID.

        Other domains' bundles that cannot be read are left out: the federation record brings them anew.
        """
        path = Path(directory)
        svid = load_svid(path)
        own = load_bundle_file(path / BUNDLE_DIRECTORY / f"{svid.id.trust_domain}.json")
        others: list[TrustBundle] = []
        for file in sorted((path / BUNDLE_DIRECTORY).glob("*.json")):
            try:
                others.append(load_bundle_file(file))
            except MeshError as error:
                _log.warning("trust bundle %s is left out: %s", file.name, error)
        return cls(svid, [own, *others], clock=clock, random=random, directory=path, sleep=sleep)

    @property
    def svid(self) -> Svid:
        """Who we are now."""
        return self._svid

    @property
    def id(self) -> SpiffeId:
        """Our name; it never changes."""
        return self._svid.id

    @property
    def signer(self) -> Signer:
        """Signs in our name with the current key: ask anew for every signature."""
        return self._svid.signer

    @property
    def bundles(self) -> Mapping[str, TrustBundle]:
        """Accepted bundles by trust domain, the own one first."""
        return self._bundles

    @property
    def version(self) -> int:
        """Rises with every change."""
        return self._version

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls `changed` after every change; returns what ends that."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    def set_bundles(self, bundles: Iterable[TrustBundle]) -> tuple[str, ...]:
        """Replaces the accepted bundles: new ones are accepted and missing ones dropped from here on.

        Returns the trust domains whose bundle is not fit to be accepted: they are left out, so that one
        bad bundle does not keep another from being dropped. Without a good bundle of the own trust
        domain it raises BUNDLE_INVALID and changes nothing.
        """
        accepted, refused = self._accepted(bundles)
        if accepted != self._bundles:
            self._bundles = accepted
            self._changed()
        return refused

    def rotate(self, svid: Svid) -> None:
        """Takes a renewed certificate and its key into use.

        Raises IDENTITY_* and changes nothing if it is not in our name, valid and under our own roots.
        """
        if svid.id != self.id:
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, f"expected a certificate for {self.id}")
        verify_chain(svid.chain, self._bundles, self._clock())
        self._svid = svid
        self._changed()

    def save(self) -> None:
        """Writes SVID and bundles into the directory; does nothing without one. Raises OSError."""
        if self._directory is None:
            return
        bundles = self._directory / BUNDLE_DIRECTORY
        make_private_directory(self._directory)
        make_private_directory(bundles)
        save_svid(self._directory, self._svid)
        for bundle in self._bundles.values():
            save_bundle(bundles, bundle)
        for file in bundles.glob("*.json"):
            if file.stem not in self._bundles:
                file.unlink()
        sync_directory(bundles)

    def request_renewal(self) -> None:
        """Makes `run` renew now rather than at half life."""
        self._wanted.set()

    async def run(self, renew: Renew) -> None:
        """Renews at half life, for ever; cancel it to end it. Failures are retried with growing pauses.

        Each attempt makes a new key, which never leaves this process but for its own private file.
        """
        pause = FIRST_RETRY_S
        while True:
            if not self._wanted.is_set() and not self._unsaved:
                await self._wait_until(self._svid.half_life)
            try:
                await self._attempt(renew)
            except (MeshError, OSError) as error:
                self.last_error = str(error) or type(error).__name__
                _log.warning("renewal of %s failed, trying again: %s", self.id, self.last_error)
                await self._sleep(pause * (1 - JITTER * self._random()))
                pause = min(2 * pause, self._longest_pause())
            else:
                self.last_error = ""
                pause = FIRST_RETRY_S

    async def _attempt(self, renew: Renew) -> None:
        if not self._unsaved:
            self._wanted.clear()
            key, csr = make_key_and_csr()
            try:
                chain, bundles = await renew(csr)
                if bundles:
                    self.set_bundles(bundles)
                self.rotate(Svid(chain, key))
            except BaseException:
                self._wanted.set()
                raise
            self._unsaved = True
        await asyncio.to_thread(self.save)
        self._unsaved = False

    def _longest_pause(self) -> float:
        # near the end of a short life, try more often: a tenth of what is left
        return max(FIRST_RETRY_S, min(LAST_RETRY_S, (self._svid.not_after - self._clock()) / 10))

    async def _wait_until(self, moment: float) -> None:
        while not self._wanted.is_set() and (left := moment - self._clock()) > 0:
            nap = asyncio.ensure_future(self._sleep(min(left, LONGEST_NAP_S)))
            asked = asyncio.ensure_future(self._wanted.wait())
            try:
                await asyncio.wait({nap, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                nap.cancel()
                asked.cancel()

    def _accepted(self, bundles: Iterable[TrustBundle]) -> tuple[Mapping[str, TrustBundle], tuple[str, ...]]:
        accepted, refused = accept_bundles(bundles, self._svid.id.trust_domain)
        for trust_domain, why in refused.items():
            _log.warning("the trust bundle of %s is not accepted: %s", trust_domain, why)
        return accepted, tuple(refused)

    def _changed(self) -> None:
        self._version += 1
        for changed in tuple(self._subscribers):
            try:
                changed()
            except Exception:
                _log.exception("a subscriber to identity changes failed")
