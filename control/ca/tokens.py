"""Join tokens: each lets one node enrol, once, before it expires.

A token is shown to whoever made it and never again: only the SHA-256 of its secret is stored, in one
SQLite file. Spending one is a single transaction that is on the disk before it counts, so two callers,
two processes or a crash in between cannot spend it twice. A token that was spent or has expired is
kept for a week, so that whoever still holds it is told what happened to it.

    smt1.<number: 16 hex digits>.<secret: 43 characters of base64url>

The number finds the row; the secret is compared in constant time. Blocking: call it from a thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from control.ca.issuance import require_node_name
from mesh.core.errors import MeshError, Reason

MIN_TTL_S = 60.0
MAX_TTL_S = 86_400.0
DEFAULT_TTL_S = 3_600.0
KEPT_AFTER_EXPIRY_S = 7 * 86_400.0
MAX_OPEN_TOKENS = 10_000
# How long another process's transaction is waited for, in seconds.
BUSY_TIMEOUT_S = 10.0

_FORM = re.compile(r"smt1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    number TEXT PRIMARY KEY,
    secret_sha256 BLOB NOT NULL,
    node TEXT NOT NULL,
    expires_at REAL NOT NULL,
    spent_at REAL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A new token. `token` is shown once; `expires_at` is in Unix seconds."""

    token: str = field(repr=False)
    node: str
    expires_at: float


class JoinTokens:
    """The tokens of one authority, in one file of mode 0600."""

    def __init__(
        self, path: Path | str, clock: Callable[[], float], random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._random_bytes = random_bytes
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path.chmod(0o600)
        with self._transaction() as database:
            database.execute(_SCHEMA)

    def create(self, node: str, ttl_s: float = DEFAULT_TTL_S) -> JoinToken:
        """A new token for the node of this name.

        Raises IDENTITY_MALFORMED for a name that no node can have, REQUEST_INVALID for a life outside
        60 s to 24 h, OVERLOADED with 10,000 tokens open.
        """
        require_node_name(node)
        if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
            raise MeshError(
                Reason.REQUEST_INVALID, f"a token's life: expected {MIN_TTL_S:.0f} to {MAX_TTL_S:.0f} seconds"
            )
        number = self._random_bytes(8).hex()
        secret = base64.urlsafe_b64encode(self._random_bytes(32)).rstrip(b"=").decode()
        now = self._clock()
        with self._transaction() as database:
            database.execute("DELETE FROM tokens WHERE expires_at < ?", (now - KEPT_AFTER_EXPIRY_S,))
            (count,) = database.execute(
                "SELECT count(*) FROM tokens WHERE spent_at IS NULL AND expires_at > ?", (now,)
            ).fetchone()
            if count >= MAX_OPEN_TOKENS:
                raise MeshError(Reason.OVERLOADED, f"at most {MAX_OPEN_TOKENS} join tokens may be open")
            database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, NULL)", (number, _hash(secret), node, now + ttl_s)
            )
        return JoinToken(f"smt1.{number}.{secret}", node, now + ttl_s)

    def spend(self, token: str) -> str:
        """Uses the token up and returns the node that it was made for; JOIN_TOKEN_INVALID otherwise.

        Only the right secret learns whether a token was spent or has expired.
        """
        match = _FORM.fullmatch(token)
        if match is None:
            raise MeshError(Reason.JOIN_TOKEN_INVALID, "expected a join token: smt1.<number>.<secret>")
        number, secret = match.groups()
        now = self._clock()
        with self._transaction() as database:
            row = database.execute(
                "SELECT secret_sha256, node, expires_at, spent_at FROM tokens WHERE number = ?", (number,)
            ).fetchone()
            known, node, expires_at, spent_at = row or (b"", "", 0.0, None)
            if not hmac.compare_digest(known, _hash(secret)):
                raise MeshError(Reason.JOIN_TOKEN_INVALID, "this join token is not known here")
            if spent_at is not None:
                raise MeshError(
                    Reason.JOIN_TOKEN_INVALID, "this join token was used already: ask for a new one"
                )
            if now >= expires_at:
                raise MeshError(Reason.JOIN_TOKEN_INVALID, "this join token has expired: ask for a new one")
            database.execute("UPDATE tokens SET spent_at = ? WHERE number = ?", (now, number))
        return str(node)

    def withdraw(self, node: str) -> int:
        """Forgets the unspent tokens of a node; how many there were."""
        with self._transaction() as database:
            return database.execute(
                "DELETE FROM tokens WHERE node = ? AND spent_at IS NULL", (node,)
            ).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # A connection per transaction: any thread may call. IMMEDIATE takes the write lock before
        # reading, so nobody else can act on the same row in between.
        try:
            with closing(
                sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            ) as database:
                database.execute("PRAGMA synchronous = EXTRA")
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise MeshError(
                Reason.STORE_UNAVAILABLE, f"join tokens cannot be stored: {error.sqlite_errorname}"
            ) from None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
