"""Showing flows: a witness, and what a change of policies opens and closes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from control.cli.output import table
from mesh.core.policy_diff import Change, Difference
from mesh.core.policy_flows import World
from mesh.core.policy_proof import Witness
from mesh.core.types import DataClass

_NAMED = 4  # nodes and purposes in a table's cell; JSON has more of them


def where(any_node: bool, count: int) -> str:
    """Over which nodes it was."""
    return f"{count} kinds of nodes that could exist" if any_node else f"the {count} nodes that there are"


def assumed(world: World, compared: str = "") -> str:
    """Who was taken to permit, as a sentence; "" if nobody. `compared` is whose policies are compared."""
    if not world.trusting:
        return ""
    asked = ", ".join(sorted({*world.known, compared} - {""}))
    return (
        f"Taken to permit everything: every authority but {asked}. Flows between two of those are left out."
    )


def witness_json(witness: Witness) -> dict[str, Any]:
    """A flow for programs."""
    context, facts, release = witness.asked.context, witness.subject.facts, witness.asked.release
    found: dict[str, Any] = {
        "from": str(witness.asked.principal.id),
        "action": str(witness.asked.action),
        "classes": [str(c) for c in context.judged_classes],
        "purpose": context.purpose,
        "transfer_basis": context.transfer_basis,
        "tenant": context.tenant or witness.asked.principal.tenant,
    }
    if release is not None:
        found |= {"level": release.level, "owner": release.owner, "collection": release.collection}
    return found | {
        "node": {
            "id": str(witness.subject.node),
            "location": facts.location,
            "operator_domicile": facts.operator_domicile,
            "controller": facts.controller,
            "admin_access": sorted(facts.admin_access),
            "assurances": sorted(facts.assurances),
        },
        "permitted_by": [
            {"authority": grant.authority, "policies": list(grant.policies), "assumed": grant.assumed}
            for grant in witness.grants
        ],
    }


def witness_table(witness: Witness) -> Table:
    """The same for people."""
    found = witness_json(witness)
    node = found.pop("node")
    grants = found.pop("permitted_by")
    rows: list[tuple[str, str]] = [
        (name.replace("_", " "), ", ".join(value) if isinstance(value, list) else value or '""')
        for name, value in found.items()
    ]
    rows.append(("node", node["id"]))
    rows += [
        (name.replace("_", " "), ", ".join(node[name]) if isinstance(node[name], list) else node[name])
        for name in ("location", "operator_domicile", "controller", "admin_access", "assurances")
    ]
    rows += [
        ("permitted by", f"{grant['authority']}: {', '.join(grant['policies']) or _ASSUMED}")
        for grant in grants
    ]
    return table(("A FLOW", ""), rows)


_ASSUMED = "its policies are not known, so it is taken to permit"


def difference_json(difference: Difference, world: World, authority: str) -> dict[str, Any]:
    """What changes, for programs."""
    return {
        "authority": authority,
        "opens": sum(change.opens for change in difference.changes),
        "closes": sum(not change.opens for change in difference.changes),
        "over": "any-node" if difference.any_node else "nodes",
        "nodes": difference.nodes,
        "combinations": difference.combinations,
        "questions": difference.questions,
        "day": difference.on.isoformat(),
        "assumed_to_permit_all_but": sorted({*world.known, authority}) if world.trusting else None,
        "changes": [_change_json(change) for change in difference.changes],
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "change": "opens" if change.opens else "closes",
        "from": change.sender,
        "to": change.receiver,
        "actions": [str(action) for action in change.actions],
        "levels": list(change.levels),
        "classes": [str(c) for c in change.classes],
        "purposes": list(change.purposes),
        "nodes": list(change.nodes),
        "nodes_total": change.nodes_total,
        "flows": change.flows,
        "policies": list(change.policies),
        "no_longer_permitted_by": list(change.permitted_by),
        "witness": witness_json(change.witness),
    }


def difference_text(difference: Difference, world: World, authority: str) -> list[RenderableType]:
    """What changes, for people."""
    looked = where(difference.any_node, difference.nodes) if not difference.any_node else "any node"
    said = f"{difference.combinations} combinations judged over {looked}; groups as of {difference.on}"
    parts: list[RenderableType] = []
    if difference.changes:
        columns = ("", "FROM", "TO", "ACTION", "CLASSES", "PURPOSES", "NODES", "BY")
        parts.append(table(columns, [_row(change, difference.any_node) for change in difference.changes]))
    opens = sum(change.opens for change in difference.changes)
    closes = len(difference.changes) - opens
    if difference.changes:
        parts.append(f"{opens} kinds of flows open, {closes} close: {said}")
    else:
        parts.append(f"no flow opens or closes: {said}")
    if note := assumed(world, authority):
        parts.append(note)
    return parts


def _row(change: Change, any_node: bool) -> tuple[RenderableType, ...]:
    action = ", ".join(change.actions)
    if change.levels:
        action += f" ({', '.join(change.levels)})"
    by = ", ".join(change.policies)
    if not by:
        by = f"no longer {', '.join(change.permitted_by)}" if change.permitted_by else "none permits it"
    return (
        Text("opens", style="red") if change.opens else Text("closes", style="green"),
        change.sender,
        change.receiver or "anybody else",
        action,
        "all" if len(change.classes) == len(DataClass) else ", ".join(change.classes),
        _some(change.purposes, len(change.purposes)) or "any",
        "some" if any_node else _some((n.rpartition("/")[2] for n in change.nodes), change.nodes_total),
        by,
    )


def _some(names: Iterable[str], total: int) -> str:
    shown = list(names)[:_NAMED]
    more = f" and {total - len(shown)} more" if total > len(shown) else ""
    return ", ".join(shown) + more
