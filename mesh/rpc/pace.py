"""What answering costs, shared out: nobody's questions take a process for themselves.

Placements are computed on the event loop that also serves, and a question never asked before costs a
hundred times one that was: whoever invents a new purpose each time could keep everybody waiting. So the
time that answers took is counted by who asked, and whoever has used up its share is told when to ask
again. Counted is what was spent, not how many questions: those who ask often and cheaply go on.

Time is an argument; it knows nothing of what is asked.
"""

from __future__ import annotations

from mesh.core.bounded import Bounded
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId

# Of one core, over time; and how many seconds of work may be saved up for a burst, which a thousand
# placements of a new kind stay below.
SHARE = 0.25
BURST_S = 5.0
MAX_ASKERS = 4096


def asker_of(caller: SpiffeId, home: str) -> str:
    """Who shares one share: a tenant at home, a whole trust domain of another authority, which can make
    any number of tenants."""
    if caller.trust_domain != home:
        return caller.trust_domain
    return f"/{caller.kind}/{caller.tenant or caller.name}"


class Pace:
    """Seconds of work by asker, flowing off at `SHARE` seconds a second. `now` is monotonic, in seconds."""

    def __init__(self) -> None:
        # asker -> (work not yet flowed off, as of when). Whoever is forgotten begins anew.
        self._spent: Bounded[str, tuple[float, float]] = Bounded(MAX_ASKERS)

    def require(self, asker: str, now: float) -> None:
        """Raises OVERLOADED, with when to ask again, if the asker's share is used up."""
        over = self._left(asker, now) - BURST_S
        if over > 0:
            raise MeshError(
                Reason.OVERLOADED,
                "the questions of this tenant or authority take more than their share: ask less often",
                {},
                over / SHARE,
            )

    def spend(self, asker: str, seconds: float, now: float) -> None:
        """Counts work that was done for the asker."""
        self._spent.put(asker, (self._left(asker, now) + seconds, now))

    def _left(self, asker: str, now: float) -> float:
        spent, since = self._spent.get(asker) or (0.0, now)
        return max(0.0, spent - SHARE * (now - since))
