"""`mesh-control --config FILE`: one control plane, from its configuration file. Wiring only.

SIGTERM and SIGINT end it in order; a second one at once. SIGHUP renews its certificate now. Logs go to
standard error, as JSON where that is not a terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from control.config import ControlSettings, load_config
from control.plane import ControlPlane, Parts
from mesh.core.errors import MeshError, Reason
from mesh.core.policy import validate_policy
from mesh.core.types import SpiffeId
from mesh.evidence import open_log
from mesh.evidence.configured import ACTIONS
from mesh.identity.ca import CertificateAuthority
from mesh.identity.private_files import make_private_directory, read_file
from mesh.ids import id_maker
from mesh.store.configured import open_store
from mesh.telemetry.logs import configure, guard_loop, guard_process
from mesh.telemetry.parts import ControlTelemetry

GRACE_S = 10.0
MAX_POLICY_FILE_BYTES = 128 * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `mesh-control` script."""
    parser = argparse.ArgumentParser(prog="mesh-control", description="The control plane of one authority.")
    parser.add_argument("--config", type=Path, required=True, help="mesh-control.yaml")
    parser.add_argument("--check", action="store_true", help="check the configuration and end")
    options = parser.parse_args(arguments)
    try:
        settings = load_config(options.config, os.environ)
        if options.check:
            return
        configure(settings.log.level, settings.log.format)
        guard_process()
        asyncio.run(serve(settings))
    except MeshError as error:
        sys.stderr.write(f"mesh-control: {error}\n")
        sys.exit(2 if error.reason is Reason.CONFIG_INVALID else 1)


async def serve(settings: ControlSettings) -> None:
    """Runs until a signal ends it, or until something that must not end does."""
    loop = asyncio.get_running_loop()
    guard_loop(loop)
    plane = ControlPlane(parts_of(settings))
    stopping = asyncio.Event()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # the next one ends the process at once
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await plane.start()
        loop.add_signal_handler(signal.SIGHUP, plane.source.request_renewal)
        asked = asyncio.create_task(stopping.wait())
        ends: set[asyncio.Future[Any]] = {asked, plane.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if plane.failed.done():
            plane.failed.result()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await plane.stop(GRACE_S)


def parts_of(settings: ControlSettings) -> Parts:
    """The parts that a configuration names. Raises CONFIG_INVALID, NOT_FOUND, POLICY_MALFORMED, ..."""
    make_private_directory(settings.state_directory)
    policy = ""
    if settings.bootstrap.policy is not None:
        policy = read_file(settings.bootstrap.policy, limit=MAX_POLICY_FILE_BYTES).decode()
        validate_policy(policy)
    ca = CertificateAuthority.load(settings.authority_directory)
    identity = SpiffeId(ca.trust_domain, f"/control/{settings.name}")
    listen = settings.telemetry.listen
    return Parts(
        ca=ca,
        store=open_store(settings.board),
        decisions=open_log(settings.state_directory, identity),
        actions=open_log(settings.state_directory, identity, ACTIONS),
        state_directory=settings.state_directory,
        clock=time.time,
        random=random.random,
        new_id=id_maker(time.time),
        name=settings.name,
        listen=tuple(settings.listen),
        enrolment_listen=tuple(settings.enrolment.listen),
        enrolments_per_minute=settings.enrolment.per_minute,
        heads_interval_s=settings.heads.interval_s,
        heads_max_age_s=settings.heads.max_age_s,
        certificate_ttl_s=settings.certificates.ttl_hours * 3600,
        permit_ttl_s=settings.placement.permit_ttl_s,
        first_policy=policy,
        telemetry=ControlTelemetry(listen) if listen is not None else None,
    )


if __name__ == "__main__":
    main()
