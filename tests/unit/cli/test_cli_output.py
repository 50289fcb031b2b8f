"""How meshctl shows things: nothing that came over the wire is interpreted."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console
from rich.text import Text

from control.cli.chat import event_json
from control.cli.decision_view import decision_json, decision_text
from control.cli.node_view import state_of
from control.cli.output import Output, emit, emit_json, exit_code_of, harmless, report, table
from mesh.core.errors import MeshError, Reason
from mesh.core.failover import Mode
from mesh.core.placement import Decision, Ranked, Refused
from mesh.core.types import SpiffeId, node_id
from mesh.sdk import events
from sovereign.mesh.v1 import admin_pb2

DE = node_id("de.mesh.example", "fra-1")
US = node_id("us.mesh.example", "iad-1")
DECISION = Decision(
    id="d-1",
    permitted=True,
    ranked=(Ranked(DE, 0.25, "DE", ("de-everything-at-home",)),),
    refused=(Refused(US, Reason.POLICY_SENDER_DENIES, "[red]no[/red]", ("de-no-us",), "US"),),
    refused_total=1,
    considered=2,
    decided_by=SpiffeId("de.mesh.example", "/control/main"),
)


def shown(*parts: object) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, markup=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.NOT_PERMITTED, 3),
        (Reason.IDENTITY_NOT_ALLOWED, 3),
        (Reason.PERMIT_EXPIRED, 3),
        (Reason.DATA_CLASS_UNKNOWN, 2),
        (Reason.COUNTRY_UNKNOWN, 2),
        (Reason.NODE_LOST, 1),
        (Reason.UNREACHABLE, 1),
        (Reason.NO_NODE_AVAILABLE, 1),
    ],
)
def test_exit_codes(reason: Reason, code: int):
    assert exit_code_of(MeshError(reason, "x")) == code


def test_an_error_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]):
    report(MeshError(Reason.OVERLOADED, "two\nlines\tand more", {}, 1.5), as_json=False)
    err = capsys.readouterr().err
    assert err == "meshctl: OVERLOADED: two lines and more (try again in 1.5 s)\n"


def test_a_decision_has_a_row_a_node_with_its_reason():
    text = shown(*decision_text(DECISION))
    assert "fra-1 (de)" in text
    assert "chosen" in text
    assert "de-everything-at-home" in text
    assert "POLICY_SENDER_DENIES: [red]no[/red] [de-no-us]" in text


def test_a_decision_for_programs():
    found = decision_json(DECISION)
    assert found["chosen"] == str(DE)
    assert found["refused"][0]["reason"] == "POLICY_SENDER_DENIES"


def test_markup_in_cells_is_text():
    assert "[bold]x[/bold]" in shown(table(("A",), [("[bold]x[/bold]",)]))


def test_a_model_cannot_drive_the_terminal():
    assert "\x1b" not in harmless("\x1b[2Jhi\n\tyou\x07")
    assert harmless("grün\n") == "grün\n"


def test_events_for_programs():
    moved = events.FailedOver(DE, US, Mode.RESTARTED, Reason.NODE_LOST, 0, 3)
    assert event_json(moved) == {
        "event": "failed_over", "from": str(DE), "to": str(US), "mode": "restarted", "reason": "NODE_LOST",
        "kept_tokens": 0, "discarded_tokens": 3,
    }  # fmt: skip
    assert event_json(events.Token("x", 1))["event"] == "token"
    assert event_json(events.Started(DE, "d", "sha256:x"))["node"] == str(DE)
    assert event_json(events.Finished("stop", DE, 1, 2))["completion_tokens"] == 2
    assert event_json(events.Placed(DECISION))["decision"]["id"] == "d-1"


def test_the_state_of_a_node_is_what_keeps_it_from_being_used():
    node = admin_pb2.NodeView(node=str(DE))
    assert state_of(node) == "not joined"
    node.record.endpoints.append("127.0.0.1:1")
    assert state_of(node) == "gone"
    node.status.capacity = 1
    assert state_of(node) == "not ready"
    node.status.ready = True
    assert state_of(node) == "ready (records stale)"
    node.fresh = True
    assert state_of(node) == "ready"
    node.status.draining = True
    assert state_of(node) == "draining"
    node.facts.cordoned = True
    assert state_of(node) == "cordoned"


CLEAR_SCREEN = "\x1b[2J\x1b]0;owned\x07"


def test_no_text_of_another_machine_drives_the_terminal(capsys: pytest.CaptureFixture[str]):
    """A foreign policy's comment, a node's model name, a placer's detail: all are shown to administrators."""
    refusal = Refused(US, Reason.POLICY_SENDER_DENIES, CLEAR_SCREEN, (CLEAR_SCREEN,), "US")
    hostile = dataclasses.replace(DECISION, refused=(refusal,), policy_digests={})
    emit(Output.TEXT, {}, f"// {CLEAR_SCREEN}", table(("A",), [[CLEAR_SCREEN], [Text(CLEAR_SCREEN, "red")]]))
    emit(Output.TEXT, {}, *decision_text(hostile), Text(CLEAR_SCREEN))
    report(MeshError(Reason.NODE_LOST, CLEAR_SCREEN), as_json=False)
    written = capsys.readouterr()
    assert "owned" in written.out
    assert not {"\x1b", "\x07"} & set(written.out + written.err)


def test_json_says_the_same_and_drives_no_terminal(capsys: pytest.CaptureFixture[str]):
    said = {"title": "\x1b[31m\x9b31m\u202e\u2028 Stra\u00dfe", "path": "in/\udcff.txt"}
    emit_json(said)
    out = capsys.readouterr().out
    assert json.loads(out) == said
    out.encode()  # a name that is no UTF-8 can be written
    assert out.rstrip("\n").isprintable()
    assert "Stra\u00dfe" in out
    error = MeshError(Reason.NOT_FOUND, "\x9b2J is not there")
    report(error, as_json=True)
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_an_error_names_the_request_by_which_its_server_speaks_of_it(capsys: pytest.CaptureFixture[str]):
    request_id = "01a21fe9-fba9-7faf-a19e-acd178e2acef"
    report(MeshError(Reason.OVERLOADED, "busy", request_id=request_id), as_json=True)
    assert json.loads(capsys.readouterr().err)["error"]["request_id"] == request_id
