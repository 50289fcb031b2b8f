"""The gateway's line to the engine's host: finds a living one or starts one, and listens to it.

A host that serves the same spec is adopted as it is, warm; one that serves another is told to stop.
What it says arrives as `HostState` values. When the line breaks, the host is gone, and whatever is
left of its processes is ended before anything new is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import Any

from mesh.core.errors import MeshError
from node.engine.host_paths import HostPaths, engine_environment, python_module
from node.engine.process_family import Family
from node.engine.replica_state import ReplicaState, from_json
from node.engine.spec import EngineSpec

_LOOK_EVERY_S = 0.05
_ANSWER_S = 5.0
_LINE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class HostState:
    """What the host last said. `error` is why the engine does not start, in its own words."""

    replicas: tuple[ReplicaState, ...]
    failed: bool
    error: str
    isolated: bool


class HostLink:
    """An open line to a host. Make one with `attach`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: HostState) -> None:
        self._reader, self._writer = reader, writer
        self._first: HostState | None = first

    @classmethod
    async def attach(cls, spec: EngineSpec, paths: HostPaths) -> HostLink:
        """Adopts the host of `paths`, or starts one. Ends only with a line, or when cancelled."""
        spawned: asyncio.subprocess.Process | None = None
        try:
            while True:
                with contextlib.suppress(OSError, TimeoutError, ValueError):
                    link = await cls._connect(spec, paths)
                    if link is not None:
                        return link
                if spawned is None or spawned.returncode is not None:
                    spawned = await _spawn(spec, paths)
                await asyncio.sleep(_LOOK_EVERY_S)
        except asyncio.CancelledError:
            if spawned is not None and (family := Family.of(spawned.pid)) is not None:
                family.end()  # it has left no word of itself yet
            raise

    @classmethod
    async def _connect(cls, spec: EngineSpec, paths: HostPaths) -> HostLink | None:
        """A line to the host that is there; None when it served another spec, and was stopped."""
        reader, writer = await asyncio.open_unix_connection(str(paths.socket), limit=_LINE_LIMIT)
        try:
            writer.write(json.dumps({"gateway": os.getpid()}).encode() + b"\n")
            line = await asyncio.wait_for(reader.readline(), _ANSWER_S)
            said = json.loads(line)
            if said["spec"] == spec.digest:
                return cls(reader, writer, _state(said))
            writer.write(b'{"stop": true}\n')
            while await asyncio.wait_for(reader.readline(), 2 * _ANSWER_S):
                pass
        except BaseException:
            writer.close()
            raise
        writer.close()
        return None

    async def next_state(self) -> HostState | None:
        """What the host says: first how it is, then each change. None when it is gone."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            line = await self._reader.readline()
            return _state(json.loads(line)) if line else None
        except (OSError, ValueError):
            return None

    async def stop_host(self, deadline_s: float = 15.0) -> None:
        """Has the host end all its processes and itself, and waits for that."""
        with contextlib.suppress(OSError, TimeoutError):
            self._writer.write(b'{"stop": true}\n')
            async with asyncio.timeout(deadline_s):
                while await self._reader.read(1 << 16):
                    pass

    def close(self) -> None:
        """Leaves. The host waits a while for another gateway."""
        self._writer.close()


async def end_leftovers(paths: HostPaths) -> None:
    """Ends what is left of the last host's processes, and of its sockets; blocks nothing."""
    family = paths.read_record()
    if family is not None:
        await asyncio.to_thread(family.end)
    await asyncio.to_thread(shutil.rmtree, paths.short, ignore_errors=True)


async def _spawn(spec: EngineSpec, paths: HostPaths) -> asyncio.subprocess.Process:
    """Starts a host in a session of its own, so that nothing that ends the gateway ends it too."""
    paths.make()
    aside = paths.spec.with_suffix(".new")
    aside.write_text(spec.to_json())
    aside.replace(paths.spec)
    with open(paths.log, "wb") as log:  # noqa: ASYNC230 (a local file, opened once)
        return await asyncio.create_subprocess_exec(
            *python_module("node.engine.ray_host", str(paths.run_directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=engine_environment(spec, paths),
            start_new_session=True,
        )


def _state(said: dict[str, Any]) -> HostState:
    try:
        return HostState(
            replicas=tuple(from_json(replica) for replica in said["replicas"]),
            failed=said["state"] == "failed",
            error=str(said["error"]),
            isolated=bool(said["isolated"]),
        )
    except (KeyError, TypeError, MeshError) as error:
        raise ValueError("not what a host says") from error
