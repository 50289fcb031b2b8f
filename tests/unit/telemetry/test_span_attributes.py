"""What may be said in a span is a closed list; nothing on it has room for a sentence (I1)."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.decision import Decision, Refused
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action, SpiffeId
from mesh.telemetry import span_attributes as names
from mesh.telemetry.span_attributes import ATTRIBUTES, allowed, allowed_event, allowed_name
from sovereign.mesh.v1 import (
    admin_pb2,
    evidence_pb2,
    index_pb2,
    inference_pb2,
    node_admin_pb2,
    placement_pb2,
    retrieval_pb2,
)

PLANTED = "the patient has photophobia"
UUID = "01a21fe9-fba9-7faf-a19e-acd178e2acef"
NODE = "spiffe://de.mesh.example/node/fra-1"

# For every attribute, something that is said with it.
SAID: dict[str, Any] = {
    names.RPC_SYSTEM: "grpc",
    names.RPC_METHOD: "sovereign.mesh.v1.Inference/Chat",
    names.RPC_STATUS: "PERMISSION_DENIED",
    names.ERROR_TYPE: "NOT_PERMITTED",
    names.EXCEPTION_TYPE: "ValueError",
    names.OPERATION: "chat",
    names.PROVIDER: "sovereign_mesh",
    names.REQUEST_MODEL: "meta-llama/Llama-3.1-8B",
    names.MAX_TOKENS: 256,
    names.INPUT_TOKENS: 12,
    names.OUTPUT_TOKENS: 0,
    names.FINISH_REASONS: ["stop"],
    names.REQUEST_ID: UUID,
    names.CALLER_DOMAIN: "de.mesh.example",
    names.CALLER_KIND: "client",
    names.REASON: "NOT_PERMITTED",
    names.ACTION: "infer",
    names.OUTCOME: "not-asked",
    names.DECISION_ID: UUID,
    names.CONSIDERED: 3,
    names.PERMITTED: 1,
    names.REFUSED: 2,
    names.PERMIT_OUTCOME: "PERMIT_EXPIRED",
    names.NODE: NODE,
    names.LOCATION: "DE",
    names.HIGHEST_LEVEL: "snippet",
    names.CHARGED: 4,
    names.ENTRY_KIND: "serve",
    names.ENTRY_INDEX: 7,
    names.SERVICE_NAME: "mesh-node",
    names.SERVICE_NAMESPACE: "de.mesh.example",
    names.SERVICE_INSTANCE: NODE,
    names.SERVICE_VERSION: "0.1.0",
}


SERVICES = [
    service
    for file in (
        admin_pb2, evidence_pb2, index_pb2, inference_pb2, node_admin_pb2, placement_pb2, retrieval_pb2
    )
    for service in file.DESCRIPTOR.services_by_name.values()
]  # fmt: skip


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_method_that_is_served_may_be_the_name_of_a_span(service: Any):
    assert all(allowed_name(f"{service.full_name}/{method.name}") for method in service.methods)


def test_every_attribute_has_a_value_that_may_be_said():
    assert set(SAID) == set(ATTRIBUTES)
    assert allowed(SAID) == SAID


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize(
    "value",
    [
        PLANTED,
        "photophobia" * 40,
        f"{NODE} {PLANTED}",
        f"stop\n{PLANTED}",
        [PLANTED],
        ["stop", PLANTED],
        PLANTED.encode(),
        {"text": PLANTED},
        "",
        None,
        True,
        -1,
        1.5,
        2**60,
        "spiffe://de.mesh.example/client/clinic-a",
    ],
)
def test_nothing_else_may_be_said_with_it(name: str, value: Any):
    assert allowed({name: value}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "gen_ai.prompt",
        "gen_ai.input.messages",
        "gen_ai.retrieval.query.text",
        "exception.message",
        "enduser.id",
    ],
)
def test_other_names_are_left_out(name: str):
    assert allowed({name: 1, names.CHARGED: 1}) == {names.CHARGED: 1}


@pytest.mark.parametrize("name", ["chat", "placement", "sovereign.mesh.v1.Retrieval/Search"])
def test_spans_with_a_name_on_the_list(name: str):
    assert allowed_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        PLANTED,
        "chat photophobia",
        "sovereign.mesh.v1.Retrieval/",
        "sovereign.mesh.v1.Photophobia/Search",
        "sovereign.mesh.v1.Retrieval/Search photophobia",
        "sovereign.mesh.v1.Retrieval/" + "S" * 80,
        "chat\n",
    ],
)
def test_spans_with_another_name_are_not_sent(name: str):
    assert not allowed_name(name)
    assert not allowed_event(name)


def test_an_exception_is_its_type_and_its_reason():
    assert names.failure_of(ValueError(PLANTED)) == {names.EXCEPTION_TYPE: "ValueError"}
    refusal = MeshError(Reason.NOT_PERMITTED, PLANTED, {"policies": PLANTED})
    assert names.failure_of(refusal) == {names.EXCEPTION_TYPE: "MeshError", names.REASON: "NOT_PERMITTED"}


def test_a_decision_is_counts_and_codes():
    refused = (Refused(SpiffeId("us.mesh.example", "/node/a"), Reason.POLICY_SENDER_DENIES, PLANTED),)
    facts = names.of_decision(Decision(UUID, False, (), refused, 5, 6), Action.SEARCH)
    assert allowed(facts) == facts
    assert facts[names.REASON] == "POLICY_SENDER_DENIES"
    assert (facts[names.CONSIDERED], facts[names.REFUSED], facts[names.OUTCOME]) == (6, 5, "refused")
