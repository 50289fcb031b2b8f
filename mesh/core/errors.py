"""The one catalog of refusals and failures.

Each reason has a stable code (its name), the gRPC status it travels under, the HTTP status it maps
to, and whether it is a matter of policy (the CLI exits 3). Messages are public: they say what was
expected and never what was sent (I1). Broken invariants are not here: they crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

ERROR_DOMAIN = "sovereign-mesh"


class _Spec(NamedTuple):
    ordinal: int  # keeps enum members of equal mapping distinct
    grpc: str
    http: int
    policy: bool = False


class Reason(Enum):
    """Stable reason codes. The name is the code."""

    # The caller's words
    CONTEXT_INVALID = _Spec(1, "INVALID_ARGUMENT", 400)
    DATA_CLASS_MISSING = _Spec(2, "INVALID_ARGUMENT", 400)
    DATA_CLASS_UNKNOWN = _Spec(3, "INVALID_ARGUMENT", 400)
    COUNTRY_UNKNOWN = _Spec(4, "INVALID_ARGUMENT", 400)
    REQUEST_INVALID = _Spec(5, "INVALID_ARGUMENT", 400)
    REQUEST_TOO_LARGE = _Spec(6, "RESOURCE_EXHAUSTED", 413)
    MODEL_UNKNOWN = _Spec(7, "NOT_FOUND", 404)
    TENANT_MISMATCH = _Spec(8, "PERMISSION_DENIED", 403, True)
    NOT_FOUND = _Spec(9, "NOT_FOUND", 404)

    # Identity
    IDENTITY_MALFORMED = _Spec(20, "UNAUTHENTICATED", 401)
    IDENTITY_UNTRUSTED = _Spec(21, "UNAUTHENTICATED", 401)
    IDENTITY_EXPIRED = _Spec(22, "UNAUTHENTICATED", 401)
    IDENTITY_REVOKED = _Spec(23, "UNAUTHENTICATED", 401, True)
    IDENTITY_NOT_ALLOWED = _Spec(24, "PERMISSION_DENIED", 403, True)
    JOIN_TOKEN_INVALID = _Spec(25, "UNAUTHENTICATED", 401)
    CSR_INVALID = _Spec(26, "INVALID_ARGUMENT", 400)
    BUNDLE_INVALID = _Spec(27, "INVALID_ARGUMENT", 400)

    # Records
    RECORD_MALFORMED = _Spec(40, "INVALID_ARGUMENT", 400)
    RECORD_TOO_LARGE = _Spec(41, "INVALID_ARGUMENT", 413)
    RECORD_WRONG_KEY = _Spec(42, "PERMISSION_DENIED", 403)
    RECORD_WRONG_SIGNER = _Spec(43, "PERMISSION_DENIED", 403)
    RECORD_SIGNATURE_INVALID = _Spec(44, "PERMISSION_DENIED", 403)
    RECORD_EXPIRED = _Spec(45, "FAILED_PRECONDITION", 409)
    RECORD_NOT_YET_VALID = _Spec(46, "FAILED_PRECONDITION", 409)
    RECORD_ROLLED_BACK = _Spec(47, "FAILED_PRECONDITION", 409)
    STORE_UNAVAILABLE = _Spec(48, "UNAVAILABLE", 503)
    STORE_CONFLICT = _Spec(49, "ABORTED", 409)
    ENTRY_MALFORMED = _Spec(50, "INVALID_ARGUMENT", 400)

    # Policies
    POLICY_MALFORMED = _Spec(60, "INVALID_ARGUMENT", 400)
    POLICY_TOO_LARGE = _Spec(61, "INVALID_ARGUMENT", 413)
    GROUPS_MALFORMED = _Spec(62, "INVALID_ARGUMENT", 400)
    POLICY_UNDECIDED = _Spec(63, "FAILED_PRECONDITION", 409)
    POLICY_NOT_PROVED = _Spec(64, "FAILED_PRECONDITION", 409)

    # Why a candidate is refused (placement's filters)
    POLICY_SENDER_DENIES = _Spec(80, "PERMISSION_DENIED", 403, True)
    POLICY_RECEIVER_DENIES = _Spec(81, "PERMISSION_DENIED", 403, True)
    POLICY_MISSING = _Spec(82, "PERMISSION_DENIED", 403, True)
    RECORDS_STALE = _Spec(83, "PERMISSION_DENIED", 403, True)
    NARROWED_JURISDICTION = _Spec(84, "PERMISSION_DENIED", 403, True)
    NARROWED_ASSURANCE = _Spec(85, "PERMISSION_DENIED", 403, True)
    MODEL_NOT_SERVED = _Spec(86, "NOT_FOUND", 404)
    NODE_NOT_READY = _Spec(87, "UNAVAILABLE", 503)
    NODE_CORDONED = _Spec(88, "UNAVAILABLE", 503)
    NODE_EXCLUDED = _Spec(89, "UNAVAILABLE", 503)
    NODE_UNKNOWN = _Spec(90, "PERMISSION_DENIED", 403, True)
    PLACER_NOT_ENTITLED = _Spec(91, "PERMISSION_DENIED", 403, True)
    NOT_PERMITTED = _Spec(92, "PERMISSION_DENIED", 403, True)
    NO_NODE_AVAILABLE = _Spec(93, "UNAVAILABLE", 503)

    # Permits
    PERMIT_MISSING = _Spec(100, "PERMISSION_DENIED", 403, True)
    PERMIT_MALFORMED = _Spec(101, "PERMISSION_DENIED", 403, True)
    PERMIT_EXPIRED = _Spec(102, "PERMISSION_DENIED", 403, True)
    PERMIT_NOT_YET_VALID = _Spec(103, "PERMISSION_DENIED", 403, True)
    PERMIT_WRONG_NODE = _Spec(104, "PERMISSION_DENIED", 403, True)
    PERMIT_WRONG_CALLER = _Spec(105, "PERMISSION_DENIED", 403, True)
    PERMIT_WRONG_ACTION = _Spec(106, "PERMISSION_DENIED", 403, True)
    PERMIT_WRONG_CONTEXT = _Spec(107, "PERMISSION_DENIED", 403, True)
    PERMIT_WRONG_MODEL = _Spec(108, "PERMISSION_DENIED", 403, True)
    PERMIT_WRONG_SIGNER = _Spec(109, "PERMISSION_DENIED", 403, True)
    PERMIT_REPLAYED = _Spec(110, "PERMISSION_DENIED", 403, True)

    # Serving
    OVERLOADED = _Spec(120, "RESOURCE_EXHAUSTED", 429)
    DRAINING = _Spec(121, "UNAVAILABLE", 503)
    ENGINE_UNAVAILABLE = _Spec(122, "UNAVAILABLE", 503)
    ENGINE_FAILED = _Spec(123, "UNAVAILABLE", 503)
    PROMPT_TOO_LONG = _Spec(124, "INVALID_ARGUMENT", 400)
    PEER_TOO_SLOW = _Spec(125, "ABORTED", 408)
    NODE_LOST = _Spec(126, "UNAVAILABLE", 503)
    DEADLINE_EXCEEDED = _Spec(127, "DEADLINE_EXCEEDED", 504)
    EVIDENCE_UNAVAILABLE = _Spec(128, "UNAVAILABLE", 503)
    CANCELLED = _Spec(129, "CANCELLED", 499)

    # Documents and indexes
    COLLECTION_UNKNOWN = _Spec(160, "NOT_FOUND", 404)
    COLLECTION_MISMATCH = _Spec(161, "FAILED_PRECONDITION", 409)
    EMBEDDER_MISMATCH = _Spec(162, "FAILED_PRECONDITION", 409)
    COLLECTION_EXISTS = _Spec(163, "ALREADY_EXISTS", 409)
    FILTER_UNKNOWN = _Spec(164, "INVALID_ARGUMENT", 400)
    REFERENCE_UNKNOWN = _Spec(165, "NOT_FOUND", 404)
    RELEASE_DENIED = _Spec(166, "PERMISSION_DENIED", 403, True)
    BUDGET_EXHAUSTED = _Spec(167, "RESOURCE_EXHAUSTED", 429)
    DOCUMENT_UNREADABLE = _Spec(168, "INVALID_ARGUMENT", 400)
    DOCUMENT_TOO_LARGE = _Spec(169, "INVALID_ARGUMENT", 413)
    DOCUMENT_INVALID = _Spec(170, "INVALID_ARGUMENT", 400)
    INDEX_UNAVAILABLE = _Spec(171, "UNAVAILABLE", 503)
    PEER_MISBEHAVED = _Spec(172, "UNAVAILABLE", 502)

    # Evidence
    PROOF_INVALID = _Spec(180, "INVALID_ARGUMENT", 400)
    NOTE_INVALID = _Spec(181, "INVALID_ARGUMENT", 400)
    EVIDENCE_DAMAGED = _Spec(182, "UNAVAILABLE", 503)
    LOG_FORKED = _Spec(183, "FAILED_PRECONDITION", 409)
    LOG_ROLLED_BACK = _Spec(184, "FAILED_PRECONDITION", 409)
    RECEIPT_INVALID = _Spec(185, "INVALID_ARGUMENT", 400)
    RECEIPT_UNWITNESSED = _Spec(186, "FAILED_PRECONDITION", 409)

    # Operation
    CONFIG_INVALID = _Spec(140, "INVALID_ARGUMENT", 400)
    INTERNAL = _Spec(141, "INTERNAL", 500)
    UNREACHABLE = _Spec(142, "UNAVAILABLE", 503)

    @property
    def code(self) -> str:
        """The stable code."""
        return self.name

    @property
    def grpc(self) -> str:
        """Name of the gRPC status code."""
        return self.value.grpc

    @property
    def http(self) -> int:
        """HTTP status code."""
        return self.value.http

    @property
    def is_policy(self) -> bool:
        """Whether a policy or an authority's word is what refuses (CLI exit code 3)."""
        return self.value.policy


@dataclass(eq=False)
class MeshError(Exception):
    """A refusal or failure with a stable reason.

    `message` says what was expected and never repeats payload; `metadata` holds short public
    facts, such as the policies that decided; `retry_after_s` is a hint in seconds. `request_id` is by
    what the log and the evidence of whoever refused speak of the call, if it said so.
    """

    reason: Reason
    message: str
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    request_id: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.reason.code}: {self.message}"
