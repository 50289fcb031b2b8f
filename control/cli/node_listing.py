"""Asking the control plane for nodes, as `meshctl node` does it."""

from __future__ import annotations

from control.cli.session import Session, call
from mesh.core.errors import MeshError, Reason
from sovereign.mesh.v1 import admin_pb2


async def nodes_of(session: Session) -> list[admin_pb2.NodeView]:
    """Every node that the authority knows, by name."""
    answer = await call(session.admin.ListNodes(admin_pb2.ListNodesRequest()))
    return sorted(answer.nodes, key=lambda n: n.node)


async def node_of(session: Session, name: str) -> admin_pb2.NodeView:
    """One node; NOT_FOUND if it is not known."""
    wanted = str(session.node_id(name))
    for node in await nodes_of(session):
        if node.node == wanted:
            return node
    raise MeshError(Reason.NOT_FOUND, f"no node {wanted} is known; see meshctl node list")
