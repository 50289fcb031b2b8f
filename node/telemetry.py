"""What the gauges of a node read: its engine, its calls in hand, its indexes, its witnesses.

Called in the thread of whoever scrapes: single fields and immutable values are read, and the indexes through
their own, thread-safe, reading.
"""

from __future__ import annotations

from collections.abc import Iterator

from mesh.telemetry import metrics
from mesh.telemetry.instruments import Read, Reading
from mesh.telemetry.labels import first
from mesh.telemetry.metrics import MAX_COLLECTIONS, MAX_MODELS, Metric
from mesh.telemetry.readings import LogSeen
from node.admission import Admission
from node.engine.base import Engine, EngineState
from node.evidence.witnessing import Witnessing
from node.gate import Gate
from node.index.library import Library
from node.live_calls import LiveCalls

INDEX_STATES = ("ready", "opening", "rebuilding", "mismatch", "failed")

_Found = Iterator[tuple[Metric, Reading]]


def of_engine(engine: Engine, admission: Admission, gate: Gate, live: LiveCalls) -> Read:
    """The engine's state, models and load, and whether the node drains."""

    def read() -> _Found:
        state = engine.state
        for each in EngineState:
            yield metrics.ENGINE_STATE, Reading(each is state, (each.value,))
        yield metrics.ENGINE_CAPACITY, Reading(engine.capacity)
        yield metrics.ENGINE_RUNNING, Reading(admission.in_flight)
        yield metrics.ENGINE_WAITING, Reading(admission.queued)
        for model in engine.models[:MAX_MODELS]:
            yield metrics.ENGINE_MODEL, Reading(1, (model.name, model.digest))
        yield metrics.DRAINING, Reading(gate.draining)
        yield metrics.LIVE_CALLS, Reading(len(live))

    return read


def of_indexes(library: Library) -> Read:
    """How much is in each collection's index, and the state of it."""

    def read() -> _Found:
        statuses = {each.collection: each for each in library.statuses()}
        for name in first(statuses, MAX_COLLECTIONS):
            status = statuses[name]
            yield metrics.INDEX_CHUNKS, Reading(status.chunks, (name,))
            yield metrics.INDEX_DOCUMENTS, Reading(status.documents, (name,))
            yield metrics.INDEX_BEHIND, Reading(status.behind, (name,))
            for state in INDEX_STATES:
                yield metrics.INDEX_STATE, Reading(status.state == state, (name, state))

    return read


def of_witnessing(log: LogSeen, witnessing: Witnessing) -> Read:
    """How far the witnesses are behind the log: as many as are wanted, or as there are."""

    def read() -> _Found:
        possible = len(witnessing.candidates()) if witnessing.enough else 0
        if not possible:
            return
        witnessed = witnessing.latest if possible >= witnessing.enough else witnessing.newest
        yield metrics.EVIDENCE_COSIGNED_LAG, Reading(log.size - (witnessed.size if witnessed else 0))

    return read
