"""Enrolment: certificates for machines that bring a join token, and successors for those that are due.

Enroll is reached by strangers, so all of it is bounded: what a request may hold, how often one address
may ask. A token is spent only for a request that could otherwise be granted. What the authority states
about the node is published here, at its first appearance.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from control.actions import ActionLog
from control.ca.issuance import grant_by_renewal, grant_by_token
from control.ca.tokens import JoinTokens
from control.pending import PendingFacts
from control.records import AuthorityRecords
from mesh import codec
from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import read_csr
from mesh.identity.leaf import chain_from_pem, read_leaf
from mesh.identity.source import SvidSource
from mesh.rpc.callers import caller_of
from sovereign.mesh.v1 import admin_pb2, admin_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Enrolment"
MAX_TOKEN_CHARS = 128
MAX_ADDRESSES = 4096

_Context = grpc.aio.ServicerContext[Any, Any]


class AskedTooOften:
    """Counts requests by address, per minute. Forgets the address that was quiet longest when full."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._asked: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def count(self, address: str) -> None:
        """Counts one request; raises OVERLOADED above the limit."""
        now = self._clock()
        minute = int(now // 60)
        known, asked = self._asked.pop(address, (minute, 0))
        asked = asked + 1 if known == minute else 1
        self._asked[address] = (minute, asked)
        if len(self._asked) > MAX_ADDRESSES:
            self._asked.popitem(last=False)
        if asked > self._per_minute:
            raise MeshError(
                Reason.OVERLOADED, f"at most {self._per_minute} enrolments a minute", {}, 60 - now % 60
            )


class EnrolmentService(admin_pb2_grpc.EnrolmentServicer):
    """Serves Enroll and Renew. `clock`: Unix seconds; `longest_s`: life of certificates. What became of each
    request is `told`: "granted", "renewed" or "refused"."""

    def __init__(
        self,
        *,
        ca: CertificateAuthority,
        board: Board,
        records: AuthorityRecords,
        tokens: JoinTokens,
        pending: PendingFacts,
        actions: ActionLog,
        source: SvidSource,
        clock: Callable[[], float],
        longest_s: float,
        per_minute: int,
        told: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._told = told
        self._ca = ca
        self._board = board
        self._records = records
        self._tokens = tokens
        self._pending = pending
        self._actions = actions
        self._source = source
        self._clock = clock
        self._longest_s = longest_s
        self._limit = AskedTooOften(per_minute, clock)

    async def Enroll(self, request: admin_pb2.EnrollRequest, context: _Context) -> admin_pb2.EnrollResponse:
        """Turns a join token and a CSR into a certificate, and states the node's facts."""
        with self._telling("granted"):
            return await self._enroll(request, context)

    async def _enroll(self, request: admin_pb2.EnrollRequest, context: _Context) -> admin_pb2.EnrollResponse:
        self._limit.count(_address_of(context.peer()))
        if len(request.token) > MAX_TOKEN_CHARS:
            raise MeshError(Reason.JOIN_TOKEN_INVALID, f"expected at most {MAX_TOKEN_CHARS} characters")
        read_csr(request.csr)
        self._records.require_board()
        name = await asyncio.to_thread(self._tokens.spend, request.token)
        async with self._actions.action("enrol", None, "", node=name) as outcome:
            grant = grant_by_token(self._ca.trust_domain, name, self._records.revocations, self._longest_s)
            facts = await asyncio.to_thread(self._pending.get, name)
            chain = self._ca.issue(request.csr, grant.id, grant.ttl_s, self._clock())
            _, outcome["generation"] = await self._records.state_facts(name, lambda: facts)
            outcome["serial"] = read_leaf(chain[0]).serial
            await asyncio.to_thread(self._pending.remove, name)
        return admin_pb2.EnrollResponse(
            certificate_chain=chain,
            bundles=[codec.bundle_to_pb(b) for b in self._bundles()],
            spiffe_id=str(grant.id),
        )

    async def Renew(self, request: admin_pb2.RenewRequest, context: _Context) -> admin_pb2.RenewResponse:
        """A new certificate for a new key, under the caller's own name."""
        with self._telling("renewed"):
            return await self._renew(request, context)

    async def _renew(self, request: admin_pb2.RenewRequest, context: _Context) -> admin_pb2.RenewResponse:
        now = self._clock()
        peer = caller_of(context, self._source.bundles, self._board.snapshot, now)
        grant = grant_by_renewal(
            self._ca.trust_domain, peer.id, peer.serial, self._records.revocations, self._longest_s
        )
        if read_csr(request.csr) == _key_of(context):
            raise MeshError(Reason.CSR_INVALID, "expected a new key: a renewal replaces the old one")
        async with self._actions.action("renew", peer.id, peer.serial) as outcome:
            chain = self._ca.issue(request.csr, grant.id, grant.ttl_s, now)
            outcome["new_serial"] = read_leaf(chain[0]).serial
        return admin_pb2.RenewResponse(
            certificate_chain=chain, bundles=[codec.bundle_to_pb(b) for b in self._bundles()]
        )

    @contextlib.contextmanager
    def _telling(self, granted: str) -> Iterator[None]:
        try:
            yield
        except MeshError:
            self._told("refused")
            raise
        self._told(granted)

    def _bundles(self) -> tuple[TrustBundle, ...]:
        return (self._ca.bundle, *self._records.federation)


def _address_of(peer: str) -> str:
    """The address without its port: "ipv4:192.0.2.1" of "ipv4:192.0.2.1:5000"."""
    return peer.rpartition(":")[0] or peer


def _key_of(context: _Context) -> object:
    """The public key that the caller's connection was made with."""
    (pem,) = context.auth_context()["x509_pem_cert"]
    return read_leaf(chain_from_pem(pem)[0]).public_key
