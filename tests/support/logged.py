"""What was logged as an error, as a daemon would write it."""

from __future__ import annotations

import io
import json
from typing import Any

# gRPC reads its completion queue through a pipe that all event loops of a process share; a loop that another
# was faster than finds it empty (BlockingIOError), says so, and goes on. In a daemon there is one loop.
_OF_GRPC = "Exception in callback PollerCompletionQueue._handle_events"


def errors_in(written: io.StringIO) -> list[dict[str, Any]]:
    """The lines of level error, apart from gRPC's own about its poller."""
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    return [
        line
        for line in lines
        if line["level"] == "error"
        and not (line["logger"] == "asyncio" and line["message"].startswith(_OF_GRPC))
    ]
