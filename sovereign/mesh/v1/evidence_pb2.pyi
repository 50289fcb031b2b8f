from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CosignRequest(_message.Message):
    __slots__ = ("checkpoint", "old_size", "proof")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    old_size: int
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, checkpoint: _Optional[str] = ..., old_size: _Optional[int] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CosignResponse(_message.Message):
    __slots__ = ("signature", "size")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    signature: str
    size: int
    def __init__(self, signature: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class ProveRequest(_message.Message):
    __slots__ = ("id", "wait_ms", "node", "requester")
    ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    wait_ms: int
    node: str
    requester: str
    def __init__(self, id: _Optional[str] = ..., wait_ms: _Optional[int] = ..., node: _Optional[str] = ..., requester: _Optional[str] = ...) -> None: ...

class ProveResponse(_message.Message):
    __slots__ = ("entries", "checkpoint", "record", "witnesses")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ProvenEntry]
    checkpoint: str
    record: bytes
    witnesses: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, entries: _Optional[_Iterable[_Union[ProvenEntry, _Mapping]]] = ..., checkpoint: _Optional[str] = ..., record: _Optional[bytes] = ..., witnesses: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ProvenEntry(_message.Message):
    __slots__ = ("index", "entry", "proof")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    index: int
    entry: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, index: _Optional[int] = ..., entry: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ReadRequest(_message.Message):
    __slots__ = ("start", "end", "follow")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    follow: bool
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("start", "entries", "size")
    START_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    start: int
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    size: int
    def __init__(self, start: _Optional[int] = ..., entries: _Optional[_Iterable[bytes]] = ..., size: _Optional[int] = ...) -> None: ...

class ProveRangeRequest(_message.Message):
    __slots__ = ("start", "end", "wait_ms")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    wait_ms: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class ProveRangeResponse(_message.Message):
    __slots__ = ("proof", "start", "entries")
    PROOF_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    proof: RangeProof
    start: int
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, proof: _Optional[_Union[RangeProof, _Mapping]] = ..., start: _Optional[int] = ..., entries: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RangeProof(_message.Message):
    __slots__ = ("start", "end", "checkpoint", "record", "witnesses", "inclusion", "consistency")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    WITNESSES_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    checkpoint: str
    record: bytes
    witnesses: _containers.RepeatedScalarFieldContainer[bytes]
    inclusion: _containers.RepeatedScalarFieldContainer[bytes]
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., checkpoint: _Optional[str] = ..., record: _Optional[bytes] = ..., witnesses: _Optional[_Iterable[bytes]] = ..., inclusion: _Optional[_Iterable[bytes]] = ..., consistency: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ListAlarmsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAlarmsResponse(_message.Message):
    __slots__ = ("alarms",)
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    alarms: _containers.RepeatedCompositeFieldContainer[Alarm]
    def __init__(self, alarms: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("origin", "finding", "detail", "at", "seen", "offered")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    OFFERED_FIELD_NUMBER: _ClassVar[int]
    origin: str
    finding: str
    detail: str
    at: float
    seen: str
    offered: str
    def __init__(self, origin: _Optional[str] = ..., finding: _Optional[str] = ..., detail: _Optional[str] = ..., at: _Optional[float] = ..., seen: _Optional[str] = ..., offered: _Optional[str] = ...) -> None: ...
