"""Which counters make up the last minute of a node."""

from __future__ import annotations

from mesh.core.types import node_id
from mesh.telemetry.last_minute import LastMinuteKeeper, counters_of, counts_of
from mesh.telemetry.parts import NodeTelemetry

INFERENCE, HEALTH = "/sovereign.mesh.v1.Inference/Chat", "/grpc.health.v1.Health/Check"


class Steps:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def telemetry() -> NodeTelemetry:
    return NodeTelemetry(node_id("de.mesh.example", "one"), "127.0.0.1:0")


def served(told: NodeTelemetry, method: str, code: str, seconds: float = 0.2) -> None:
    calls = told.calls.serving(method)
    calls.began()
    calls.ended(code, seconds)


def test_work_counts_and_looking_does_not() -> None:
    told, clock = telemetry(), Steps()
    kept = LastMinuteKeeper(counters_of(told.instruments.registry), clock)
    assert kept.now() is None
    for code in ("OK", "OK", "CANCELLED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"):
        served(told, INFERENCE, code)
    served(told, HEALTH, "OK")
    served(told, "/sovereign.mesh.v1.NodeAdmin/GetLastMinute", "OK")
    told.meter.generated(7, 30)
    clock.now += 30
    kept.read()
    minute = kept.now()
    assert minute is not None
    assert (minute.window_s, minute.requests, minute.failed, minute.refused) == (30.0, 6, 1, 2)
    assert (minute.prompt_tokens, minute.completion_tokens) == (7, 30)
    assert minute.p50_s is not None
    assert 0.1 < minute.p50_s <= 0.25


def test_only_the_counters_are_read() -> None:
    told = telemetry()
    served(told, INFERENCE, "OK")
    names = {family.name for family in counters_of(told.instruments.registry).collect()}
    assert names == {
        "sovereign_mesh_rpc_handled",
        "sovereign_mesh_rpc_duration_seconds",
        "sovereign_mesh_engine_tokens",
    }
    assert counts_of(told.instruments.registry.collect()).requests == 1
