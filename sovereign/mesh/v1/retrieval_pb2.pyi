from sovereign.mesh.v1 import inference_pb2 as _inference_pb2
from sovereign.mesh.v1 import placement_pb2 as _placement_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_VECTOR: _ClassVar[SearchMode]
    SEARCH_MODE_KEYWORD: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]

class ReleaseLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RELEASE_LEVEL_UNSPECIFIED: _ClassVar[ReleaseLevel]
    RELEASE_LEVEL_COUNT: _ClassVar[ReleaseLevel]
    RELEASE_LEVEL_REFERENCE: _ClassVar[ReleaseLevel]
    RELEASE_LEVEL_SNIPPET: _ClassVar[ReleaseLevel]
    RELEASE_LEVEL_PASSAGE: _ClassVar[ReleaseLevel]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_VECTOR: SearchMode
SEARCH_MODE_KEYWORD: SearchMode
SEARCH_MODE_HYBRID: SearchMode
RELEASE_LEVEL_UNSPECIFIED: ReleaseLevel
RELEASE_LEVEL_COUNT: ReleaseLevel
RELEASE_LEVEL_REFERENCE: ReleaseLevel
RELEASE_LEVEL_SNIPPET: ReleaseLevel
RELEASE_LEVEL_PASSAGE: ReleaseLevel

class Filter(_message.Message):
    __slots__ = ("field", "any_of")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    field: str
    any_of: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, field: _Optional[str] = ..., any_of: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("admission", "collection", "query", "k", "mode", "filters", "level", "stream_partial", "timeout_ms", "exact")
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STREAM_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    admission: _inference_pb2.Admission
    collection: str
    query: str
    k: int
    mode: SearchMode
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    level: ReleaseLevel
    stream_partial: bool
    timeout_ms: int
    exact: bool
    def __init__(self, admission: _Optional[_Union[_inference_pb2.Admission, _Mapping]] = ..., collection: _Optional[str] = ..., query: _Optional[str] = ..., k: _Optional[int] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ..., stream_partial: _Optional[bool] = ..., timeout_ms: _Optional[int] = ..., exact: _Optional[bool] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("decided", "partial", "finished")
    DECIDED_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    decided: _placement_pb2.Decision
    partial: PartialHits
    finished: SearchFinished
    def __init__(self, decided: _Optional[_Union[_placement_pb2.Decision, _Mapping]] = ..., partial: _Optional[_Union[PartialHits, _Mapping]] = ..., finished: _Optional[_Union[SearchFinished, _Mapping]] = ...) -> None: ...

class PartialHits(_message.Message):
    __slots__ = ("hits", "node")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    node: NodeCoverage
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., node: _Optional[_Union[NodeCoverage, _Mapping]] = ...) -> None: ...

class SearchFinished(_message.Message):
    __slots__ = ("hits", "coverage", "complete")
    HITS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    coverage: _containers.RepeatedCompositeFieldContainer[NodeCoverage]
    complete: bool
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., coverage: _Optional[_Iterable[_Union[NodeCoverage, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("rank", "score", "node", "reference", "level", "title", "text", "document", "source")
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    rank: int
    score: float
    node: str
    reference: str
    level: ReleaseLevel
    title: str
    text: str
    document: str
    source: str
    def __init__(self, rank: _Optional[int] = ..., score: _Optional[float] = ..., node: _Optional[str] = ..., reference: _Optional[str] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., document: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class NodeCoverage(_message.Message):
    __slots__ = ("node", "location", "outcome", "reason", "detail", "policies", "latency_ms", "counted", "counted_inexact", "highest", "approximate", "charged")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[NodeCoverage.Outcome]
        OUTCOME_ANSWERED: _ClassVar[NodeCoverage.Outcome]
        OUTCOME_NOT_ASKED: _ClassVar[NodeCoverage.Outcome]
        OUTCOME_FAILED: _ClassVar[NodeCoverage.Outcome]
    OUTCOME_UNSPECIFIED: NodeCoverage.Outcome
    OUTCOME_ANSWERED: NodeCoverage.Outcome
    OUTCOME_NOT_ASKED: NodeCoverage.Outcome
    OUTCOME_FAILED: NodeCoverage.Outcome
    NODE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    COUNTED_INEXACT_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_FIELD_NUMBER: _ClassVar[int]
    CHARGED_FIELD_NUMBER: _ClassVar[int]
    node: str
    location: str
    outcome: NodeCoverage.Outcome
    reason: str
    detail: str
    policies: _containers.RepeatedScalarFieldContainer[str]
    latency_ms: float
    counted: int
    counted_inexact: bool
    highest: ReleaseLevel
    approximate: bool
    charged: int
    def __init__(self, node: _Optional[str] = ..., location: _Optional[str] = ..., outcome: _Optional[_Union[NodeCoverage.Outcome, str]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., policies: _Optional[_Iterable[str]] = ..., latency_ms: _Optional[float] = ..., counted: _Optional[int] = ..., counted_inexact: _Optional[bool] = ..., highest: _Optional[_Union[ReleaseLevel, str]] = ..., approximate: _Optional[bool] = ..., charged: _Optional[int] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("admission", "collection", "question", "filters", "timeout_ms")
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    admission: _inference_pb2.Admission
    collection: str
    question: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    timeout_ms: int
    def __init__(self, admission: _Optional[_Union[_inference_pb2.Admission, _Mapping]] = ..., collection: _Optional[str] = ..., question: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class AnswerResponse(_message.Message):
    __slots__ = ("decided", "sentence", "node", "finished")
    DECIDED_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    decided: _placement_pb2.Decision
    sentence: AnswerSentence
    node: NodeCoverage
    finished: AnswerFinished
    def __init__(self, decided: _Optional[_Union[_placement_pb2.Decision, _Mapping]] = ..., sentence: _Optional[_Union[AnswerSentence, _Mapping]] = ..., node: _Optional[_Union[NodeCoverage, _Mapping]] = ..., finished: _Optional[_Union[AnswerFinished, _Mapping]] = ...) -> None: ...

class AnswerSentence(_message.Message):
    __slots__ = ("text", "references", "node", "level", "extracted", "score")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    EXTRACTED_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    text: str
    references: _containers.RepeatedScalarFieldContainer[str]
    node: str
    level: ReleaseLevel
    extracted: bool
    score: float
    def __init__(self, text: _Optional[str] = ..., references: _Optional[_Iterable[str]] = ..., node: _Optional[str] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ..., extracted: _Optional[bool] = ..., score: _Optional[float] = ...) -> None: ...

class AnswerFinished(_message.Message):
    __slots__ = ("sentences", "coverage", "complete")
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    sentences: _containers.RepeatedCompositeFieldContainer[AnswerSentence]
    coverage: _containers.RepeatedCompositeFieldContainer[NodeCoverage]
    complete: bool
    def __init__(self, sentences: _Optional[_Iterable[_Union[AnswerSentence, _Mapping]]] = ..., coverage: _Optional[_Iterable[_Union[NodeCoverage, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("admission", "reference", "level", "timeout_ms")
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    admission: _inference_pb2.Admission
    reference: str
    level: ReleaseLevel
    timeout_ms: int
    def __init__(self, admission: _Optional[_Union[_inference_pb2.Admission, _Mapping]] = ..., reference: _Optional[str] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ("hit",)
    HIT_FIELD_NUMBER: _ClassVar[int]
    hit: Hit
    def __init__(self, hit: _Optional[_Union[Hit, _Mapping]] = ...) -> None: ...

class ShardSearchRequest(_message.Message):
    __slots__ = ("open", "weigh", "release")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    WEIGH_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    open: ShardOpen
    weigh: ShardWeigh
    release: ShardRelease
    def __init__(self, open: _Optional[_Union[ShardOpen, _Mapping]] = ..., weigh: _Optional[_Union[ShardWeigh, _Mapping]] = ..., release: _Optional[_Union[ShardRelease, _Mapping]] = ...) -> None: ...

class ShardOpen(_message.Message):
    __slots__ = ("admission", "requester", "collection", "collection_digest", "vector", "terms", "filters", "depth", "exact")
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    admission: _inference_pb2.Admission
    requester: str
    collection: str
    collection_digest: str
    vector: _containers.RepeatedScalarFieldContainer[float]
    terms: _containers.RepeatedScalarFieldContainer[str]
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    depth: int
    exact: bool
    def __init__(self, admission: _Optional[_Union[_inference_pb2.Admission, _Mapping]] = ..., requester: _Optional[str] = ..., collection: _Optional[str] = ..., collection_digest: _Optional[str] = ..., vector: _Optional[_Iterable[float]] = ..., terms: _Optional[_Iterable[str]] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., depth: _Optional[int] = ..., exact: _Optional[bool] = ...) -> None: ...

class ShardWeigh(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, weights: _Optional[_Iterable[float]] = ...) -> None: ...

class ShardRelease(_message.Message):
    __slots__ = ("ids", "level")
    IDS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[bytes]
    level: ReleaseLevel
    def __init__(self, ids: _Optional[_Iterable[bytes]] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ...) -> None: ...

class ShardSearchResponse(_message.Message):
    __slots__ = ("opened", "ranked", "released")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RANKED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    opened: ShardOpened
    ranked: ShardRanked
    released: ShardReleased
    def __init__(self, opened: _Optional[_Union[ShardOpened, _Mapping]] = ..., ranked: _Optional[_Union[ShardRanked, _Mapping]] = ..., released: _Optional[_Union[ShardReleased, _Mapping]] = ...) -> None: ...

class ShardOpened(_message.Message):
    __slots__ = ("documents", "frequencies", "frequencies_withheld", "by_vector", "counted", "counted_inexact", "highest", "approximate")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    FREQUENCIES_FIELD_NUMBER: _ClassVar[int]
    FREQUENCIES_WITHHELD_FIELD_NUMBER: _ClassVar[int]
    BY_VECTOR_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    COUNTED_INEXACT_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_FIELD_NUMBER: _ClassVar[int]
    documents: int
    frequencies: _containers.RepeatedScalarFieldContainer[int]
    frequencies_withheld: bool
    by_vector: ShardRanked
    counted: int
    counted_inexact: bool
    highest: ReleaseLevel
    approximate: bool
    def __init__(self, documents: _Optional[int] = ..., frequencies: _Optional[_Iterable[int]] = ..., frequencies_withheld: _Optional[bool] = ..., by_vector: _Optional[_Union[ShardRanked, _Mapping]] = ..., counted: _Optional[int] = ..., counted_inexact: _Optional[bool] = ..., highest: _Optional[_Union[ReleaseLevel, str]] = ..., approximate: _Optional[bool] = ...) -> None: ...

class ShardRanked(_message.Message):
    __slots__ = ("ids", "scores")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ids: bytes
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, ids: _Optional[bytes] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class ShardReleased(_message.Message):
    __slots__ = ("chunks", "charged")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CHARGED_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[ReleasedChunk]
    charged: int
    def __init__(self, chunks: _Optional[_Iterable[_Union[ReleasedChunk, _Mapping]]] = ..., charged: _Optional[int] = ...) -> None: ...

class ReleasedChunk(_message.Message):
    __slots__ = ("id", "level", "title", "text", "document", "source")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    level: ReleaseLevel
    title: str
    text: str
    document: str
    source: str
    def __init__(self, id: _Optional[bytes] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., document: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class ShardAnswerRequest(_message.Message):
    __slots__ = ("admission", "requester", "collection", "collection_digest", "question", "filters")
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    admission: _inference_pb2.Admission
    requester: str
    collection: str
    collection_digest: str
    question: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, admission: _Optional[_Union[_inference_pb2.Admission, _Mapping]] = ..., requester: _Optional[str] = ..., collection: _Optional[str] = ..., collection_digest: _Optional[str] = ..., question: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class ShardAnswerResponse(_message.Message):
    __slots__ = ("sentence", "finished")
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    sentence: AnswerSentence
    finished: ShardAnswered
    def __init__(self, sentence: _Optional[_Union[AnswerSentence, _Mapping]] = ..., finished: _Optional[_Union[ShardAnswered, _Mapping]] = ...) -> None: ...

class ShardAnswered(_message.Message):
    __slots__ = ("highest", "counted", "counted_inexact", "charged")
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    COUNTED_INEXACT_FIELD_NUMBER: _ClassVar[int]
    CHARGED_FIELD_NUMBER: _ClassVar[int]
    highest: ReleaseLevel
    counted: int
    counted_inexact: bool
    charged: int
    def __init__(self, highest: _Optional[_Union[ReleaseLevel, str]] = ..., counted: _Optional[int] = ..., counted_inexact: _Optional[bool] = ..., charged: _Optional[int] = ...) -> None: ...

class ShardFetchRequest(_message.Message):
    __slots__ = ("admission", "requester", "collection", "id", "level")
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    REQUESTER_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    admission: _inference_pb2.Admission
    requester: str
    collection: str
    id: bytes
    level: ReleaseLevel
    def __init__(self, admission: _Optional[_Union[_inference_pb2.Admission, _Mapping]] = ..., requester: _Optional[str] = ..., collection: _Optional[str] = ..., id: _Optional[bytes] = ..., level: _Optional[_Union[ReleaseLevel, str]] = ...) -> None: ...

class ShardFetchResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: ReleasedChunk
    def __init__(self, chunk: _Optional[_Union[ReleasedChunk, _Mapping]] = ...) -> None: ...
