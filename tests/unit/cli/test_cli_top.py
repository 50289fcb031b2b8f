"""The live table: its rows, their order, and what is not known."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from control.cli.top_view import Board, Sort, Told, board_json, board_of, board_text
from mesh.core.errors import Reason
from sovereign.mesh.v1 import admin_pb2, node_admin_pb2, records_pb2

NOW = 1_000_000.0
STATUS = admin_pb2.GetStatusResponse(trust_domain="de.mesh.example", board_connected=True)


def view(
    name: str, *, running: int = 0, country: str = "de", certificate_s: float = 40_000, **more: object
) -> admin_pb2.NodeView:
    facts = records_pb2.NodeFacts(location=country.upper(), controller=country.upper())
    node = admin_pb2.NodeView(
        node=f"spiffe://{country}.mesh.example/node/{name}", facts=facts, fresh=True,
        heads_at_ms=int((NOW - 3) * 1000), certificate_not_after_ms=int((NOW + certificate_s) * 1000),
    )  # fmt: skip
    node.record.endpoints.append("127.0.0.1:1")
    node.record.models.add(name="tiny")
    node.status.CopyFrom(records_pb2.NodeStatus(ready=True, capacity=8, in_flight=running))
    for key, value in more.items():
        setattr(node, key, value)
    return node


def minute(requests: int, failed: int = 0) -> Told:
    return Told(
        node_admin_pb2.GetLastMinuteResponse(
            measured=True, window_seconds=60, requests=requests, failed=failed,
            completion_tokens=requests * 10, p50_seconds=0.02, p99_seconds=1.5,
        )
    )  # fmt: skip


def names(sort: Sort, nodes: list[admin_pb2.NodeView], told: dict[str, Told] | None = None) -> list[str]:
    return [row.id.name for row in board_of(STATUS, nodes, told or {}, NOW, sort, None).rows]


def shown(board: Board, width: int = 220, trouble: str = "") -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False).print(board_text(board, width, trouble))
    return out.getvalue()


def test_the_orders() -> None:
    gone = view("gone", certificate_s=90_000)
    gone.ClearField("status")
    nodes = [
        view("idle"),
        view("busy", running=7, certificate_s=50_000),
        gone,
        view("soon", certificate_s=60),
    ]
    told = {
        "spiffe://de.mesh.example/node/idle": minute(600, failed=2),
        "spiffe://de.mesh.example/node/soon": minute(6),
    }
    assert names(Sort.LOAD, nodes) == ["busy", "idle", "soon", "gone"]
    assert names(Sort.NAME, nodes) == ["busy", "gone", "idle", "soon"]
    assert names(Sort.STATE, nodes)[0] == "gone"
    assert names(Sort.CERTIFICATE, nodes)[0] == "soon"
    assert names(Sort.REQUESTS, nodes, told)[:2] == ["idle", "soon"]
    assert names(Sort.ERRORS, nodes, told)[0] == "idle"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"fresh": False}, "stale"),
        ({}, "ready"),
    ],
)
def test_states_are_words(change: dict[str, bool], state: str) -> None:
    (row,) = board_of(STATUS, [view("one", **change)], {}, NOW, Sort.LOAD, None).rows
    assert row.state == state


def test_a_hundred_nodes_are_cut_to_the_limit_and_counted() -> None:
    nodes = [view(f"n{i}", running=i % 8) for i in range(100)]
    board = board_of(STATUS, nodes, {}, NOW, Sort.LOAD, 20)
    assert (len(board.rows), board.hidden, board.states) == (20, 80, {"ready": 100})
    assert all(row.running == 7 for row in board.rows[:12])
    assert "and 80 more" in shown(board)
    assert len(shown(board).splitlines()) == 1 + 1 + 20 + 1


def test_what_is_not_known_is_a_dash_and_null() -> None:
    foreign = view("par", country="fr")
    foreign.ClearField("status")
    foreign.heads_at_ms = foreign.certificate_not_after_ms = 0
    board = board_of(STATUS, [foreign], {}, NOW, Sort.LOAD, None)
    (told,) = board_json(board)["nodes"]
    assert told["state"] == "gone"
    unknown = ("running", "waiting", "capacity", "record_age_s", "certificate_ends_in_s", "last_minute")
    assert all(told[key] is None for key in unknown)
    assert shown(board).splitlines()[2].split()[-7:] == ["-"] * 7


def test_the_last_minute_of_own_nodes() -> None:
    node = view("one", running=2)
    board = board_of(STATUS, [node], {node.node: minute(90)}, NOW, Sort.LOAD, None)
    (told,) = board_json(board)["nodes"]
    assert told["last_minute"]["requests_per_s"] == pytest.approx(1.5)
    assert told["last_minute"]["tokens_per_s"] == pytest.approx(15)
    line = shown(board).splitlines()[2]
    assert line.split()[-9:] == ["3s", "11h", "1.5", "15.0", "0", "20", "ms", "1.5", "s"]


@pytest.mark.parametrize(
    "lie",
    [
        {"window_seconds": float("nan")},
        {"window_seconds": 1e-300},
        {"window_seconds": -1.0},
        {"p50_seconds": float("inf")},
        {"p99_seconds": 1e300},
        {"completion_tokens": 2**64 - 1},
    ],
)
def test_numbers_that_no_node_can_have_are_not_shown(lie: dict[str, Any]) -> None:
    node, told = view("one"), minute(90)
    assert told.minute is not None
    told.minute.MergeFrom(node_admin_pb2.GetLastMinuteResponse(**lie))
    board = board_of(STATUS, [node], {node.node: told}, NOW, Sort.LOAD, None)
    json.dumps(board_json(board), allow_nan=False)
    assert board_json(board)["nodes"][0]["last_minute"] is None
    assert shown(board).splitlines()[2].split()[-5:] == ["-"] * 5


def test_whoever_keeps_silent_is_told_with_the_reason() -> None:
    node = view("one")
    board = board_of(STATUS, [node], {node.node: Told(silent=Reason.UNREACHABLE)}, NOW, Sort.LOAD, None)
    assert "1 own nodes did not tell of their last minute: UNREACHABLE" in shown(board)
    assert board_json(board)["nodes"][0]["silent"] == "UNREACHABLE"


def test_others_words_are_harmless() -> None:
    node = view("one")
    node.record.models[0].name = "\x1b[31mred\u202e"
    odd = view("two")
    odd.node = "spiffe://\x1b/node"
    of_others = admin_pb2.GetStatusResponse(trust_domain="de\x1b[2J")
    text = shown(board_of(of_others, [node, odd], {}, NOW, Sort.LOAD, None))
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_a_node_is_one_line_on_any_terminal(width: int) -> None:
    long = view("a-rather-long-name-of-a-node-in-a-data-center", running=7)
    long.record.models.add(name="some-maker/some-model-with-a-long-name-70B-Instruct")
    text = shown(board_of(STATUS, [long, view("two")], {}, NOW, Sort.LOAD, None), width)
    assert len(text.splitlines()) == 4
    assert all(len(line) <= width for line in text.splitlines())
    assert ("MODELS" in text) == (width >= 140)
    assert all(column in text for column in ("STATE", "LOAD", "CERT"))


def test_what_is_not_the_newest_says_why() -> None:
    board = board_of(STATUS, [view("one")], {}, NOW, Sort.LOAD, None)
    assert "UNREACHABLE: this is not newer" in shown(board, trouble="UNREACHABLE: this is not newer")
