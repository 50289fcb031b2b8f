"""Calling a control plane as administrators and joining machines do, near to the wire."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control.plane import ControlPlane
from mesh import codec
from mesh.core.errors import MeshError
from mesh.core.records import RecordKey, RecordType
from mesh.core.snapshot import TrustBundle
from mesh.core.types import NodeFacts
from mesh.identity.names import dns_name_of
from mesh.identity.source import SvidSource
from mesh.identity.tls import channel_options, dial, enrolment_channel_credentials
from mesh.rpc.status import from_rpc_error
from mesh.store.memory import MemoryBoard
from sovereign.mesh.v1 import admin_pb2, admin_pb2_grpc
from tests.support.control import RunningControl, control_of
from tests.support.identities import AuthorityForTests

POLICY = (Path(__file__).parents[2] / "examples/policies/de.cedar").read_text()
FACTS = NodeFacts("DE", "DE", "DE", frozenset({"DE"}), frozenset({"C5"}))


class ControlCalls:
    """A DE control plane, and stubs for whoever calls it."""

    def __init__(self, de: AuthorityForTests, fr: AuthorityForTests, control: RunningControl) -> None:
        self.de, self.fr, self.control = de, fr, control
        self.plane: ControlPlane = control.plane
        self.channels: list[grpc.aio.Channel] = []

    def channel(self, source: SvidSource) -> grpc.aio.Channel:
        name = dns_name_of(self.plane.id)
        channel = dial(source, self.plane.endpoint, self.de.trust_domain, name)
        self.channels.append(channel)
        return channel

    def admin(self, source: SvidSource | None = None) -> Any:
        who = source or self.de.source("/admin/first")
        return admin_pb2_grpc.AdminStub(self.channel(who))  # type: ignore[no-untyped-call]

    def renewal(self, source: SvidSource) -> Any:
        return admin_pb2_grpc.EnrolmentStub(self.channel(source))  # type: ignore[no-untyped-call]

    def door(self, bundle: TrustBundle | None = None) -> Any:
        """Enrolment, without a certificate."""
        credentials = enrolment_channel_credentials(bundle or self.de.bundle)
        options = channel_options(dns_name_of(self.plane.id))
        channel = grpc.aio.secure_channel(self.plane.enrolment_endpoint, credentials, options)
        self.channels.append(channel)
        return admin_pb2_grpc.EnrolmentStub(channel)  # type: ignore[no-untyped-call]

    def generation(self, kind: RecordType, name: str = "") -> int:
        return self.plane.board.generation(RecordKey(self.de.trust_domain, kind, name))

    async def token(self, name: str = "fra-1", ttl: int = 0) -> str:
        request = admin_pb2.CreateJoinTokenRequest(node=name, facts=codec.facts_to_pb(FACTS), ttl_seconds=ttl)
        answer = await self.admin().CreateJoinToken(request)
        return str(answer.token)


class Clock:
    """The real time, and as much later as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@contextlib.asynccontextmanager
async def control_calls(
    directory: Path,
    *,
    board: MemoryBoard | None = None,
    clock: Clock | None = None,
    authority: AuthorityForTests | None = None,
    **options: Any,
) -> AsyncIterator[ControlCalls]:
    """A running DE control plane (state in directory/state), a FR authority beside it, and stubs."""
    de = authority or AuthorityForTests(directory, "de.mesh.example")
    fr = AuthorityForTests(directory / "others", "fr.mesh.example")
    state = directory / "state"
    async with control_of(de.ca, board or MemoryBoard(), state, clock=clock or Clock(), **options) as control:
        found = ControlCalls(de, fr, control)
        try:
            yield found
        finally:
            for channel in found.channels:
                await channel.close()


async def refusal(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return from_rpc_error(error.value)
