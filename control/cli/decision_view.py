"""Showing a decision: chosen, alternatives, and for each refused node which rule refused it and why."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from control.cli.output import table
from mesh.core.placement import Decision

_OTHERS_SHOWN = 50


def decision_json(decision: Decision) -> dict[str, Any]:
    """The decision for programs, times in Unix seconds."""
    return {
        "id": decision.id,
        "permitted": decision.permitted,
        "chosen": str(decision.chosen) if decision.chosen else None,
        "ranked": [
            {
                "node": str(ranked.node),
                "score": round(ranked.score, 4),
                "location": ranked.location,
                "permitted_by": list(ranked.permitted_by),
            }
            for ranked in decision.ranked
        ],
        "refused": [
            {
                "node": str(refused.node),
                "reason": refused.reason.code,
                "detail": refused.detail,
                "policies": list(refused.policies),
                "location": refused.location,
            }
            for refused in decision.refused
        ],
        "refused_total": decision.refused_total,
        "considered": decision.considered,
        "policy_digests": dict(decision.policy_digests),
        "snapshot_version": decision.snapshot_version,
        "decided_at": decision.decided_at,
        "expires_at": decision.expires_at,
        "decided_by": str(decision.decided_by),
    }


def decision_text(decision: Decision) -> list[RenderableType]:
    """The decision for people: one row a node."""
    rows: list[list[RenderableType]] = []
    for position, ranked in enumerate(decision.ranked):
        verdict = Text("chosen", style="bold green") if position == 0 else Text("permitted", style="green")
        why = f"load {ranked.score:.2f}; permitted by {', '.join(ranked.permitted_by) or 'no named policy'}"
        rows.append([_short(ranked.node.trust_domain, ranked.node.name), ranked.location, verdict, why])
    for refused in decision.refused[:_OTHERS_SHOWN]:
        by = f" [{', '.join(refused.policies)}]" if refused.policies else ""
        why = f"{refused.reason.code}: {refused.detail}{by}"
        name = _short(refused.node.trust_domain, refused.node.name)
        rows.append([name, refused.location, Text("refused", style="red"), Text(why)])
    parts: list[RenderableType] = [table(("NODE", "IN", "VERDICT", "WHY"), rows)]
    hidden = decision.refused_total - len(decision.refused[:_OTHERS_SHOWN])
    if hidden > 0:
        parts.append(f"and {hidden} more refused")
    parts.append(f"decision {decision.id} by {decision.decided_by}, {decision.considered} considered")
    return parts


def _short(trust_domain: str, name: str) -> str:
    return f"{name} ({trust_domain.split('.', 1)[0]})"
