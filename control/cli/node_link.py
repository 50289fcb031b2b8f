"""Finding the node that a command names: in the profile, or, for administrators, by asking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from control.cli.session import Session, call, open_session
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId, node_id
from mesh.identity.names import dns_name_of
from mesh.sdk.documents import IndexClient
from mesh.sdk.placers import Server
from sovereign.mesh.v1 import admin_pb2, evidence_pb2_grpc

NodeOption = Annotated[
    str,
    typer.Option("--node", help="The node of your own authority that holds, or is to hold, the documents."),
]
LogNodeOption = Annotated[
    str, typer.Option("--node", help="The node of your own authority that is asked (administrators).")
]


@asynccontextmanager
async def open_index(profile: Path | None, node: str) -> AsyncIterator[IndexClient]:
    """A client of that node's documents, with the profile's identity."""
    async with open_session(profile) as session:
        server = await _server(session, node)
        async with IndexClient(session.source, server) as index:
            yield index


@asynccontextmanager
async def open_evidence(
    profile: Path | None, node: str
) -> AsyncIterator[tuple[SpiffeId, evidence_pb2_grpc.EvidenceStub]]:
    """That node, and what shows its log, with the profile's identity."""
    async with open_session(profile) as session:
        server = await _server(session, node)
        channel = session.pool.channel(
            server.endpoint, dns_name=dns_name_of(server.id), trust_domain=server.id.trust_domain
        )
        yield server.id, evidence_pb2_grpc.EvidenceStub(channel)


async def _server(session: Session, name: str) -> Server:
    profile = session.profile
    identity = node_id(profile.trust_domain, name)
    if name in profile.nodes:
        return Server(identity, profile.nodes[name])
    if session.source.id.kind == "admin":
        answer = await call(session.admin.ListNodes(admin_pb2.ListNodesRequest()))
        for node in answer.nodes:
            if node.node == str(identity) and node.record.endpoints:
                return Server(identity, node.record.endpoints[0])
        raise MeshError(Reason.NOT_FOUND, f"no running node {identity} is known; see meshctl node list")
    raise MeshError(Reason.CONFIG_INVALID, f"profile.yaml: nodes: expected {name} and its host:port")
