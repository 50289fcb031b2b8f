"""Admin: what the administrators of this authority can have done.

Every method first asks whether the caller is an administrator of this very authority; every change is
in the action log before it happens. Nothing here carries a payload (I6), and no private key travels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc

from control.actions import ActionLog
from control.api.collections import Collections
from control.ca.issuance import grant_by_administrator, require_administrator, require_node_name
from control.ca.tokens import DEFAULT_TTL_S, JoinTokens
from control.pending import PendingFacts
from control.records import AuthorityRecords
from mesh import codec
from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.core.records import ROOT, RecordKey, RecordType
from mesh.core.snapshot import TrustBundle
from mesh.core.types import NodeFacts, SpiffeId, node_id
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import read_csr
from mesh.identity.names import dns_name_of
from mesh.identity.peer import Peer
from mesh.identity.source import SvidSource
from mesh.rpc.callers import ADMIN, caller_of
from mesh.store.base import RecordStore
from sovereign.mesh.v1 import admin_pb2, admin_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Admin"
# Above this a listing is refused rather than cut: half of the truth is not what was asked for.
MAX_LISTED_BYTES = 8 * 1024 * 1024
MAX_REVOKED_AT_ONCE = 4096

_Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(admin_pb2_grpc.AdminServicer):
    """Serves /admin/... of one trust domain. `clock`: Unix seconds; `longest_s`: life of certificates."""

    def __init__(
        self,
        *,
        ca: CertificateAuthority,
        board: Board,
        store: RecordStore,
        records: AuthorityRecords,
        tokens: JoinTokens,
        pending: PendingFacts,
        actions: ActionLog,
        source: SvidSource,
        clock: Callable[[], float],
        longest_s: float,
    ) -> None:
        self._ca = ca
        self._board = board
        self._store = store
        self._records = records
        self._tokens = tokens
        self._pending = pending
        self._actions = actions
        self._collections = Collections(board, records, actions)
        self._source = source
        self._clock = clock
        self._longest_s = longest_s

    @property
    def _trust_domain(self) -> str:
        return self._ca.trust_domain

    def _administrator(self, context: _Context) -> Peer:
        peer = caller_of(context, self._source.bundles, self._board.snapshot, self._clock(), (ADMIN,))
        require_administrator(peer.id, self._trust_domain)
        return peer

    # --- policies ----------------------------------------------------------------------------------

    async def ApplyPolicy(
        self, request: admin_pb2.ApplyPolicyRequest, context: _Context
    ) -> admin_pb2.ApplyPolicyResponse:
        """Signs and publishes a policy set that parses and fits the schema."""
        peer = self._administrator(context)
        checked = await self._records.apply_policy(request.cedar, dry_run=True)
        if request.dry_run:
            change = checked
        else:
            async with self._actions.action(
                "apply policy", peer.id, peer.serial, digest=checked.digest
            ) as outcome:
                change = await self._records.apply_policy(request.cedar)
                outcome["generation"] = change.generation
        return admin_pb2.ApplyPolicyResponse(
            generation=change.generation, digest=change.digest, policy_ids=change.ids
        )

    async def GetPolicy(
        self, request: admin_pb2.GetPolicyRequest, context: _Context
    ) -> admin_pb2.GetPolicyResponse:
        """The policy set in force, also another authority's."""
        self._administrator(context)
        trust_domain = request.trust_domain or self._trust_domain
        policy = self._board.snapshot.policies.get(trust_domain)
        if policy is None:
            raise MeshError(Reason.NOT_FOUND, "no policy of that trust domain is in force")
        groups = self._board.snapshot.groups.get(trust_domain)
        return admin_pb2.GetPolicyResponse(
            cedar=policy.cedar,
            generation=policy.generation,
            digest=policy.digest,
            groups=groups.to_json() if groups is not None else "",
        )

    # --- nodes -------------------------------------------------------------------------------------

    async def CreateJoinToken(
        self, request: admin_pb2.CreateJoinTokenRequest, context: _Context
    ) -> admin_pb2.CreateJoinTokenResponse:
        """Makes a token in place of the node's unspent ones, and fixes what will be stated about it."""
        peer = self._administrator(context)
        require_node_name(request.node)
        identity = node_id(self._trust_domain, request.node)
        if identity in self._records.revocations.ids:
            raise MeshError(Reason.IDENTITY_REVOKED, f"{identity} is revoked: choose another name")
        facts = replace(codec.facts_from_pb(request.facts), dns_name=dns_name_of(identity), cordoned=False)
        ttl_s = request.ttl_seconds or DEFAULT_TTL_S
        async with self._actions.action(
            "create join token",
            peer.id,
            peer.serial,
            node=request.node,
            facts=_facts_entry(facts),
            ttl_s=ttl_s,
        ):
            await asyncio.to_thread(self._tokens.withdraw, request.node)
            await asyncio.to_thread(self._pending.put, request.node, facts)
            made = await asyncio.to_thread(self._tokens.create, request.node, ttl_s)
        return admin_pb2.CreateJoinTokenResponse(
            token=made.token, expires_at_ms=round(made.expires_at * 1000)
        )

    async def ListNodes(
        self, request: admin_pb2.ListNodesRequest, context: _Context
    ) -> admin_pb2.ListNodesResponse:
        """The nodes of every trust domain that this authority knows."""
        self._administrator(context)
        snapshot, statuses, now = self._board.snapshot, self._board.statuses, self._clock()
        answer = admin_pb2.ListNodesResponse()
        for node, facts in sorted(self._board.facts.items()):
            candidate = snapshot.candidates.get(node)
            record = candidate.record if candidate is not None else None
            fresh = not snapshot.stale_reason(node.trust_domain, now)
            heads = snapshot.heads.get(node.trust_domain)
            signed = self._board.held(RecordKey(node.trust_domain, RecordType.NODE, node.name))
            answer.nodes.append(
                codec.node_view_to_pb(
                    node,
                    facts,
                    record,
                    statuses.get(node),
                    fresh,
                    heads.signed_at if heads is not None else 0.0,
                    # A node's record is signed for a day, and no certificate of a node lives longer.
                    signed.statement.not_after if signed is not None else 0.0,
                )
            )
        return answer

    async def UpdateNode(
        self, request: admin_pb2.UpdateNodeRequest, context: _Context
    ) -> admin_pb2.UpdateNodeResponse:
        """Cordons or uncordons an own node, or replaces what is stated about it."""
        peer = self._administrator(context)
        require_node_name(request.node)
        stated = codec.facts_from_pb(request.facts) if request.HasField("facts") else None
        cordoned = request.cordoned if request.HasField("cordoned") else None
        if stated is None and cordoned is None:
            raise MeshError(Reason.REQUEST_INVALID, "expected facts, or whether it is cordoned")

        def change() -> NodeFacts:
            old = self._records.facts(request.node)
            new = stated if stated is not None else old
            return replace(
                new, dns_name=old.dns_name, cordoned=old.cordoned if cordoned is None else cordoned
            )

        async with self._actions.action(
            "update node", peer.id, peer.serial, node=request.node, facts=_facts_entry(change())
        ) as outcome:
            facts, generation = await self._records.state_facts(request.node, change)
            # Another change may have come in between: the log says what was stated in the end.
            outcome["generation"], outcome["facts"] = generation, _facts_entry(facts)
        return admin_pb2.UpdateNodeResponse(facts=codec.facts_to_pb(facts), generation=generation)

    # --- identities --------------------------------------------------------------------------------

    async def IssueCertificate(
        self, request: admin_pb2.IssueCertificateRequest, context: _Context
    ) -> admin_pb2.IssueCertificateResponse:
        """Certifies a client's or an administrator's key."""
        peer = self._administrator(context)
        grant = grant_by_administrator(
            self._trust_domain,
            request.path,
            request.ttl_seconds,
            self._records.revocations,
            self._longest_s,
        )
        read_csr(request.csr)
        async with self._actions.action("issue certificate", peer.id, peer.serial, name=str(grant.id)):
            chain = self._ca.issue(request.csr, grant.id, grant.ttl_s, self._clock())
        return admin_pb2.IssueCertificateResponse(
            certificate_chain=chain, bundles=[codec.bundle_to_pb(b) for b in self._bundles()]
        )

    async def Revoke(self, request: admin_pb2.RevokeRequest, context: _Context) -> admin_pb2.RevokeResponse:
        """Cuts identities or certificates off, besides those that are cut off already."""
        peer = self._administrator(context)
        ids = self._revocable(list(request.spiffe_ids))
        serials = list(request.serials)
        if not ids and not serials:
            raise MeshError(Reason.REQUEST_INVALID, "expected a name or a serial number")
        if len(serials) > MAX_REVOKED_AT_ONCE or not all(_is_serial(s) for s in serials):
            raise MeshError(
                Reason.REQUEST_INVALID, "serials: expected lower-case hex, at most 40 digits each"
            )
        async with self._actions.action(
            "revoke", peer.id, peer.serial, names=[str(i) for i in ids], serials=serials
        ) as outcome:
            outcome["generation"] = generation = await self._records.revoke(ids, serials)
        return admin_pb2.RevokeResponse(generation=generation)

    def _revocable(self, texts: list[str]) -> list[SpiffeId]:
        if len(texts) > MAX_REVOKED_AT_ONCE:
            raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_REVOKED_AT_ONCE} names")
        ids = [SpiffeId.parse(text) for text in texts]
        for identity in ids:
            if identity.trust_domain != self._trust_domain:
                raise MeshError(
                    Reason.IDENTITY_NOT_ALLOWED,
                    f"an authority revokes names of its own: {self._trust_domain}",
                )
            if identity.kind == "authority" or identity == self._source.id:
                raise MeshError(
                    Reason.IDENTITY_NOT_ALLOWED, "revoking that would end this authority's own word"
                )
        return ids

    # --- collections -------------------------------------------------------------------------------

    async def ApplyCollection(
        self, request: admin_pb2.ApplyCollectionRequest, context: _Context
    ) -> admin_pb2.ApplyCollectionResponse:
        """Signs and publishes how a collection is indexed."""
        return await self._collections.apply(request, self._administrator(context))

    async def ListCollections(
        self, request: admin_pb2.ListCollectionsRequest, context: _Context
    ) -> admin_pb2.ListCollectionsResponse:
        """The collections of every trust domain that this authority knows, and who holds them."""
        self._administrator(context)
        return self._collections.list()

    # --- other authorities -------------------------------------------------------------------------

    async def Federate(
        self, request: admin_pb2.FederateRequest, context: _Context
    ) -> admin_pb2.FederateResponse:
        """Accepts another authority's bundle, or drops one."""
        peer = self._administrator(context)
        if request.HasField("accept") == bool(request.drop):
            raise MeshError(Reason.REQUEST_INVALID, "expected either a bundle to accept or a name to drop")
        if request.drop:
            async with self._actions.action(
                "drop", peer.id, peer.serial, trust_domain=request.drop
            ) as outcome:
                outcome["generation"] = generation = await self._records.drop(request.drop)
        else:
            bundle = self._bundle(request)
            async with self._actions.action(
                "accept", peer.id, peer.serial, trust_domain=bundle.trust_domain, sequence=bundle.sequence
            ) as outcome:
                outcome["generation"] = generation = await self._records.accept(bundle)
        bundles = [codec.bundle_to_pb(b) for b in self._records.federation]
        return admin_pb2.FederateResponse(bundles=bundles, generation=generation)

    def _bundle(self, request: admin_pb2.FederateRequest) -> TrustBundle:
        try:
            return codec.bundle_from_pb(request.accept)
        except MeshError as error:
            raise MeshError(Reason.BUNDLE_INVALID, error.message) from None

    def _bundles(self) -> tuple[TrustBundle, ...]:
        return (self._ca.bundle, *self._records.federation)

    # --- the board ---------------------------------------------------------------------------------

    async def ListRecords(
        self, request: admin_pb2.ListRecordsRequest, context: _Context
    ) -> admin_pb2.ListRecordsResponse:
        """The signed records as the board holds them, with the verdict of our own check."""
        self._administrator(context)
        entries, _ = await self._store.list(ROOT + request.prefix)
        if sum(len(entry.value) for entry in entries) > MAX_LISTED_BYTES:
            raise MeshError(
                Reason.REQUEST_TOO_LARGE, f"more than {MAX_LISTED_BYTES} bytes: name a longer prefix"
            )
        answer = admin_pb2.ListRecordsResponse()
        for entry in entries:
            found = answer.records.add(key=entry.key, refused=self._verdict(entry.key))
            try:
                found.envelope.CopyFrom(codec.envelope_from_bytes(entry.value))
            except MeshError as error:
                found.refused = error.reason.code
        return answer

    def _verdict(self, key: str) -> str:
        refused = self._board.refused.get(key)
        if refused is not None:
            return refused.code
        try:
            RecordKey.parse(key)
        except MeshError as error:
            return error.reason.code
        return ""

    async def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: _Context
    ) -> admin_pb2.GetStatusResponse:
        """Whether the board answers, and whose records are fresh."""
        self._administrator(context)
        snapshot, now = self._board.snapshot, self._clock()
        known = sorted({*snapshot.bundles, *snapshot.policies})
        stale = [td for td in known if snapshot.stale_reason(td, now)]
        return admin_pb2.GetStatusResponse(
            trust_domain=self._trust_domain,
            board_connected=self._board.connected,
            snapshot_version=snapshot.version,
            fresh=[td for td in known if td not in stale],
            stale=stale,
        )


def _is_serial(text: str) -> bool:
    return 0 < len(text) <= 40 and not set(text) - set("0123456789abcdef")


def _facts_entry(facts: NodeFacts) -> dict[str, object]:
    """Facts as the action log keeps them."""
    return {
        "location": facts.location,
        "operator_domicile": facts.operator_domicile,
        "controller": facts.controller,
        "admin_access": sorted(facts.admin_access),
        "assurances": sorted(facts.assurances),
        "cordoned": facts.cordoned,
    }
