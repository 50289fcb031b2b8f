"""Reading Cedar text: what is refused, and that the message says where (I4)."""

import pytest

from mesh.core.cedar_text import MAX_NESTING, MAX_PARTS, MAX_POLICY_BYTES, read_policies
from mesh.core.errors import MeshError, Reason
from mesh.core.policy import validate_policy


def policy(condition: str, policy_id: str = "p", effect: str = "permit") -> str:
    return f'@id("{policy_id}") {effect} (principal, action, resource) when {{ {condition} }};'


def refusal(text: str) -> Reason | None:
    try:
        read_policies(text)
    except MeshError as error:
        return error.reason
    return None


def test_ids_in_order() -> None:
    text = policy("true", "b") + "\n// between\n" + policy("true", "a/2", "forbid") + "\n"
    assert validate_policy(text) == ("b", "a/2")


def test_what_a_policy_set_names() -> None:
    text = read_policies(
        '@id("a") permit (principal == Client::"spiffe://de.mesh.example/client/x", action, resource);'
        + policy('resource in Node::"spiffe://de.mesh.example/node/n"', "b")
        + policy('resource.adminAccessWithin.containsAny([Group::"EU", Group::"EEA"])', "c")
    )
    assert (text.names_clients, text.names_nodes, text.groups) == (True, True, {"EU", "EEA"})
    plain = read_policies(policy("resource is Node && principal is Client"))
    assert (plain.names_clients, plain.names_nodes, plain.groups) == (False, False, frozenset())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at least one policy"),
        ("  // only a comment\n", "at least one policy"),
        (policy("true") + "\n\nperm", "line 3 does not parse"),
        (policy("true") + '\n@id("q")\npermit (principal, actoin, resource);', "line 2 does not parse"),
        ("\npermit (principal, action, resource);", "line 2: expected @id"),
        ("@id permit (principal, action, resource);", "expected @id"),
        ('@id("a b") permit (principal, action, resource);', "expected @id"),
        (policy("true") + "\n" + policy("true"), "line 2: its @id is that of an earlier"),
        ('@id("t") permit (principal == ?principal, action, resource);', "templates"),
        (policy("resource.owner == 1"), "policy p: attribute `owner`"),
        (policy("context.dataClass == 3"), "policy p: the types"),
        (policy('context.dataclass == "public"'), "policy p: attribute `dataclass`"),
        (policy('resource.location == Country::"DE"'), "policy p:"),
        ('@id("p") permit (principal, action == Action::"fly", resource);', "policy p: unrecognized action"),
        (
            '@id("p") permit (principal in Jurisdiction::"Fr", action, resource);',
            "policy p: expected assigned ISO",
        ),
        (policy('resource.adminAccess.contains(Jurisdiction::"UK")'), "policy p: expected assigned ISO"),
        (policy('context.dataClass == "persnal"', effect="forbid"), "policy p: as a data class"),
        (policy('"Personal" != context.dataClass', effect="forbid"), "policy p: as a data class"),
        (policy('["personal", "secret"].contains(context.dataClass)'), "policy p: as a data class"),
        (policy('context.dataClasses.containsAny(["secret"])'), "policy p: as a data class"),
        (policy("(" * (MAX_NESTING + 1) + "true" + ")" * (MAX_NESTING + 1)), "nested brackets"),
        (policy("context" + ".a" * (MAX_PARTS + 1) + " == 1"), "operators in one policy"),
        (policy("context" + " . /* */a" * 40), "does not parse"),
        (policy("if true then true else " * (MAX_PARTS + 1) + "true"), "operators in one policy"),
        (policy('"unterminated'), "does not parse"),
    ],
)
def test_i4_refused_with_the_place(text: str, says: str) -> None:
    with pytest.raises(MeshError) as caught:
        read_policies(text)
    assert caught.value.reason is Reason.POLICY_MALFORMED
    assert says in caught.value.message


def test_too_large() -> None:
    with pytest.raises(MeshError) as caught:
        read_policies(policy("true") + " " * MAX_POLICY_BYTES)
    assert caught.value.reason is Reason.POLICY_TOO_LARGE


@pytest.mark.parametrize(
    "opening", ["(", "[", "{", '{"a":', "if (", "((principal.", "// \r(", "\\(", "é(", ")("]
)
def test_i4_deep_nesting_never_reaches_the_parser(opening: str) -> None:
    """It would end the process: the parser recurses on the C stack."""
    text = '@id("p") permit (principal, action, resource) when { '
    with pytest.raises(MeshError) as caught:
        read_policies(text + opening * (100_000 // len(opening.encode())))
    assert caught.value.reason is Reason.POLICY_MALFORMED


CHAINS = [
    "true && ",
    "true || ",
    "1 + ",
    "!",
    "-",
    "if true then true else ",
    "[1].contains(1).",
    "context has a.",
]


@pytest.mark.parametrize("part", CHAINS)
@pytest.mark.parametrize("times", [10_000, MAX_PARTS, MAX_PARTS // 2 - 10])
def test_i4_long_chains_are_read_or_refused(part: str, times: int) -> None:
    text = policy(part * min(times, 120_000 // len(part)) + "true")
    for candidate in (text, text.replace("};", ";") * 3, text.removesuffix("true };")):
        assert refusal(candidate) in (None, Reason.POLICY_MALFORMED, Reason.POLICY_TOO_LARGE)


def test_the_largest_chain_can_be_read_deep_in_a_stack() -> None:
    text = policy("true && " * (MAX_PARTS - 4) + "true")

    def deep(levels: int) -> tuple[str, ...]:
        return deep(levels - 1) if levels else validate_policy(text)

    assert deep(300) == ("p",)


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    inside = '"' + "(" * 200 + '"'
    assert validate_policy(policy(f"context.purpose == {inside}") + "// " + "{" * 200) == ("p",)
