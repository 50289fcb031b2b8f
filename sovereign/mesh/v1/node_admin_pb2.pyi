from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetLastMinuteRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLastMinuteResponse(_message.Message):
    __slots__ = ("measured", "window_seconds", "requests", "failed", "refused", "prompt_tokens", "completion_tokens", "p50_seconds", "p99_seconds")
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P99_SECONDS_FIELD_NUMBER: _ClassVar[int]
    measured: bool
    window_seconds: float
    requests: int
    failed: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    p50_seconds: float
    p99_seconds: float
    def __init__(self, measured: _Optional[bool] = ..., window_seconds: _Optional[float] = ..., requests: _Optional[int] = ..., failed: _Optional[int] = ..., refused: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., p50_seconds: _Optional[float] = ..., p99_seconds: _Optional[float] = ...) -> None: ...
