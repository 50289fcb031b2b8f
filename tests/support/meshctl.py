"""meshctl in the test's own process: its exit code, and what it said."""

from __future__ import annotations

import asyncio
import contextlib
import io

from control.cli.main import run

Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""


def captured(*arguments: object) -> Said:
    """Runs one command. Nothing else may print meanwhile."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


async def in_thread(*arguments: object) -> Said:
    """The same, while the loop goes on: what it asks may be served by this process."""
    return await asyncio.to_thread(captured, *arguments)
