"""`meshctl audit alarms`: what a node, as a witness, found wrong with other nodes' logs."""

from __future__ import annotations

import datetime
from dataclasses import asdict

from control.cli.node_link import LogNodeOption, open_evidence
from control.cli.output import Output, OutputOption, emit, table
from control.cli.session import ProfileOption, act, call
from mesh.codec.evidence import alarms_from_pb
from mesh.core.witness import Alarm
from sovereign.mesh.v1 import evidence_pb2


def alarms(node: LogNodeOption, profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """List alarms: logs of other authorities that were rewritten, rolled back or begun anew.

    --output json has the proof: two checkpoints, each signed by that log.
    """

    async def work() -> tuple[Alarm, ...]:
        async with open_evidence(profile, node) as (_, evidence):
            answer = await call(evidence.ListAlarms(evidence_pb2.ListAlarmsRequest()))
            return alarms_from_pb(answer)

    found = act(work(), output)
    rows = [(_moment(alarm.at), alarm.origin, alarm.finding, alarm.detail) for alarm in found]
    shown = table(("WHEN", "LOG", "FINDING", ""), rows) if rows else "no alarm"
    emit(output, {"alarms": [asdict(alarm) for alarm in found]}, shown)


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
