from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_INFER: _ClassVar[Action]
    ACTION_EMBED: _ClassVar[Action]
    ACTION_SEARCH: _ClassVar[Action]
    ACTION_RELEASE: _ClassVar[Action]
    ACTION_TRANSIT: _ClassVar[Action]
    ACTION_EGRESS: _ClassVar[Action]
ACTION_UNSPECIFIED: Action
ACTION_INFER: Action
ACTION_EMBED: Action
ACTION_SEARCH: Action
ACTION_RELEASE: Action
ACTION_TRANSIT: Action
ACTION_EGRESS: Action

class RequestContext(_message.Message):
    __slots__ = ("data_classes", "purpose", "transfer_basis", "tenant", "narrowing")
    DATA_CLASSES_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_BASIS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NARROWING_FIELD_NUMBER: _ClassVar[int]
    data_classes: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    transfer_basis: str
    tenant: str
    narrowing: Narrowing
    def __init__(self, data_classes: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., transfer_basis: _Optional[str] = ..., tenant: _Optional[str] = ..., narrowing: _Optional[_Union[Narrowing, _Mapping]] = ...) -> None: ...

class Narrowing(_message.Message):
    __slots__ = ("allowed_jurisdictions", "required_assurances")
    ALLOWED_JURISDICTIONS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_ASSURANCES_FIELD_NUMBER: _ClassVar[int]
    allowed_jurisdictions: _containers.RepeatedScalarFieldContainer[str]
    required_assurances: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed_jurisdictions: _Optional[_Iterable[str]] = ..., required_assurances: _Optional[_Iterable[str]] = ...) -> None: ...
