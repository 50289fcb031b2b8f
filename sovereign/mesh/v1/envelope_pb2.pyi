from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("statement", "certificate_chain", "signature")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    certificate_chain: _containers.RepeatedScalarFieldContainer[bytes]
    signature: bytes
    def __init__(self, statement: _Optional[bytes] = ..., certificate_chain: _Optional[_Iterable[bytes]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("type", "key", "generation", "not_before_ms", "not_after_ms", "payload")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    type: str
    key: str
    generation: int
    not_before_ms: int
    not_after_ms: int
    payload: bytes
    def __init__(self, type: _Optional[str] = ..., key: _Optional[str] = ..., generation: _Optional[int] = ..., not_before_ms: _Optional[int] = ..., not_after_ms: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...
