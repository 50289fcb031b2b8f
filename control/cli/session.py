"""Acting through a profile: open the identity, keep it fresh, call the control plane.

A certificate lives for a day at most, so whoever calls with one past half its life renews it on the
way. Failing to renew is no error while the certificate still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import grpc
import typer

from control.cli.output import Output, progress
from mesh.client import MeshClient
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.names import dns_name_of
from mesh.identity.source import SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.sdk.placers import Server
from mesh.sdk.profile import ENVIRONMENT, Profile
from mesh.sdk.renewal import renew_if_due, renewer
from sovereign.mesh.v1 import admin_pb2_grpc

CALL_TIMEOUT_S = 15.0

_T = TypeVar("_T")

ProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--profile", envvar=ENVIRONMENT, help="Directory with profile.yaml.", file_okay=False, metavar="DIR"
    ),
]


def require_profile(path: Path | None) -> Path:
    """The profile's directory; a usage error if none was named."""
    if path is None:
        raise typer.BadParameter(f"name a profile with --profile DIR or {ENVIRONMENT}")
    return path


@dataclass(frozen=True, slots=True)
class Session:
    """An open profile."""

    profile: Profile
    source: SvidSource
    pool: ChannelPool

    @property
    def control(self) -> Server:
        """The control plane; raises CONFIG_INVALID if the profile names none."""
        return Server(self.profile.control_id, self.profile.require_control().endpoint)

    @property
    def admin(self) -> admin_pb2_grpc.AdminStub:
        """The control plane's Admin service."""
        channel = self.pool.channel(
            self.control.endpoint,
            dns_name=dns_name_of(self.control.id),
            trust_domain=self.profile.trust_domain,
        )
        return admin_pb2_grpc.AdminStub(channel)

    def node_id(self, name: str) -> SpiffeId:
        """A node by its name in the own trust domain, or by its full SPIFFE id."""
        if name.startswith("spiffe://"):
            return SpiffeId.parse(name)
        return SpiffeId(self.profile.trust_domain, f"/node/{name}")


@contextlib.asynccontextmanager
async def open_session(path: Path | None) -> AsyncIterator[Session]:
    """Opens the profile and closes its connections at the end."""
    directory = require_profile(path)
    profile = Profile.load(directory)
    source = SvidSource.load(profile.identity, clock=time.time, random=random.random)
    if source.svid.not_after <= time.time():
        raise MeshError(
            Reason.IDENTITY_EXPIRED,
            f"the certificate of {source.id} has expired: have a new one issued "
            "(meshctl client issue, meshctl authority admin)",
        )
    pool = ChannelPool(source)
    try:
        session = Session(profile, source, pool)
        if profile.control is not None:
            await renew_if_due(source, profile.identity, renewer(pool, session.control), time.time())
        yield session
    finally:
        await pool.aclose()


@contextlib.asynccontextmanager
async def open_client(path: Path | None) -> AsyncIterator[MeshClient]:
    """The SDK's client of this profile, its certificate renewed if that is due."""
    async with open_session(path):
        pass
    async with MeshClient.from_profile(require_profile(path), renew=False) as client:
        yield client


async def call(pending: Awaitable[_T]) -> _T:
    """Awaits a unary call with a deadline; raises MeshError."""
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await pending
    except TimeoutError:
        raise MeshError(Reason.UNREACHABLE, f"no answer within {CALL_TIMEOUT_S:g} s") from None
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None


def act(work: Coroutine[Any, Any, _T], output: Output, what: str = "asking") -> _T:
    """Runs a command's coroutine, and shows people that it is under way."""
    with progress(what, output):
        return asyncio.run(work)
