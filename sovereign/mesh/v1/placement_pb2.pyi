from sovereign.mesh.v1 import context_pb2 as _context_pb2
from sovereign.mesh.v1 import envelope_pb2 as _envelope_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlaceRequest(_message.Message):
    __slots__ = ("context", "action", "model", "excluded_nodes", "explain")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_NODES_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    context: _context_pb2.RequestContext
    action: _context_pb2.Action
    model: str
    excluded_nodes: _containers.RepeatedScalarFieldContainer[str]
    explain: bool
    def __init__(self, context: _Optional[_Union[_context_pb2.RequestContext, _Mapping]] = ..., action: _Optional[_Union[_context_pb2.Action, str]] = ..., model: _Optional[str] = ..., excluded_nodes: _Optional[_Iterable[str]] = ..., explain: _Optional[bool] = ...) -> None: ...

class PlaceResponse(_message.Message):
    __slots__ = ("decision", "targets")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    targets: _containers.RepeatedCompositeFieldContainer[Target]
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., targets: _Optional[_Iterable[_Union[Target, _Mapping]]] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("node", "endpoints", "dns_name", "permit", "model_digest")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    DNS_NAME_FIELD_NUMBER: _ClassVar[int]
    PERMIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    node: str
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    dns_name: str
    permit: _envelope_pb2.Envelope
    model_digest: str
    def __init__(self, node: _Optional[str] = ..., endpoints: _Optional[_Iterable[str]] = ..., dns_name: _Optional[str] = ..., permit: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., model_digest: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("id", "permitted", "chosen", "ranked", "refused", "refused_total", "policy_digests", "snapshot_version", "decided_at_ms", "expires_at_ms", "decided_by", "considered")
    class PolicyDigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PERMITTED_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    RANKED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    DECIDED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    CONSIDERED_FIELD_NUMBER: _ClassVar[int]
    id: str
    permitted: bool
    chosen: str
    ranked: _containers.RepeatedCompositeFieldContainer[RankedCandidate]
    refused: _containers.RepeatedCompositeFieldContainer[Refusal]
    refused_total: int
    policy_digests: _containers.ScalarMap[str, str]
    snapshot_version: int
    decided_at_ms: int
    expires_at_ms: int
    decided_by: str
    considered: int
    def __init__(self, id: _Optional[str] = ..., permitted: _Optional[bool] = ..., chosen: _Optional[str] = ..., ranked: _Optional[_Iterable[_Union[RankedCandidate, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., refused_total: _Optional[int] = ..., policy_digests: _Optional[_Mapping[str, str]] = ..., snapshot_version: _Optional[int] = ..., decided_at_ms: _Optional[int] = ..., expires_at_ms: _Optional[int] = ..., decided_by: _Optional[str] = ..., considered: _Optional[int] = ...) -> None: ...

class RankedCandidate(_message.Message):
    __slots__ = ("node", "score", "location", "permitted_by")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    PERMITTED_BY_FIELD_NUMBER: _ClassVar[int]
    node: str
    score: float
    location: str
    permitted_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., score: _Optional[float] = ..., location: _Optional[str] = ..., permitted_by: _Optional[_Iterable[str]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("node", "reason", "detail", "policies", "location")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    node: str
    reason: str
    detail: str
    policies: _containers.RepeatedScalarFieldContainer[str]
    location: str
    def __init__(self, node: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., policies: _Optional[_Iterable[str]] = ..., location: _Optional[str] = ...) -> None: ...

class Permit(_message.Message):
    __slots__ = ("decision_id", "caller", "node", "action", "context_digest", "model", "policy_digests")
    class PolicyDigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    caller: str
    node: str
    action: _context_pb2.Action
    context_digest: bytes
    model: str
    policy_digests: _containers.ScalarMap[str, str]
    def __init__(self, decision_id: _Optional[str] = ..., caller: _Optional[str] = ..., node: _Optional[str] = ..., action: _Optional[_Union[_context_pb2.Action, str]] = ..., context_digest: _Optional[bytes] = ..., model: _Optional[str] = ..., policy_digests: _Optional[_Mapping[str, str]] = ...) -> None: ...
