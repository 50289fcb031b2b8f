from sovereign.mesh.v1 import envelope_pb2 as _envelope_pb2
from sovereign.mesh.v1 import records_pb2 as _records_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyPolicyRequest(_message.Message):
    __slots__ = ("cedar", "dry_run")
    CEDAR_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    cedar: str
    dry_run: bool
    def __init__(self, cedar: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ApplyPolicyResponse(_message.Message):
    __slots__ = ("generation", "digest", "policy_ids")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_IDS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    digest: str
    policy_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, generation: _Optional[int] = ..., digest: _Optional[str] = ..., policy_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("trust_domain",)
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    def __init__(self, trust_domain: _Optional[str] = ...) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("cedar", "generation", "digest", "groups")
    CEDAR_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    cedar: str
    generation: int
    digest: str
    groups: str
    def __init__(self, cedar: _Optional[str] = ..., generation: _Optional[int] = ..., digest: _Optional[str] = ..., groups: _Optional[str] = ...) -> None: ...

class CreateJoinTokenRequest(_message.Message):
    __slots__ = ("node", "facts", "ttl_seconds")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    node: str
    facts: _records_pb2.NodeFacts
    ttl_seconds: int
    def __init__(self, node: _Optional[str] = ..., facts: _Optional[_Union[_records_pb2.NodeFacts, _Mapping]] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class CreateJoinTokenResponse(_message.Message):
    __slots__ = ("token", "expires_at_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    token: str
    expires_at_ms: int
    def __init__(self, token: _Optional[str] = ..., expires_at_ms: _Optional[int] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeView]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeView, _Mapping]]] = ...) -> None: ...

class NodeView(_message.Message):
    __slots__ = ("node", "facts", "record", "status", "fresh", "status_at_ms", "heads_at_ms", "certificate_not_after_ms")
    NODE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    STATUS_AT_MS_FIELD_NUMBER: _ClassVar[int]
    HEADS_AT_MS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    node: str
    facts: _records_pb2.NodeFacts
    record: _records_pb2.NodeRecord
    status: _records_pb2.NodeStatus
    fresh: bool
    status_at_ms: int
    heads_at_ms: int
    certificate_not_after_ms: int
    def __init__(self, node: _Optional[str] = ..., facts: _Optional[_Union[_records_pb2.NodeFacts, _Mapping]] = ..., record: _Optional[_Union[_records_pb2.NodeRecord, _Mapping]] = ..., status: _Optional[_Union[_records_pb2.NodeStatus, _Mapping]] = ..., fresh: _Optional[bool] = ..., status_at_ms: _Optional[int] = ..., heads_at_ms: _Optional[int] = ..., certificate_not_after_ms: _Optional[int] = ...) -> None: ...

class UpdateNodeRequest(_message.Message):
    __slots__ = ("node", "cordoned", "facts")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    cordoned: bool
    facts: _records_pb2.NodeFacts
    def __init__(self, node: _Optional[str] = ..., cordoned: _Optional[bool] = ..., facts: _Optional[_Union[_records_pb2.NodeFacts, _Mapping]] = ...) -> None: ...

class UpdateNodeResponse(_message.Message):
    __slots__ = ("facts", "generation")
    FACTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    facts: _records_pb2.NodeFacts
    generation: int
    def __init__(self, facts: _Optional[_Union[_records_pb2.NodeFacts, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class IssueCertificateRequest(_message.Message):
    __slots__ = ("csr", "path", "ttl_seconds")
    CSR_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    path: str
    ttl_seconds: int
    def __init__(self, csr: _Optional[bytes] = ..., path: _Optional[str] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class IssueCertificateResponse(_message.Message):
    __slots__ = ("certificate_chain", "bundles")
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    certificate_chain: _containers.RepeatedScalarFieldContainer[bytes]
    bundles: _containers.RepeatedCompositeFieldContainer[_records_pb2.TrustBundle]
    def __init__(self, certificate_chain: _Optional[_Iterable[bytes]] = ..., bundles: _Optional[_Iterable[_Union[_records_pb2.TrustBundle, _Mapping]]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("spiffe_ids", "serials")
    SPIFFE_IDS_FIELD_NUMBER: _ClassVar[int]
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    spiffe_ids: _containers.RepeatedScalarFieldContainer[str]
    serials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, spiffe_ids: _Optional[_Iterable[str]] = ..., serials: _Optional[_Iterable[str]] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class ApplyCollectionRequest(_message.Message):
    __slots__ = ("collection", "dry_run")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    collection: _records_pb2.CollectionRecord
    dry_run: bool
    def __init__(self, collection: _Optional[_Union[_records_pb2.CollectionRecord, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ApplyCollectionResponse(_message.Message):
    __slots__ = ("generation", "digest", "changed")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    generation: int
    digest: str
    changed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, generation: _Optional[int] = ..., digest: _Optional[str] = ..., changed: _Optional[_Iterable[str]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[CollectionView]
    def __init__(self, collections: _Optional[_Iterable[_Union[CollectionView, _Mapping]]] = ...) -> None: ...

class CollectionView(_message.Message):
    __slots__ = ("trust_domain", "collection", "digest", "nodes", "mismatched")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    MISMATCHED_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    collection: _records_pb2.CollectionRecord
    digest: str
    nodes: _containers.RepeatedScalarFieldContainer[str]
    mismatched: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, trust_domain: _Optional[str] = ..., collection: _Optional[_Union[_records_pb2.CollectionRecord, _Mapping]] = ..., digest: _Optional[str] = ..., nodes: _Optional[_Iterable[str]] = ..., mismatched: _Optional[_Iterable[str]] = ...) -> None: ...

class FederateRequest(_message.Message):
    __slots__ = ("accept", "drop")
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    accept: _records_pb2.TrustBundle
    drop: str
    def __init__(self, accept: _Optional[_Union[_records_pb2.TrustBundle, _Mapping]] = ..., drop: _Optional[str] = ...) -> None: ...

class FederateResponse(_message.Message):
    __slots__ = ("bundles", "generation")
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[_records_pb2.TrustBundle]
    generation: int
    def __init__(self, bundles: _Optional[_Iterable[_Union[_records_pb2.TrustBundle, _Mapping]]] = ..., generation: _Optional[int] = ...) -> None: ...

class ListRecordsRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    def __init__(self, prefix: _Optional[str] = ...) -> None: ...

class ListRecordsResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[StoredEnvelope]
    def __init__(self, records: _Optional[_Iterable[_Union[StoredEnvelope, _Mapping]]] = ...) -> None: ...

class StoredEnvelope(_message.Message):
    __slots__ = ("key", "envelope", "refused")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    key: str
    envelope: _envelope_pb2.Envelope
    refused: str
    def __init__(self, key: _Optional[str] = ..., envelope: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., refused: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("trust_domain", "board_connected", "snapshot_version", "fresh", "stale")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    BOARD_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    board_connected: bool
    snapshot_version: int
    fresh: _containers.RepeatedScalarFieldContainer[str]
    stale: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, trust_domain: _Optional[str] = ..., board_connected: _Optional[bool] = ..., snapshot_version: _Optional[int] = ..., fresh: _Optional[_Iterable[str]] = ..., stale: _Optional[_Iterable[str]] = ...) -> None: ...

class EnrollRequest(_message.Message):
    __slots__ = ("token", "csr")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr: bytes
    def __init__(self, token: _Optional[str] = ..., csr: _Optional[bytes] = ...) -> None: ...

class EnrollResponse(_message.Message):
    __slots__ = ("certificate_chain", "bundles", "spiffe_id")
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    certificate_chain: _containers.RepeatedScalarFieldContainer[bytes]
    bundles: _containers.RepeatedCompositeFieldContainer[_records_pb2.TrustBundle]
    spiffe_id: str
    def __init__(self, certificate_chain: _Optional[_Iterable[bytes]] = ..., bundles: _Optional[_Iterable[_Union[_records_pb2.TrustBundle, _Mapping]]] = ..., spiffe_id: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("certificate_chain", "bundles")
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    certificate_chain: _containers.RepeatedScalarFieldContainer[bytes]
    bundles: _containers.RepeatedCompositeFieldContainer[_records_pb2.TrustBundle]
    def __init__(self, certificate_chain: _Optional[_Iterable[bytes]] = ..., bundles: _Optional[_Iterable[_Union[_records_pb2.TrustBundle, _Mapping]]] = ...) -> None: ...
