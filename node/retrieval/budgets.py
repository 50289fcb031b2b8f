"""What one asker may take out of an index: searches a minute, passages a day.

Without it an index could be copied by asking: every search that releases passages gives a hundred of
them. So texts are counted at the node that holds them (snippets, passages, passages that an answer cites,
fetches), by requester's trust domain and tenant, at home and abroad alike. Another authority can make any
number of tenants: all of its tenants together get `per_authority_factor` times what one gets.

Rules kept here:

- What is released is charged before it is sent. A charge that cannot be paid in full is refused whole.
- A UTC day's charges are on disk before the charge returns: a restart does not fill anything up again.
- Refusals are BUDGET_EXHAUSTED and say when to ask again.

`Ledger` is pure, time is an argument; `Budgets` adds the clock and SQLite. They know nothing of texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mesh.core.bounded import Bounded
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import DEPTH
from mesh.core.types import SpiffeId

_DAY_S = 86_400
_MINUTE_S = 60.0
# A clock that was set wrong and right again finds what was charged before.
_DAYS_KEPT = 3
# Tenants of one authority that are forgotten begin anew; their authority's total is kept apart.
_RATES_REMEMBERED = 16_384


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Of one tenant: searches a minute (as many at once, and then so many a minute), released texts a UTC
    day, the deepest ranking."""

    searches_per_minute: int = 600
    passages_per_day: int = 10_000
    depth: int = DEPTH
    per_authority_factor: int = 10


class Account(NamedTuple):
    """Who pays. No tenant: all of a foreign authority's tenants together."""

    trust_domain: str
    tenant: str


class Charge(NamedTuple):
    """What an account has taken on a day (days since 1970), as a total."""

    day: int
    account: Account
    passages: int


class Ledger:
    """Decides and counts, in memory. `home` is the node's own trust domain; `now` is Unix seconds."""

    def __init__(self, limits: BudgetLimits, home: str) -> None:
        self._limits = limits
        self._home = home
        # account -> (searches not yet made up for, as of when)
        self._tenants: Bounded[Account, tuple[float, float]] = Bounded(_RATES_REMEMBERED)
        self._authorities: Bounded[Account, tuple[float, float]] = Bounded(_RATES_REMEMBERED)
        self._days: dict[int, dict[Account, int]] = {}

    def restore(self, charges: Iterable[Charge]) -> None:
        """Takes over what was charged before a restart."""
        for charge in charges:
            self._days.setdefault(charge.day, {})[charge.account] = charge.passages

    def require_depth(self, depth: int) -> None:
        """BUDGET_EXHAUSTED if a ranking may not be so deep."""
        if depth > self._limits.depth:
            raise MeshError(
                Reason.BUDGET_EXHAUSTED, f"depth: this node ranks at most {self._limits.depth} for a caller"
            )

    def search(self, requester: SpiffeId, now: float) -> None:
        """Counts one search, or raises BUDGET_EXHAUSTED with when the next may come; then nothing counts."""
        spent = []
        for account, factor in self._accounts(requester):
            rates = self._tenants if account.tenant else self._authorities
            size = self._limits.searches_per_minute * factor
            used, since = rates.get(account) or (0.0, now)
            used = max(0.0, used - max(0.0, now - since) * size / _MINUTE_S)
            if used + 1 > size:
                wait = (used + 1 - size) * _MINUTE_S / size
                raise MeshError(
                    Reason.BUDGET_EXHAUSTED,
                    f"{_whose(account)} may search {size} times a minute here",
                    {},
                    wait,
                )
            spent.append((rates, account, used + 1))
        for rates, account, used in spent:
            rates.put(account, (used, now))

    def charge(self, requester: SpiffeId, passages: int, now: float) -> tuple[Charge, ...]:
        """Takes so many texts from today's budget; what is to be kept on disk.

        BUDGET_EXHAUSTED, with the time until midnight UTC, if they are more than is left; then nothing is
        taken.
        """
        day = int(now // _DAY_S)
        taken = self._days.setdefault(day, {})
        charges = []
        for account, factor in self._accounts(requester):
            size = self._limits.passages_per_day * factor
            total = taken.get(account, 0) + passages
            if total > size:
                raise MeshError(
                    Reason.BUDGET_EXHAUSTED,
                    f"{_whose(account)} may take {size} passages a day from this node",
                    {},
                    (day + 1) * _DAY_S - now,
                )
            charges.append(Charge(day, account, total))
        if not passages:
            return ()
        for charge in charges:
            taken[charge.account] = charge.passages
        for old in [each for each in self._days if each < day - _DAYS_KEPT]:
            del self._days[old]
        return tuple(charges)

    def _accounts(self, requester: SpiffeId) -> list[tuple[Account, int]]:
        """Each with how many times a tenant's budget it has."""
        accounts = [(Account(requester.trust_domain, requester.tenant or f"/{requester.kind}"), 1)]
        if requester.trust_domain != self._home:
            accounts.append((Account(requester.trust_domain, ""), self._limits.per_authority_factor))
        return accounts


class Budgets:
    """A ledger that survives restarts. One event loop; `close` when done."""

    def __init__(self, path: Path, limits: BudgetLimits, home: str, clock: Callable[[], float]) -> None:
        """Opens or makes the file; INDEX_UNAVAILABLE if that fails: without it nothing may be released."""
        self._clock = clock
        self._ledger = Ledger(limits, home)
        self._writing = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS charges (day INTEGER, trust_domain TEXT, tenant TEXT,"
                " passages INTEGER, PRIMARY KEY (day, trust_domain, tenant)) WITHOUT ROWID"
            )
            self._ledger.restore(self._read(int(clock() // _DAY_S)))
        except (sqlite3.Error, OSError):
            raise _unavailable() from None

    def require_depth(self, depth: int) -> None:
        """BUDGET_EXHAUSTED if a ranking may not be so deep."""
        self._ledger.require_depth(depth)

    def search(self, requester: SpiffeId) -> None:
        """Counts one search, or raises BUDGET_EXHAUSTED."""
        self._ledger.search(requester, self._clock())

    async def charge(self, requester: SpiffeId, passages: int) -> None:
        """Returns when so many texts are charged, durably; they may then be sent. BUDGET_EXHAUSTED.

        INDEX_UNAVAILABLE if it cannot be written: what was taken stays taken, and nothing may be sent.
        """
        charges = self._ledger.charge(requester, passages, self._clock())
        if charges:
            await asyncio.to_thread(self._write, charges)

    def close(self) -> None:
        """Lets go of the file."""
        with self._writing:
            self._database.close()

    def _read(self, today: int) -> list[Charge]:
        self._database.execute("DELETE FROM charges WHERE day < ?", (today - _DAYS_KEPT,))
        rows = self._database.execute("SELECT day, trust_domain, tenant, passages FROM charges")
        return [Charge(day, Account(domain, tenant), passages) for day, domain, tenant, passages in rows]

    def _write(self, charges: tuple[Charge, ...]) -> None:
        """Totals only grow: of two writers that come in the wrong order, the larger total stands."""
        rows = [(each.day, *each.account, each.passages) for each in charges]
        try:
            with self._writing, contextlib.closing(self._database.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    cursor.executemany(
                        "INSERT INTO charges VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                        " SET passages = max(passages, excluded.passages)",
                        rows,
                    )
                    cursor.execute("DELETE FROM charges WHERE day < ?", (rows[0][0] - _DAYS_KEPT,))
                    cursor.execute("COMMIT")
                except sqlite3.Error:
                    if self._database.in_transaction:
                        cursor.execute("ROLLBACK")
                    raise
        except sqlite3.Error:
            raise _unavailable() from None


def _whose(account: Account) -> str:
    return "a tenant" if account.tenant else f"all of {account.trust_domain} together"


def _unavailable() -> MeshError:
    return MeshError(
        Reason.INDEX_UNAVAILABLE, "what was released could not be counted, so nothing was", {}, 5.0
    )
