"""Collections, as the Admin service has them: how documents are indexed, and who holds any.

An authority publishes its own settings; authorities that share a collection publish the same. It does
not know who may ask (control/api/admin.py does), and it sees no document (I6).
"""

from __future__ import annotations

from control.actions import ActionLog
from control.records import AuthorityRecords
from mesh import codec
from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.identity.peer import Peer
from sovereign.mesh.v1 import admin_pb2


class Collections:
    """Publishes and lists collections for one authority."""

    def __init__(self, board: Board, records: AuthorityRecords, actions: ActionLog) -> None:
        self._board = board
        self._records = records
        self._actions = actions

    async def apply(
        self, request: admin_pb2.ApplyCollectionRequest, peer: Peer
    ) -> admin_pb2.ApplyCollectionResponse:
        """Checks the settings and puts them in force; those in force already are not published again."""
        if not request.HasField("collection"):
            raise MeshError(Reason.REQUEST_INVALID, "expected the settings of a collection")
        spec = codec.collection_from_pb(request.collection)
        change = await self._records.apply_collection(spec, dry_run=True)
        if not request.dry_run and (change.changed or not change.generation):
            async with self._actions.action(
                "apply collection",
                peer.id,
                peer.serial,
                collection=spec.name,
                digest=spec.digest,
                changed=change.changed,
            ) as outcome:
                change = await self._records.apply_collection(spec)
                outcome["generation"] = change.generation
        return admin_pb2.ApplyCollectionResponse(
            generation=change.generation, digest=spec.digest, changed=change.changed
        )

    def list(self) -> admin_pb2.ListCollectionsResponse:
        """Every known authority's collections, by trust domain and name, with the nodes that hold them.

        A holder is listed under every authority's settings of that name: its documents can be asked for
        together with others that are indexed by the same settings, whoever published them.
        """
        snapshot = self._board.snapshot
        answer = admin_pb2.ListCollectionsResponse()
        for trust_domain, specs in sorted(snapshot.collections.items()):
            for name, spec in sorted(specs.items()):
                view = answer.collections.add(
                    trust_domain=trust_domain, collection=codec.collection_to_pb(spec), digest=spec.digest
                )
                for node, candidate in sorted(snapshot.candidates.items()):
                    held = candidate.record.holds(name)
                    if held is not None:
                        (view.nodes if held.digest == spec.digest else view.mismatched).append(str(node))
        return answer
