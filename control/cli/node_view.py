"""Showing nodes: what their authority states, what they say themselves, how they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict

from mesh.core.errors import MeshError
from mesh.core.types import SpiffeId
from sovereign.mesh.v1 import admin_pb2, records_pb2


def node_json(node: admin_pb2.NodeView) -> dict[str, Any]:
    """The node for programs: the message's own fields, snake_case."""
    found: dict[str, Any] = MessageToDict(
        node, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for name in ("status_at_ms", "heads_at_ms", "certificate_not_after_ms"):
        found[name] = getattr(node, name)  # protobuf's JSON makes 64-bit numbers strings
    if "status" in found:
        found["status"]["facts_generation"] = node.status.facts_generation
    return found


def node_rows(nodes: Iterable[admin_pb2.NodeView]) -> list[tuple[str, ...]]:
    """The rows of `meshctl node list`."""
    rows: list[tuple[str, ...]] = []
    for node in nodes:
        try:
            identity = SpiffeId.parse(node.node)
        except MeshError:
            continue
        facts = node.facts
        models = ", ".join(model.name for model in node.record.models)
        rows.append(
            (
                identity.name,
                identity.trust_domain,
                facts.location,
                facts.operator_domicile,
                facts.controller,
                state_of(node),
                _load(node),
                models,
            )
        )
    return rows


def node_lines(node: admin_pb2.NodeView) -> list[str]:
    """The text of `meshctl node describe`."""
    lines = [node.node, f"  state       {state_of(node)}", *facts_lines(node.facts)]
    lines.append("said by the node itself:")
    if not node.HasField("record"):
        lines.append("  nothing: it has not joined yet")
    for endpoint in node.record.endpoints:
        lines.append(f"  endpoint    {endpoint}")
    for model in node.record.models:
        tasks = ", ".join(
            records_pb2.ModelTask.Name(t).removeprefix("MODEL_TASK_").lower() for t in model.tasks
        )
        lines.append(f"  model       {model.name} ({tasks}, {model.context_tokens} tokens) {model.digest}")
    if node.record.software_version:
        lines.append(f"  software    {node.record.software_version}")
    lines.append(f"  load        {_load(node)}")
    return lines


def facts_lines(facts: records_pb2.NodeFacts) -> list[str]:
    """What the authority states, for people."""
    return [
        "stated by its authority:",
        f"  location    {facts.location}",
        f"  operator    {facts.operator_domicile}",
        f"  controller  {facts.controller}",
        f"  admins from {', '.join(facts.admin_access)}",
        f"  assurances  {', '.join(facts.assurances) or 'none'}",
        f"  cordoned    {'yes' if facts.cordoned else 'no'}",
    ]


def state_of(node: admin_pb2.NodeView) -> str:
    """One word or two: what keeps the node from being used, the strongest first."""
    if not node.HasField("record"):
        return "not joined"
    if node.facts.cordoned:
        return "cordoned"
    if not node.HasField("status"):
        return "gone"
    if node.status.draining:
        return "draining"
    if not node.status.ready:
        return "not ready"
    return "ready" if node.fresh else "ready (records stale)"


def _load(node: admin_pb2.NodeView) -> str:
    if not node.HasField("status"):
        return "-"
    waiting = f" +{node.status.queued}" if node.status.queued else ""
    return f"{node.status.in_flight}/{node.status.capacity}{waiting}"
