from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_TASK_UNSPECIFIED: _ClassVar[ModelTask]
    MODEL_TASK_GENERATE: _ClassVar[ModelTask]
    MODEL_TASK_EMBED: _ClassVar[ModelTask]
MODEL_TASK_UNSPECIFIED: ModelTask
MODEL_TASK_GENERATE: ModelTask
MODEL_TASK_EMBED: ModelTask

class PolicyRecord(_message.Message):
    __slots__ = ("cedar",)
    CEDAR_FIELD_NUMBER: _ClassVar[int]
    cedar: str
    def __init__(self, cedar: _Optional[str] = ...) -> None: ...

class NodeFacts(_message.Message):
    __slots__ = ("location", "operator_domicile", "controller", "admin_access", "assurances", "cordoned", "dns_name")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_DOMICILE_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ACCESS_FIELD_NUMBER: _ClassVar[int]
    ASSURANCES_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    DNS_NAME_FIELD_NUMBER: _ClassVar[int]
    location: str
    operator_domicile: str
    controller: str
    admin_access: _containers.RepeatedScalarFieldContainer[str]
    assurances: _containers.RepeatedScalarFieldContainer[str]
    cordoned: bool
    dns_name: str
    def __init__(self, location: _Optional[str] = ..., operator_domicile: _Optional[str] = ..., controller: _Optional[str] = ..., admin_access: _Optional[_Iterable[str]] = ..., assurances: _Optional[_Iterable[str]] = ..., cordoned: _Optional[bool] = ..., dns_name: _Optional[str] = ...) -> None: ...

class NodeRecord(_message.Message):
    __slots__ = ("endpoints", "models", "software_version", "collections", "log_key", "witness_key")
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    LOG_KEY_FIELD_NUMBER: _ClassVar[int]
    WITNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    software_version: str
    collections: _containers.RepeatedCompositeFieldContainer[HeldCollection]
    log_key: bytes
    witness_key: bytes
    def __init__(self, endpoints: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., software_version: _Optional[str] = ..., collections: _Optional[_Iterable[_Union[HeldCollection, _Mapping]]] = ..., log_key: _Optional[bytes] = ..., witness_key: _Optional[bytes] = ...) -> None: ...

class HeldCollection(_message.Message):
    __slots__ = ("name", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class CollectionRecord(_message.Message):
    __slots__ = ("name", "embedder", "embedder_digest", "dimensions", "analyzer", "k1", "b", "average_length", "chunk_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    ANALYZER_FIELD_NUMBER: _ClassVar[int]
    K1_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CHUNK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    embedder: str
    embedder_digest: str
    dimensions: int
    analyzer: str
    k1: float
    b: float
    average_length: float
    chunk_tokens: int
    def __init__(self, name: _Optional[str] = ..., embedder: _Optional[str] = ..., embedder_digest: _Optional[str] = ..., dimensions: _Optional[int] = ..., analyzer: _Optional[str] = ..., k1: _Optional[float] = ..., b: _Optional[float] = ..., average_length: _Optional[float] = ..., chunk_tokens: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "digest", "context_tokens", "tasks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    context_tokens: int
    tasks: _containers.RepeatedScalarFieldContainer[ModelTask]
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., context_tokens: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[ModelTask, str]]] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("ready", "in_flight", "queued", "capacity", "draining", "running", "facts_generation")
    READY_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    FACTS_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    in_flight: int
    queued: int
    capacity: int
    draining: bool
    running: int
    facts_generation: int
    def __init__(self, ready: _Optional[bool] = ..., in_flight: _Optional[int] = ..., queued: _Optional[int] = ..., capacity: _Optional[int] = ..., draining: _Optional[bool] = ..., running: _Optional[int] = ..., facts_generation: _Optional[int] = ...) -> None: ...

class RevocationList(_message.Message):
    __slots__ = ("spiffe_ids", "serials")
    SPIFFE_IDS_FIELD_NUMBER: _ClassVar[int]
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    spiffe_ids: _containers.RepeatedScalarFieldContainer[str]
    serials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, spiffe_ids: _Optional[_Iterable[str]] = ..., serials: _Optional[_Iterable[str]] = ...) -> None: ...

class FederationRecord(_message.Message):
    __slots__ = ("bundles",)
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[TrustBundle]
    def __init__(self, bundles: _Optional[_Iterable[_Union[TrustBundle, _Mapping]]] = ...) -> None: ...

class TrustBundle(_message.Message):
    __slots__ = ("trust_domain", "roots", "sequence")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    roots: _containers.RepeatedScalarFieldContainer[bytes]
    sequence: int
    def __init__(self, trust_domain: _Optional[str] = ..., roots: _Optional[_Iterable[bytes]] = ..., sequence: _Optional[int] = ...) -> None: ...

class GroupsRecord(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Heads(_message.Message):
    __slots__ = ("generations", "max_age_ms")
    class GenerationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    generations: _containers.ScalarMap[str, int]
    max_age_ms: int
    def __init__(self, generations: _Optional[_Mapping[str, int]] = ..., max_age_ms: _Optional[int] = ...) -> None: ...
