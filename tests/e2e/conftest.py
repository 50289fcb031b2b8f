"""What the tests on several hosts (tests/support/hosts) ask of the machine."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def hosts_permitted() -> None:
    """Skips, with the reason, where the machine does not allow network namespaces."""
    # Not before a test wants it: it makes a lab to find out.
    from tests.support.hosts.lab import why_not

    if reason := why_not():
        pytest.skip(reason)
