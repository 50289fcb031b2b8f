"""The catalogue: every metric that the daemons show, its labels, and which values these may take.

Rules it keeps:
- a name is written here and nowhere else; docs/metrics.md is made from this module;
- every label's values come from a closed set (an enumeration, the methods that are served) or from a set that
  is bounded where it is filled (mesh/telemetry/labels.py): what a caller invents makes no series;
- nothing of a payload and nothing of a tenant is a label, its name included (I1).

It knows no Prometheus library: mesh/telemetry/instruments.py makes instruments of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

# Calls last from a placement's millisecond to a stream's minutes.
DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
# Decisions take from some ten microseconds (asked before) to some ten milliseconds (a thousand nodes).
DECISION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# A first token: what the gateway adds (3 ms) up to a long prompt behind a full engine.
FIRST_TOKEN_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

MAX_TRUST_DOMAINS = 64
MAX_ROUTES = 256  # pairs of countries
MAX_COLLECTIONS = 64
MAX_MODELS = 16


class Kind(StrEnum):
    """What a metric is, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


NODE, CONTROL = "mesh-node", "mesh-control"
BOTH = (NODE, CONTROL)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `labels`: what each label's values are, in words; `daemons`: who shows it."""

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)
    daemons: tuple[str, ...] = BOTH
    buckets: tuple[float, ...] = ()


_SERVICE = "a gRPC service that is served, such as sovereign.mesh.v1.Inference; other for any other"
_METHOD = "one of its methods; other for any other"
_CODE = "a gRPC status code, such as OK or PERMISSION_DENIED"
_REASON = "a code of docs/errors.md"
_ACTION = "infer, embed, search, release, transit, egress; other where the request names none"
_COUNTRY = f"ISO 3166-1 alpha-2; other where unknown or beyond {MAX_ROUTES} pairs"
_DOMAIN = f"the own trust domain and the accepted ones, {MAX_TRUST_DOMAINS} at most, in order of their names"
_COLLECTION = f"a collection of this node's; the first {MAX_COLLECTIONS} in order of their names"
_OUTCOME = "permitted; refused: an answer; failed: an error instead of one"

# --- Calls that this daemon serves (mesh/rpc/observed.py)

RPC_STARTED = Metric(
    "sovereign_mesh_rpc_started_total",
    Kind.COUNTER,
    "Calls that began.",
    {"service": _SERVICE, "method": _METHOD},
)
RPC_HANDLED = Metric(
    "sovereign_mesh_rpc_handled_total",
    Kind.COUNTER,
    "Calls that ended, by how.",
    {"service": _SERVICE, "method": _METHOD, "code": _CODE},
)
RPC_DURATION = Metric(
    "sovereign_mesh_rpc_duration_seconds",
    Kind.HISTOGRAM,
    "How long calls took, streams to their end.",
    {"service": _SERVICE, "method": _METHOD},
    buckets=DURATION_BUCKETS,
)
RPC_IN_FLIGHT = Metric(
    "sovereign_mesh_rpc_in_flight",
    Kind.GAUGE,
    "Calls under way.",
    {"service": _SERVICE, "method": _METHOD},
)
REFUSALS = Metric(
    "sovereign_mesh_refusals_total",
    Kind.COUNTER,
    "Calls that ended with a reason of the mesh's own, calls that were cut off included.",
    {"service": _SERVICE, "method": _METHOD, "reason": _REASON},
)

# --- Calls that this daemon makes to other members of the mesh

RPC_CLIENT_HANDLED = Metric(
    "sovereign_mesh_rpc_client_handled_total",
    Kind.COUNTER,
    "Calls to other members that ended, by how.",
    {"service": _SERVICE, "method": _METHOD, "code": _CODE},
)
RPC_CLIENT_DURATION = Metric(
    "sovereign_mesh_rpc_client_duration_seconds",
    Kind.HISTOGRAM,
    "How long calls to other members took, streams to their end.",
    {"service": _SERVICE, "method": _METHOD},
    buckets=DURATION_BUCKETS,
)

# --- Decisions

PLACEMENT_DECISIONS = Metric(
    "sovereign_mesh_placement_decisions_total",
    Kind.COUNTER,
    "Placements asked of this daemon. Of a refused one, the reason that most nodes were refused for.",
    {"action": _ACTION, "outcome": _OUTCOME, "reason": f"{_REASON}; none where permitted"},
)
PLACEMENT_DURATION = Metric(
    "sovereign_mesh_placement_duration_seconds",
    Kind.HISTOGRAM,
    "How long deciding a placement took, without writing it down and signing permits.",
    buckets=DECISION_BUCKETS,
)
RECEIVER_DECISIONS = Metric(
    "sovereign_mesh_receiver_decisions_total",
    Kind.COUNTER,
    "This node's own decisions on requests that arrived with a permit, the permit's check included (I2).",
    {"action": _ACTION, "outcome": "permitted or refused", "reason": f"{_REASON}; none where permitted"},
    (NODE,),
)
FLOWS = Metric(
    "sovereign_mesh_flows_total",
    Kind.COUNTER,
    "Flows of data that this node took, or released from its documents, by the most sensitive class of each.",
    {
        "from": _COUNTRY,
        "to": _COUNTRY,
        "class": "public, internal, confidential, personal, special-category",
        "action": _ACTION,
    },
    (NODE,),
)

# --- The engine

ENGINE_STATE = Metric(
    "sovereign_mesh_engine_state",
    Kind.GAUGE,
    "1 for the state that the engine is in.",
    {"state": "starting, ready, failed, stopped"},
    (NODE,),
)
ENGINE_CAPACITY = Metric(
    "sovereign_mesh_engine_capacity", Kind.GAUGE, "Generations that the engine runs at once.", {}, (NODE,)
)
ENGINE_RUNNING = Metric(
    "sovereign_mesh_engine_running", Kind.GAUGE, "Requests that are with the engine.", {}, (NODE,)
)
ENGINE_WAITING = Metric(
    "sovereign_mesh_engine_waiting", Kind.GAUGE, "Requests that wait for their turn.", {}, (NODE,)
)
ENGINE_TOKENS = Metric(
    "sovereign_mesh_engine_tokens_total",
    Kind.COUNTER,
    "Tokens of generations, counted when they end; of one that was cut off, only those that it gave.",
    {"kind": "prompt, completion"},
    (NODE,),
)
ENGINE_FIRST_TOKEN = Metric(
    "sovereign_mesh_engine_first_token_seconds",
    Kind.HISTOGRAM,
    "From handing a request to the engine to the first piece of its answer.",
    {},
    (NODE,),
    FIRST_TOKEN_BUCKETS,
)
ENGINE_QUEUE = Metric(
    "sovereign_mesh_engine_queue_seconds",
    Kind.HISTOGRAM,
    "How long requests waited for their turn, those that gave up included.",
    {},
    (NODE,),
    DURATION_BUCKETS,
)
ENGINE_MODEL = Metric(
    "sovereign_mesh_engine_model_info",
    Kind.GAUGE,
    "1 for each model that is served.",
    {
        "model": f"its name in this node's configuration; {MAX_MODELS} at most",
        "digest": "sha256 of what it consists of",
    },
    (NODE,),
)

# --- The board and identity

BOARD_CONNECTED = Metric(
    "sovereign_mesh_board_connected", Kind.GAUGE, "1 while the board answers and has been listed.", {}
)
RECORD_AGE = Metric(
    "sovereign_mesh_record_age_seconds",
    Kind.GAUGE,
    "Age of an authority's newest word on which of its records are current.",
    {"trust_domain": _DOMAIN},
)
RECORD_AGE_LIMIT = Metric(
    "sovereign_mesh_record_age_limit_seconds",
    Kind.GAUGE,
    "From which age on an authority's records are not used across a border any more.",
    {"trust_domain": _DOMAIN},
)
RECORDS = Metric(
    "sovereign_mesh_records",
    Kind.GAUGE,
    "Records in force.",
    {
        "trust_domain": _DOMAIN,
        "type": "policy, facts, nodes, status, revocations, federation, groups, collections",
    },
)
RECORDS_REFUSED = Metric(
    "sovereign_mesh_records_refused",
    Kind.GAUGE,
    "Keys on the board under which lies what is not believed, 1,000 at most.",
    {"reason": _REASON},
)
CERTIFICATE_EXPIRY = Metric(
    "sovereign_mesh_certificate_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When this daemon's certificate ends, in Unix seconds.",
)
CERTIFICATE_NOT_BEFORE = Metric(
    "sovereign_mesh_certificate_not_before_timestamp_seconds",
    Kind.GAUGE,
    "When this daemon's certificate began, in Unix seconds.",
)
CERTIFICATE_RENEWAL_FAILING = Metric(
    "sovereign_mesh_certificate_renewal_failing", Kind.GAUGE, "1 while the last try to renew has failed."
)
HEADS_AGE = Metric(
    "sovereign_mesh_heads_age_seconds",
    Kind.GAUGE,
    "Age of the newest word of this control plane's own authority.",
    {},
    (CONTROL,),
)
ENROLMENTS = Metric(
    "sovereign_mesh_enrolments_total",
    Kind.COUNTER,
    "Certificates that were asked for, with a join token or by renewal.",
    {"outcome": "granted, renewed, refused"},
    (CONTROL,),
)

# --- Evidence

EVIDENCE_ENTRIES = Metric(
    "sovereign_mesh_evidence_entries", Kind.GAUGE, "Entries of the decision log that are durable."
)
EVIDENCE_CHECKPOINT_AGE = Metric(
    "sovereign_mesh_evidence_checkpoint_age_seconds",
    Kind.GAUGE,
    "How long the log has had entries that no checkpoint covers; 0 while it has none.",
)
EVIDENCE_COSIGNED_LAG = Metric(
    "sovereign_mesh_evidence_cosigned_lag_entries",
    Kind.GAUGE,
    "Entries beyond the newest checkpoint that enough witnesses, or all there are, have cosigned; absent"
    " where none are wanted or none are there.",
    {},
    (NODE,),
)

# --- Documents

INDEX_CHUNKS = Metric(
    "sovereign_mesh_index_chunks",
    Kind.GAUGE,
    "Chunks in the index of a collection.",
    {"collection": _COLLECTION},
    (NODE,),
)
INDEX_DOCUMENTS = Metric(
    "sovereign_mesh_index_documents",
    Kind.GAUGE,
    "Documents in the index of a collection.",
    {"collection": _COLLECTION},
    (NODE,),
)
INDEX_BEHIND = Metric(
    "sovereign_mesh_index_behind",
    Kind.GAUGE,
    "Changes that a collection's vector store has not taken over yet.",
    {"collection": _COLLECTION},
    (NODE,),
)
INDEX_STATE = Metric(
    "sovereign_mesh_index_state",
    Kind.GAUGE,
    "1 for the state that a collection's index is in.",
    {"collection": _COLLECTION, "state": "ready, opening, rebuilding, mismatch, failed"},
    (NODE,),
)

# --- The daemon itself

READY = Metric("sovereign_mesh_ready", Kind.GAUGE, "1 while /readyz says so.")
DRAINING = Metric("sovereign_mesh_draining", Kind.GAUGE, "1 while nothing new is taken.", {}, (NODE,))
LIVE_CALLS = Metric(
    "sovereign_mesh_live_calls", Kind.GAUGE, "Calls in hand that a drain waits for.", {}, (NODE,)
)
LOOP_DELAY = Metric(
    "sovereign_mesh_event_loop_delay_seconds",
    Kind.GAUGE,
    "How long the event loop took to answer when it was last asked, which every scrape and probe does.",
)
SCRAPE_FAILURES = Metric(
    "sovereign_mesh_scrape_failures_total", Kind.COUNTER, "Gauges that could not be read; the log says why."
)
BUILD_INFO = Metric("sovereign_mesh_build_info", Kind.GAUGE, "1.", {"version": "of this software"})

CATALOGUE: tuple[Metric, ...] = tuple(value for value in globals().values() if isinstance(value, Metric))
