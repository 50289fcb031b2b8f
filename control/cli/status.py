"""`meshctl status`: the state of the control plane."""

from __future__ import annotations

from control.cli.output import Output, OutputOption, emit
from control.cli.session import ProfileOption, act, call, open_session
from sovereign.mesh.v1 import admin_pb2


def status(profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show whether the board answers and whose records are fresh."""

    async def work() -> admin_pb2.GetStatusResponse:
        async with open_session(profile) as session:
            return await call(session.admin.GetStatus(admin_pb2.GetStatusRequest()))

    found = act(work(), output)
    emit(
        output,
        {
            "trust_domain": found.trust_domain,
            "board_connected": found.board_connected,
            "snapshot_version": found.snapshot_version,
            "fresh": list(found.fresh),
            "stale": list(found.stale),
        },
        f"authority  {found.trust_domain}",
        f"board      {'answers' if found.board_connected else 'does not answer'}",
        f"snapshot   version {found.snapshot_version}",
        f"fresh      {', '.join(found.fresh) or 'none'}",
        f"stale      {', '.join(found.stale) or 'none'}",
    )
