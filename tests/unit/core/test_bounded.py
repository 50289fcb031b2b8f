"""The caches of the core never outgrow their bound."""

import pytest

from mesh.core.bounded import Bounded


def test_forgets_what_was_used_longest_ago() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (1, None, 3, 2)


def test_holds_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Bounded(0)
