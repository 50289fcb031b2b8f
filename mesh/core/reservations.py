"""Reserve: what this placer has just promised and no node's status can show yet.

A node reports its load about once a second. Sixteen requests placed within one of those seconds would
all see the same numbers and all go to the same node. So a placer counts its own recent decisions on
top, each until the node has reported after it, and for two seconds at most.

Times are the placer's Unix seconds; a node's report carries the node's own clock. If the two differ,
a reservation counts a little too long or too short: balance suffers for a moment, nothing else.
"""

from __future__ import annotations

from collections import OrderedDict

from mesh.core.types import SpiffeId

# A status older than this after the decision may have been taken before the request arrived.
GRACE_S = 0.25
LIFETIME_S = 2.0
MAX_PER_NODE = 1024
MAX_NODES = 16_384


class Reservations:
    """Recent promises by node. Bounded; not shared between placers."""

    def __init__(self) -> None:
        # Per node in the order of reservation: decision id -> when
        self._by_node: dict[SpiffeId, OrderedDict[str, float]] = {}

    def reserve(self, node: SpiffeId, decision_id: str, now: float) -> None:
        """Counts one request for the node. The same decision counts once."""
        if node not in self._by_node and len(self._by_node) >= MAX_NODES:
            self.expire(now)
            if len(self._by_node) >= MAX_NODES:
                return  # only balance depends on it
        held = self._by_node.setdefault(node, OrderedDict())
        if decision_id not in held and len(held) < MAX_PER_NODE:
            held[decision_id] = now

    def count(self, node: SpiffeId, now: float, reported_at: float = 0.0) -> int:
        """How many requests the node's status, reported at `reported_at`, cannot know of yet."""
        held = self._by_node.get(node)
        if held is None:
            return 0
        settled_until = max(now - LIFETIME_S, reported_at - GRACE_S)
        while held and next(iter(held.values())) <= settled_until:
            held.popitem(last=False)
        if not held:
            del self._by_node[node]
        return len(held)

    def expire(self, now: float) -> None:
        """Forgets what has lived out its time on every node."""
        for node in list(self._by_node):
            self.count(node, now)

    def __len__(self) -> int:
        """On how many nodes something is reserved."""
        return len(self._by_node)
