"""Logs carry scalars and public texts, never what an exception or an object may quote (I1)."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.telemetry import logs
from sovereign.mesh.v1 import inference_pb2

SECRET = "photophobia"


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_of_json(written: io.StringIO):
    node = SpiffeId("de.mesh.example", "/node/fra-1")
    logging.getLogger("x").info("%s took %d calls", node, 3, extra={"fields": {"queue": 2}})
    (line,) = lines(written)
    assert line["message"] == "spiffe://de.mesh.example/node/fra-1 took 3 calls"
    assert (line["level"], line["logger"], line["queue"]) == ("info", "x", 2)
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    "value",
    [
        inference_pb2.CompleteRequest(prompt=SECRET),
        SECRET.encode(),
        [SECRET],
        {"prompt": SECRET},
        ValueError(SECRET),
    ],
)
def test_what_may_hold_a_payload_is_shown_by_its_type(written: io.StringIO, value: object):
    logging.getLogger("x").info("got %s", value, extra={"fields": {"value": value}})
    logging.getLogger("x").info(value)
    assert SECRET not in written.getvalue()
    assert lines(written)[0]["value"] == f"<{type(value).__name__}>"


def test_an_exception_is_its_type_and_frames(written: io.StringIO):
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("x").exception("it failed")
    (line,) = lines(written)
    assert SECRET not in written.getvalue()
    assert line["failure"].startswith("ValueError at test_telemetry_logs.py:")


def test_a_mesh_errors_text_is_public(written: io.StringIO):
    error = MeshError(Reason.CONFIG_INVALID, "expected host:port")
    logging.getLogger("x").warning("no: %s", error, exc_info=error)
    assert "expected host:port" in lines(written)[0]["message"]
    assert "expected host:port" in lines(written)[0]["failure"]


def test_long_texts_are_cut(written: io.StringIO):
    logging.getLogger("x").info("%s", "x" * 100_000)
    logging.getLogger("x").info("y" * 100_000)
    assert all(len(line["message"]) <= logs.MAX_LINE_CHARS for line in lines(written))


def test_a_scrubbed_argument_may_no_longer_fit_its_place(written: io.StringIO):
    logging.getLogger("x").info("%d pieces", [1])
    assert lines(written)[0]["message"] == "%d pieces"


async def test_what_nobody_awaited_is_scrubbed_too(written: io.StringIO):
    loop = asyncio.get_running_loop()
    logs.guard_loop(loop)
    loop.call_exception_handler({"message": "Task failed", "exception": ValueError(SECRET)})
    assert SECRET not in written.getvalue()
    assert lines(written)[-1]["failure"] == "ValueError"


async def test_the_arguments_of_a_failed_callback_are_not_told(written: io.StringIO):
    loop = asyncio.get_running_loop()
    logs.guard_loop(loop)
    failed = asyncio.Event()

    def hand_over(text: str) -> None:
        loop.call_soon(failed.set)
        raise ValueError(text)

    loop.call_soon(hand_over, SECRET)
    await failed.wait()
    assert SECRET not in written.getvalue()
    assert lines(written)[-1]["failure"].startswith("ValueError at ")


def test_what_a_peer_said_neither_begins_a_line_nor_drives_a_terminal(written: io.StringIO):
    stream = io.StringIO()
    logs.configure("info", "text", stream)
    forged = "x\r\n12:00:00 info    forged \x1b[2J\x9b2J\u2028"
    logging.getLogger("x").info("%s", forged, extra={"fields": {"node": forged, forged: 1}})
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().removesuffix("\n").isprintable()


def test_people_get_text(written: io.StringIO):
    stream = io.StringIO()
    logs.configure("info", "text", stream)
    logging.getLogger("x").info("serving\nnow", extra={"fields": {"port": 1}})
    assert stream.getvalue().endswith("info    serving now  port=1\n")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_is_kept_to(written: io.StringIO, level: str):
    stream = io.StringIO()
    logs.configure(level, "auto", stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("x"), name)("m")
    levels = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert levels[0] == level
