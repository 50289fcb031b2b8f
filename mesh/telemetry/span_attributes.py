"""Every name that a span may carry, and what its value may be: the list that keeps payload out of traces
(I1).

A span leaves the node for a collector that whoever runs the node chose; what goes with it is decided here
and nowhere else. `allowed` is asked when attributes are set and again for all that is exported
(mesh/telemetry/span_export.py): a name that is not on the list, or a value that is not of the kind that the
list states, does not leave. Kinds are closed sets, numbers, or identifiers of a stated form and length;
none of them has room for a sentence.

Not on the list, on purpose: prompts, outputs, documents, queries, stop sequences, collections' and tenants'
names, clients' SPIFFE ids (their path is a tenant's name), endpoints, error messages, stack traces.

The gen_ai.* and rpc.* names are those of OpenTelemetry's semantic conventions (1.45).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action

Scalar = str | int | float | bool
Value = Scalar | Sequence[str]
Attributes = Mapping[str, Value]

# --- spans --------------------------------------------------------------------------------------------


class SpanName(StrEnum):
    """What a span may be called, beside RPCs."""

    CHAT = "chat"
    COMPLETE = "text_completion"
    EMBED = "embeddings"
    SEARCH = "search"
    ANSWER = "answer"
    FETCH = "fetch"
    PLACE = "placement"
    GATE = "gate"
    QUEUE = "admission"
    HOLDER = "retrieval.holder"
    EVIDENCE = "evidence.record"


# The services whose methods have spans. Servers only run handlers that exist, so a caller cannot make up
# names; what looks like one of these is bounded to one word all the same.
_RPC = re.compile(
    r"(?:sovereign\.mesh\.v1\.(?:Admin|Enrolment|Evidence|Index|Inference|NodeAdmin|Placement|Retrieval|Shard)"
    r"|grpc\.health\.v1\.Health|grpc\.reflection\.v1alpha\.ServerReflection)/[A-Z][A-Za-z]{1,39}"
)
_NAMES = frozenset(SpanName)


class EventName(StrEnum):
    """What may be marked on a span."""

    FIRST_TOKEN = "gen_ai.first_token"  # noqa: S105  no password
    EXCEPTION = "exception"


_EVENTS = frozenset(EventName)

# --- attributes ---------------------------------------------------------------------------------------

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"
EXCEPTION_TYPE = "exception.type"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"

REQUEST_ID = "sovereign.mesh.request.id"
CALLER_DOMAIN = "sovereign.mesh.caller.trust_domain"
CALLER_KIND = "sovereign.mesh.caller.kind"
REASON = "sovereign.mesh.reason"
ACTION = "sovereign.mesh.action"
OUTCOME = "sovereign.mesh.outcome"
DECISION_ID = "sovereign.mesh.decision.id"
CONSIDERED = "sovereign.mesh.placement.considered"
PERMITTED = "sovereign.mesh.placement.permitted"
REFUSED = "sovereign.mesh.placement.refused"
PERMIT_OUTCOME = "sovereign.mesh.permit.outcome"
NODE = "sovereign.mesh.node"
LOCATION = "sovereign.mesh.node.location"
HIGHEST_LEVEL = "sovereign.mesh.retrieval.highest_level"
CHARGED = "sovereign.mesh.retrieval.charged"
ENTRY_KIND = "sovereign.mesh.evidence.kind"
ENTRY_INDEX = "sovereign.mesh.evidence.index"

# Of the process.
SERVICE_NAME = "service.name"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_INSTANCE = "service.instance.id"
SERVICE_VERSION = "service.version"

PROVIDER_NAME = "sovereign_mesh"

# --- kinds of values ----------------------------------------------------------------------------------

Check = Callable[[Value], bool]


def _text(pattern: str) -> Check:
    whole = re.compile(pattern)
    return lambda value: isinstance(value, str) and whole.fullmatch(value) is not None


def _one_of(*words: str) -> Check:
    known = frozenset(words)
    return lambda value: isinstance(value, str) and value in known


def _count(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _several(check: Check, most: int) -> Check:
    return lambda value: isinstance(value, list | tuple) and len(value) <= most and all(map(check, value))


_REASON = _one_of(*(reason.code for reason in Reason))
_STATUS = _one_of("OK", "CANCELLED", "UNKNOWN", "UNIMPLEMENTED", *(reason.grpc for reason in Reason))
# The name of an exception's class.
_TYPE = _text("[A-Za-z_][A-Za-z0-9_.]{0,63}")
_UUID = _text("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN = _text(r"[a-z0-9](?:[a-z0-9.-]{0,253}[a-z0-9])?")
# A node or a control plane: what they are called is on the board. Clients are not told of.
_MACHINE = _text(r"spiffe://[a-z0-9.-]{1,255}/(?:node|control)/[a-z0-9-]{1,63}")
# What an operator serves: known to the node, not the caller's word for it.
_MODEL = _text(r"(?!.*//)[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_OPERATIONS = _one_of(SpanName.CHAT, SpanName.COMPLETE, SpanName.EMBED)

ATTRIBUTES: Mapping[str, Check] = {
    RPC_SYSTEM: _one_of("grpc"),
    RPC_METHOD: lambda value: isinstance(value, str) and _RPC.fullmatch(value) is not None,
    RPC_STATUS: _STATUS,
    ERROR_TYPE: _TYPE,
    EXCEPTION_TYPE: _TYPE,
    OPERATION: _OPERATIONS,
    PROVIDER: _one_of(PROVIDER_NAME),
    REQUEST_MODEL: _MODEL,
    MAX_TOKENS: _count,
    INPUT_TOKENS: _count,
    OUTPUT_TOKENS: _count,
    FINISH_REASONS: _several(_one_of("stop", "length"), 8),
    REQUEST_ID: _UUID,
    CALLER_DOMAIN: _DOMAIN,
    CALLER_KIND: _one_of("client", "node", "admin", "control", "none"),
    REASON: _REASON,
    ACTION: _one_of("infer", "embed", "search", "release", "transit", "egress"),
    OUTCOME: _one_of("permitted", "refused", "answered", "failed", "not-asked"),
    DECISION_ID: _UUID,
    CONSIDERED: _count,
    PERMITTED: _count,
    REFUSED: _count,
    PERMIT_OUTCOME: _one_of("accepted", *(reason.code for reason in Reason)),
    NODE: _MACHINE,
    LOCATION: _text("[A-Z]{2}"),
    HIGHEST_LEVEL: _one_of("nothing", "count", "reference", "snippet", "passage"),
    CHARGED: _count,
    ENTRY_KIND: _one_of(
        "place", "serve", "search", "answer", "fetch", "covered", "shard", "release", "cut", "action", "index"
    ),
    ENTRY_INDEX: _count,
    SERVICE_NAME: _one_of("mesh-node", "mesh-control", "mesh-client"),
    SERVICE_NAMESPACE: _DOMAIN,
    SERVICE_INSTANCE: _MACHINE,
    SERVICE_VERSION: _text("[0-9A-Za-z.+-]{1,40}"),
}


def allowed(attributes: Attributes | None) -> dict[str, Value]:
    """Those that are on the list and of the kind that it states."""
    found = {}
    for name, value in (attributes or {}).items():
        check = ATTRIBUTES.get(name)
        if check is not None and check(value):
            found[name] = value
    return found


def allowed_name(name: str) -> bool:
    """Whether a span may be called so."""
    return name in _NAMES or _RPC.fullmatch(name) is not None


def allowed_event(name: str) -> bool:
    """Whether an event may be called so."""
    return name in _EVENTS


def failure_of(error: BaseException) -> dict[str, Value]:
    """What a span says of an exception: its type, and the reason's code if it is a refusal. Never its text,
    which may quote what it choked on, and no frames."""
    facts: dict[str, Value] = {EXCEPTION_TYPE: type(error).__name__}
    if isinstance(error, MeshError):
        facts[REASON] = error.reason.code
    return facts


def of_decision(decision: Decision, action: Action) -> dict[str, Value]:
    """What a span says of where a request may go."""
    facts: dict[str, Value] = {
        ACTION: action.value,
        DECISION_ID: decision.id,
        OUTCOME: "permitted" if decision.permitted else "refused",
        CONSIDERED: decision.considered,
        PERMITTED: len(decision.ranked),
        REFUSED: decision.refused_total,
    }
    if not decision.permitted and decision.refused:
        facts[REASON] = decision.refused[0].reason.code
    return facts


def of_generation(operation: SpanName, model: str, max_tokens: int | None = None) -> dict[str, Value]:
    """What a span says of a model's work. `model` as whoever serves it knows it, not as a caller wrote it."""
    facts: dict[str, Value] = {OPERATION: operation.value, PROVIDER: PROVIDER_NAME, REQUEST_MODEL: model}
    if max_tokens is not None:
        facts[MAX_TOKENS] = max_tokens
    return facts
