"""What all tests have; and mesh before any of them imports grpc: see mesh/identity/tls13.py."""

import io
import logging
from collections.abc import Iterator

import pytest

from mesh.telemetry import logs


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything that is logged, at the most talkative level, as a daemon would write it."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    handler = logs.configure("debug", "json", stream)
    yield stream
    root.removeHandler(handler)
    for old in before:
        root.addHandler(old)
    root.setLevel(level)
