"""What the Grafana dashboard shows: rows of panels, in few words each.

Metrics and labels are those of mesh/telemetry/metrics.py, recorded series those of
helm/sovereign-mesh/files/rules/sovereign-mesh.yaml. Tests check both, and that each query is PromQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What is chosen at the top of the page.
ON = 'job=~"$job",instance=~"$instance"'
OF = f'{ON},trust_domain=~"$trust_domain"'

Query = tuple[str, str]
"""PromQL, and the legend of its series."""


@dataclass(frozen=True, slots=True)
class Panel:
    """`kind`: timeseries, stat, table or bargauge. `thresholds`: from which value on which colour; None for
    the lowest. Width in 24ths of the page."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    help: str = ""
    thresholds: Sequence[tuple[float | None, str]] = ((None, "green"),)
    stacked: bool = False


def _gauge(metric: str, legend: str = "{{instance}}") -> list[Query]:
    return [(f"sovereign_mesh_{metric}{{{ON}}}", legend)]


def _sum(metric: str, legend: str) -> Query:
    return f"sum(sovereign_mesh_{metric}{{{ON}}})", legend


def _rate(metric: str, *by: str, where: str = "", times: int = 1) -> list[Query]:
    """A second, or `times` as long, summed by these labels."""
    rate = f"sum by ({', '.join(by)}) (rate(sovereign_mesh_{metric}{{{ON}{where}}}[$__rate_interval]))"
    return [(rate + (f" * {times}" if times > 1 else ""), " ".join(f"{{{{{label}}}}}" for label in by))]


def _quantiles(metric: str, by: str = "") -> list[Query]:
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    rate = f"sum by ({labels}) (rate(sovereign_mesh_{metric}_bucket{{{ON}}}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {rate})", f"{legend}p{round(q * 100)}") for q in (0.5, 0.99)]


def _stat(title: str, query: str, unit: str = "short", *thresholds: tuple[float | None, str]) -> Panel:
    return Panel(
        title, [(query, "")], unit, "stat", width=4, height=4, thresholds=thresholds or ((None, "green"),)
    )


_CERTIFICATE_LEFT = f"sovereign_mesh_certificate_expiry_timestamp_seconds{{{ON}}} - time()"
_CERTIFICATE_LIFE = (
    f"sovereign_mesh_certificate_expiry_timestamp_seconds{{{ON}}}"
    f" - sovereign_mesh_certificate_not_before_timestamp_seconds{{{ON}}}"
)
_AT_HOME = (
    f'group by (from, to) (label_replace(sovereign_mesh_flows_total{{{ON}}}, "to", "$1", "from", "(.+)"))'
)

MESH = (
    _stat("Daemons that are ready", f"sum(sovereign_mesh_ready{{{ON}}})"),
    _stat(
        "Not ready, though not draining",
        f"count(sovereign_mesh_ready{{{ON}}} == 0 unless on (job, instance) sovereign_mesh_draining == 1)"
        " or vector(0)",
        "short",
        (None, "green"),
        (1, "red"),
    ),
    _stat(
        "Calls that ended, a second",
        f"sum(rate(sovereign_mesh_rpc_handled_total{{{ON}}}[$__rate_interval]))",
        "reqps",
    ),
    _stat(
        "Flows across a border in 15 minutes",
        'sum(job:sovereign_mesh_flows_across:increase15m{job=~"$job"}) or vector(0)',
    ),
    _stat(
        "Shortest life of a certificate",
        f"min({_CERTIFICATE_LEFT})",
        "s",
        (None, "red"),
        (7200, "yellow"),
        (21600, "green"),
    ),
    _stat(
        "Oldest word of an authority",
        f"max(sovereign_mesh_record_age_seconds{{{OF}}})",
        "s",
        (None, "green"),
        (30, "yellow"),
        (60, "red"),
    ),
    Panel(
        "Daemons",
        [
            (f"max by (job, instance) (sovereign_mesh_ready{{{ON}}})", "ready"),
            (f"max by (job, instance) (sovereign_mesh_draining{{{ON}}})", "draining"),
            (f"max by (job, instance) (sovereign_mesh_board_connected{{{ON}}})", "board"),
            (f"max by (job, instance, version) (sovereign_mesh_build_info{{{ON}}})", "up"),
        ],
        kind="table",
        width=12,
    ),
    Panel("Ready", _gauge("ready"), width=12, help="1 while /readyz says so."),
)

BORDERS = (
    Panel(
        "Flows from and to, by class",
        _rate("flows_total", "from", "to", "class", times=60),
        "cpm",
        width=12,
        height=9,
        help="A minute; each flow once, at the node that took it, by its most sensitive class.",
    ),
    Panel(
        "Across a border, within the time shown",
        [
            (
                f"sum by (from, to, class) (increase(sovereign_mesh_flows_total{{{ON}}}[$__range]))"
                f" unless on (from, to) {_AT_HOME}",
                "{{from}} to {{to}}, {{class}}",
            )
        ],
        kind="bargauge",
        width=12,
        height=9,
    ),
    Panel(
        "Refusals by reason",
        _rate("refusals_total", "reason", times=60),
        "cpm",
        width=12,
        stacked=True,
        help="A minute; what each means is in docs/errors.md.",
    ),
    Panel(
        "What nodes decide on what arrives (I2)",
        _rate("receiver_decisions_total", "outcome", "reason", times=60),
        "cpm",
        width=12,
        stacked=True,
    ),
)

SERVING = (
    Panel("Calls a second", _rate("rpc_handled_total", "service", "method"), "reqps"),
    Panel(
        "Share of calls that fails",
        [('service:sovereign_mesh_failures:ratio5m{job=~"$job"}', "{{service}}")],
        "percentunit",
        help="Faults of the mesh and lack of room; refusals are no failures. The budget is 0.5 %.",
    ),
    Panel("How long calls take", _quantiles("rpc_duration_seconds", "method"), "s"),
    Panel(
        "Calls that did not end with OK",
        _rate("rpc_handled_total", "code", where=',code!="OK"'),
        "reqps",
        stacked=True,
    ),
    Panel(
        "Calls under way",
        [(f"sum by (method) (sovereign_mesh_rpc_in_flight{{{ON}}})", "{{method}}")],
        stacked=True,
    ),
    Panel("Placements", _rate("placement_decisions_total", "action", "outcome", "reason"), "reqps"),
    Panel("How long deciding takes", _quantiles("placement_duration_seconds"), "s"),
    Panel(
        "Calls to other members that did not end with OK",
        _rate("rpc_client_handled_total", "service", "code", where=',code!="OK"'),
        "reqps",
    ),
    Panel("Event loop", _gauge("event_loop_delay_seconds"), "s"),
)

ENGINE = (
    Panel("State", [(f"sovereign_mesh_engine_state{{{ON}}} == 1", "{{instance}} {{state}}")]),
    Panel(
        "Running, waiting, room",
        [
            _sum("engine_running", "running"),
            _sum("engine_waiting", "waiting"),
            _sum("engine_capacity", "at once"),
        ],
    ),
    Panel("Tokens a second", _rate("engine_tokens_total", "kind")),
    Panel("Time to first token", _quantiles("engine_first_token_seconds"), "s"),
    Panel("Time in the queue", _quantiles("engine_queue_seconds"), "s"),
    Panel(
        "Models",
        [(f"count by (model, digest) (sovereign_mesh_engine_model_info{{{ON}}})", "nodes")],
        kind="table",
    ),
)

RECORDS = (
    Panel(
        "Age of each authority's word",
        [
            (f"max by (trust_domain) (sovereign_mesh_record_age_seconds{{{OF}}})", "{{trust_domain}}"),
            (
                f"min by (trust_domain) (sovereign_mesh_record_age_limit_seconds{{{OF}}})",
                "limit of {{trust_domain}}",
            ),
        ],
        "s",
        help="At the limit, that authority's border closes.",
    ),
    Panel(
        "Share of certificates' lives that is left",
        [(f"({_CERTIFICATE_LEFT}) / ({_CERTIFICATE_LIFE})", "{{instance}}")],
        "percentunit",
        help="Renewed at one half.",
    ),
    Panel("Renewing fails", _gauge("certificate_renewal_failing")),
    Panel("The board is reached", _gauge("board_connected")),
    Panel(
        "Records in force",
        [(f"max by (trust_domain, type) (sovereign_mesh_records{{{OF}}})", "{{trust_domain}} {{type}}")],
    ),
    Panel(
        "Records that are not believed",
        [(f"max by (reason) (sovereign_mesh_records_refused{{{ON}}})", "{{reason}}")],
    ),
)

EVIDENCE = (
    Panel("Entries a second", [(f"deriv(sovereign_mesh_evidence_entries{{{ON}}}[5m])", "{{instance}}")]),
    Panel("For so long entries without a checkpoint", _gauge("evidence_checkpoint_age_seconds"), "s"),
    Panel("Entries without enough cosignatures", _gauge("evidence_cosigned_lag_entries")),
)

DOCUMENTS = (
    Panel("Chunks", _gauge("index_chunks", "{{instance}} {{collection}}")),
    Panel("Changes that a vector store lacks", _gauge("index_behind", "{{instance}} {{collection}}")),
    Panel("State", [(f"sovereign_mesh_index_state{{{ON}}} == 1", "{{instance}} {{collection}} {{state}}")]),
)

CONTROL_PLANE = (
    Panel("Age of its own word", _gauge("heads_age_seconds"), "s"),
    Panel("Certificates asked for, a minute", _rate("enrolments_total", "outcome", times=60), stacked=True),
    Panel("Gauges that cannot be read, a minute", _rate("scrape_failures_total", "instance", times=60)),
)

ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    ("Mesh", MESH),
    ("Borders", BORDERS),
    ("Serving", SERVING),
    ("Engine", ENGINE),
    ("Records and certificates", RECORDS),
    ("Evidence", EVIDENCE),
    ("Documents", DOCUMENTS),
    ("Control plane", CONTROL_PLANE),
)
