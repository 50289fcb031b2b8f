"""`meshctl policy prove`: that something never flows, or a flow that does."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from control.cli.output import Output, OutputOption, emit, progress
from control.cli.policy_flow_view import assumed, where, witness_json, witness_table
from control.cli.policy_world import (
    ActionsOption,
    AnyNodeOption,
    ClassesOption,
    DayOption,
    LevelsOption,
    NodesOption,
    PoliciesOption,
    PurposesOption,
    SendersOption,
    day_of,
    from_control_plane,
    from_files,
    from_of,
    require_one_choice,
    scope_of,
)
from control.cli.session import ProfileOption, act, open_session
from mesh.core.errors import MeshError, Reason
from mesh.core.policy import PolicyEngine
from mesh.core.policy_flows import World
from mesh.core.policy_proof import Proof, Query, read_condition
from mesh.core.policy_proof import prove as find


def prove(
    never_to: Annotated[
        str,
        typer.Option(
            "--never-to",
            metavar="CONDITION",
            help="Nodes of which this is true, as a policy would say it: "
            "'resource.controller == Jurisdiction::\"US\"'. Any node if left out.",
        ),
    ] = "",
    data_class: ClassesOption = None,
    senders: SendersOption = None,
    purpose: PurposesOption = None,
    action: ActionsOption = None,
    level: LevelsOption = None,
    any_node: AnyNodeOption = False,
    nodes: NodesOption = None,
    policies: PoliciesOption = None,
    day: DayOption = "",
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look at every kind of request and node: does it never flow? Exit code 1 with a witness if it does.

    With --policies it is offline; otherwise it asks the control plane. What is left out means all.
    """
    require_one_choice(nodes, any_node)
    scope = scope_of(data_class, purpose, action, level)
    read_condition(never_to or "true", scope.actions)
    on = day_of(day, time.time())

    async def fetch() -> World:
        async with open_session(profile) as session:
            return await from_control_plane(session, nodes, any_node, on)

    world = from_files(policies, nodes, any_node, on) if policies else act(fetch(), output)
    query = Query(never_to, replace(scope, senders=from_of(world, senders)))
    with progress("looking at every kind of request and node", output):
        proof = find(PolicyEngine(), world, query)
    looked = where(proof.any_node, proof.kinds_of_nodes)
    judged = f"{proof.combinations} combinations judged, over {looked}; groups as of {proof.on}"
    if proof.witness is None:
        emit(
            output,
            _json(proof, world, query),
            f"holds: {judged}",
            *([note] if (note := assumed(world)) else []),
        )
        return
    emit(output, _json(proof, world, query), witness_table(proof.witness), f"does not hold: {judged}")
    raise MeshError(Reason.POLICY_NOT_PROVED, "it does not hold: policies permit the flow that is shown")


def _json(proof: Proof, world: World, query: Query) -> dict[str, Any]:
    scope = query.scope
    return {
        "holds": proof.holds,
        "never_to": query.condition,
        "classes": sorted(str(c) for c in scope.classes),
        "purposes": list(scope.purposes),
        "actions": [str(action) for action in scope.actions],
        "levels": [level.word for level in sorted(scope.levels)],
        "from": list(proof.senders),
        "to": list(proof.receivers),
        "over": "any-node" if proof.any_node else "nodes",
        "nodes": proof.kinds_of_nodes,
        "combinations": proof.combinations,
        "questions": proof.questions,
        "day": proof.on.isoformat(),
        "assumed_to_permit_all_but": list(world.known) if world.trusting else None,
        "witness": witness_json(proof.witness) if proof.witness is not None else None,
    }
