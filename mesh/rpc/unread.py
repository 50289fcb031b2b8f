"""Answers that callers have asked for and do not take.

A stream is written message by message, and one that does not progress is cut off. An answer that is one
message is handed to the transport whole and stays in memory until its caller makes room for it, which
may be never: gRPC has no way to take it back. So the large ones are counted, by who asked, until they
have been taken; whoever leaves too many lying gets no further ones. Others' shares are not touched.
"""

from __future__ import annotations

from collections import Counter

from mesh.core.errors import MeshError, Reason

MIB = 1024 * 1024
# Smaller answers fit into what gRPC buffers for a stream anyway, and streams are bounded.
COUNTED_FROM_BYTES = 64 * 1024
# Of the serialized answers; the process holds about three times as much for each. One identity may have
# several embedding calls under way, one trust domain (an authority can make any number of identities)
# never takes all.
MAX_BYTES_BY_IDENTITY = 32 * MIB
MAX_BYTES_BY_TRUST_DOMAIN = 64 * MIB
MAX_BYTES = 128 * MIB
_RETRY_S = 1.0


class UnreadAnswers:
    """How much is waiting to be taken, by SPIFFE id as text. Belongs to one event loop."""

    def __init__(self) -> None:
        self._by_caller: Counter[str] = Counter()
        self._by_domain: Counter[str] = Counter()
        self.total = 0

    def require_room(self, caller: str) -> None:
        """Raises OVERLOADED if this caller, its trust domain or everybody together leave too much lying."""
        if not self.total:
            return
        for waiting, limit in (
            (self._by_caller[caller], MAX_BYTES_BY_IDENTITY),
            (self._by_domain[_domain(caller)], MAX_BYTES_BY_TRUST_DOMAIN),
            (self.total, MAX_BYTES),
        ):
            if waiting >= limit:
                raise MeshError(
                    Reason.OVERLOADED,
                    f"answers of {limit // MIB} MiB are waiting to be read: read them first",
                    {},
                    _RETRY_S,
                )

    def add(self, caller: str, size: int) -> None:
        """An answer of so many bytes is on its way; raises like require_room. `remove` it when taken."""
        self.require_room(caller)
        self._change(caller, size)

    def remove(self, caller: str, size: int) -> None:
        """It was taken, or its caller has gone."""
        self._change(caller, -size)

    def _change(self, caller: str, size: int) -> None:
        self.total += size
        for counter, key in ((self._by_caller, caller), (self._by_domain, _domain(caller))):
            counter[key] += size
            if not counter[key]:
                del counter[key]


def _domain(caller: str) -> str:
    return caller.removeprefix("spiffe://").partition("/")[0]
