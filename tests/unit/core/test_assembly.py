"""The table of records in force, from statements that count as verified (I4, I5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.assembly import (
    MAX_KEYS_PER_TRUST_DOMAIN,
    Held,
    Payload,
    RecordTable,
    StatusTable,
)
from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.records import RecordKey, RecordType, Statement
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Heads, Revocations, TrustBundle
from mesh.core.types import NodeFacts, NodeRecord, NodeStatus, SpiffeId

DE, FR = "de.mesh.example", "fr.mesh.example"
OWN, OTHER = TrustBundle(DE, (b"root",)), TrustBundle(FR, (b"root",))
NOW = 1_000.0
FACTS = NodeFacts("DE", "DE", "DE", frozenset({"DE"}))
RECORD = NodeRecord(("127.0.0.1:1",), ())
PAPERS = CollectionSpec("papers", "all-MiniLM-L6-v2", "sha256:" + "0" * 64, 384)
POLICY = RecordKey(DE, RecordType.POLICY)
STATUS = NodeStatus(True, 0, 0, 1)


def key(kind: RecordType, name: str = "", trust_domain: str = DE) -> RecordKey:
    return RecordKey(trust_domain, kind, name)


def said(
    key: RecordKey,
    generation: int = 1,
    *,
    not_after: float = NOW + 100,
    signer: SpiffeId | None = None,
    serial: str = "01",
    digest: str = "",
) -> Statement:
    return Statement(
        type=key.type,
        key=str(key),
        generation=generation,
        not_before=NOW,
        not_after=not_after,
        payload=b"",
        signer=signer or key.signer,
        signer_serial=serial,
        digest=digest or f"sha256:{generation}",
    )


def put(table: RecordTable, key: RecordKey, payload: Payload, *args: int, **options: object) -> bool:
    return table.accept(key, Held(said(key, *args, **options), payload, b""))  # type: ignore[arg-type]


@pytest.fixture
def table() -> RecordTable:
    return RecordTable(OWN)


def test_each_type_finds_its_place_in_the_snapshot(table: RecordTable) -> None:
    groups, heads = Groups.shipped(), Heads(NOW, 60, {str(POLICY): 1})
    revoked = Revocations(frozenset({SpiffeId(DE, "/node/x")}))
    put(table, key(RecordType.FEDERATION), (OTHER,))
    put(table, POLICY, "permit(principal, action, resource);")
    put(table, key(RecordType.FACTS, "a"), FACTS)
    put(table, key(RecordType.NODE, "a"), RECORD)
    put(table, key(RecordType.FACTS, "b"), FACTS)
    put(table, key(RecordType.REVOCATIONS), revoked)
    put(table, key(RecordType.GROUPS), groups)
    put(table, key(RecordType.HEADS), heads)
    put(table, key(RecordType.COLLECTION, "papers"), PAPERS)
    snapshot = table.snapshot(7)
    assert snapshot.version == 7
    assert snapshot.trust_domain == DE
    assert snapshot.bundles == {DE: OWN, FR: OTHER}
    assert snapshot.policies[DE].digest.startswith("sha256:")
    assert list(snapshot.candidates) == [SpiffeId(DE, "/node/a")]
    assert snapshot.revocations == {DE: revoked}
    assert snapshot.groups == {DE: groups}
    assert snapshot.heads == {DE: heads}
    assert snapshot.collections == {DE: {"papers": PAPERS}}
    assert len(snapshot.generations) == 8
    assert snapshot.stale_reason(DE, NOW) == ""


def test_a_payload_of_another_type_is_a_programming_error(table: RecordTable) -> None:
    with pytest.raises(TypeError):
        put(table, POLICY, FACTS)
    assert not table.seen


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (said(key(RecordType.GROUPS)), Reason.RECORD_WRONG_KEY),
        (said(POLICY, signer=SpiffeId(DE, "/node/a")), Reason.RECORD_WRONG_SIGNER),
        (said(POLICY, signer=SpiffeId(FR, "/authority")), Reason.RECORD_WRONG_SIGNER),
        (said(POLICY, 4), Reason.RECORD_ROLLED_BACK),
        (said(POLICY, 5, digest="sha256:other"), Reason.RECORD_ROLLED_BACK),
        (said(POLICY, 6, serial="bad"), Reason.IDENTITY_REVOKED),
    ],
)
def test_i5_what_is_refused_changes_nothing(table: RecordTable, statement: Statement, reason: Reason) -> None:
    put(table, POLICY, "one", 5)
    put(table, key(RecordType.REVOCATIONS), Revocations(serials=frozenset({"bad"})))
    before, seen = table.snapshot(1), dict(table.seen)
    with pytest.raises(MeshError) as refused:
        table.accept(POLICY, Held(statement, "two", b""))
    assert refused.value.reason is reason
    assert table.snapshot(1) == before
    assert table.seen == seen


def test_the_same_again_is_no_news_but_returns_after_it_was_dropped(table: RecordTable) -> None:
    put(table, key(RecordType.FEDERATION), (OTHER,))
    policy = key(RecordType.POLICY, trust_domain=FR)
    assert put(table, policy, "one", 5)
    assert not put(table, policy, "one", 5)
    assert table.drop(FR)
    assert not table.drop(FR)
    assert put(table, policy, "one", 5)
    with pytest.raises(MeshError):
        put(table, policy, "older", 4)


def test_i5_generations_of_earlier_runs_count() -> None:
    table = RecordTable(OWN, {str(POLICY): (5, "sha256:5")})
    with pytest.raises(MeshError):
        put(table, POLICY, "older", 4)
    assert put(table, POLICY, "the same", 5)


@pytest.mark.parametrize(
    "kind", [kind for kind in RecordType if kind not in (RecordType.STATUS, RecordType.PERMIT)]
)
def test_i4_expiry_denies_for_every_type(table: RecordTable, kind: RecordType) -> None:
    payloads: dict[RecordType, Payload] = {
        RecordType.POLICY: "permit(principal, action, resource);",
        RecordType.FACTS: FACTS,
        RecordType.NODE: RECORD,
        RecordType.REVOCATIONS: Revocations(frozenset({SpiffeId(DE, "/node/x")})),
        RecordType.FEDERATION: (OTHER,),
        RecordType.GROUPS: Groups.shipped(),
        RecordType.HEADS: Heads(NOW, 60, {}),
        RecordType.COLLECTION: PAPERS,
    }
    names = {RecordType.FACTS: "a", RecordType.NODE: "a", RecordType.COLLECTION: "papers"}
    for other, payload in payloads.items():
        not_after = NOW + 10 if other is kind else NOW + 100
        put(table, key(other, names.get(other, "")), payload, not_after=not_after)
    before = table.snapshot(1)
    assert table.next_expiry == NOW + 10
    assert not table.expire(NOW + 9)
    assert table.expire(NOW + 10)
    assert not table.expire(NOW + 11)
    after = table.snapshot(2)
    denies_by_being_gone = {
        RecordType.POLICY: not after.policies,
        RecordType.FACTS: not after.candidates,
        RecordType.NODE: not after.candidates,
        RecordType.FEDERATION: FR not in after.bundles,
        RecordType.HEADS: not after.heads,
        RecordType.COLLECTION: not after.collections.get(DE),
    }
    # These two deny by being there, so they stay, and only stop counting as current.
    denies_by_staying = {
        RecordType.REVOCATIONS: after.revocations == before.revocations,
        RecordType.GROUPS: after.groups == before.groups,
    }
    assert {**denies_by_being_gone, **denies_by_staying}[kind]
    assert str(key(kind, names.get(kind, ""))) not in after.generations


def test_what_was_renewed_in_time_does_not_expire(table: RecordTable) -> None:
    put(table, POLICY, "one", 1, not_after=NOW + 10)
    put(table, POLICY, "two", 2, not_after=NOW + 50)
    assert not table.expire(NOW + 11)
    assert table.snapshot(1).policies[DE].cedar == "two"


def test_heads_that_come_every_second_do_not_pile_up(table: RecordTable) -> None:
    heads = key(RecordType.HEADS)
    for generation in range(1, 5_000):
        put(table, heads, Heads(NOW, 60, {}), generation, not_after=NOW + generation)
    assert len(table._expiries) < 2_000
    assert table.expire(NOW + 5_000)
    assert not table.snapshot(1).heads


def test_revoking_ends_what_was_signed_but_not_what_denies(table: RecordTable) -> None:
    put(table, key(RecordType.REVOCATIONS), Revocations(), 1, serial="old")
    put(table, key(RecordType.GROUPS), Groups.shipped(), serial="old")
    put(table, POLICY, "one", serial="old")
    put(table, key(RecordType.FACTS, "a"), FACTS, serial="new")
    put(table, key(RecordType.NODE, "a"), RECORD, serial="n1")
    revoked = Revocations(frozenset({SpiffeId(DE, "/node/a")}), frozenset({"old"}))
    put(table, key(RecordType.REVOCATIONS), revoked, 2, serial="new")
    snapshot = table.snapshot(1)
    assert not snapshot.policies
    assert not snapshot.candidates
    assert snapshot.groups
    assert snapshot.is_revoked(SpiffeId(DE, "/node/a"))
    with pytest.raises(MeshError) as refused:
        put(table, POLICY, "two", 2, serial="old")
    assert refused.value.reason is Reason.IDENTITY_REVOKED


def test_an_authority_revokes_only_its_own(table: RecordTable) -> None:
    put(table, key(RecordType.FEDERATION), (OTHER,))
    put(table, POLICY, "one", serial="1")
    put(
        table, key(RecordType.REVOCATIONS, trust_domain=FR), Revocations(serials=frozenset({"1"})), serial="2"
    )
    assert DE in table.snapshot(1).policies


def test_a_trust_domain_has_room_for_so_many_keys_and_no_more() -> None:
    full = {str(key(RecordType.FACTS, f"n{i}", FR)): (1, "x") for i in range(MAX_KEYS_PER_TRUST_DOMAIN)}
    table = RecordTable(OWN, full)
    put(table, key(RecordType.FEDERATION), (OTHER,))
    with pytest.raises(MeshError) as refused:
        put(table, key(RecordType.FACTS, "more", FR), FACTS)
    assert refused.value.reason is Reason.RECORD_TOO_LARGE
    assert put(table, key(RecordType.FACTS, "n1", FR), FACTS, 2)
    assert put(table, key(RecordType.FACTS, "more"), FACTS), "others have room of their own"


def test_new_heads_share_everything_else_with_the_snapshot_before(table: RecordTable) -> None:
    put(table, POLICY, "one")
    before = table.snapshot(1)
    put(table, key(RecordType.HEADS), Heads(NOW, 60, {}))
    after = table.with_heads(before, 2)
    assert after.version == 2
    assert DE in after.heads
    assert after.policies is before.policies
    assert after.generations is before.generations


# --- statuses -----------------------------------------------------------------------------------


def test_statuses_are_taken_in_order_and_swept_when_their_ground_is_gone(table: RecordTable) -> None:
    statuses = StatusTable()
    nodes = {
        name: key(RecordType.STATUS, name, td) for name, td in (("a", DE), ("b", DE), ("c", FR), ("d", DE))
    }
    put(table, key(RecordType.FEDERATION), (OTHER,))
    for name, where in nodes.items():
        statement = said(where, 3, not_after=NOW + (5 if name == "d" else 100))
        assert statuses.check(where, statement, table)
        statuses.accept(where, statement, STATUS, name.encode())
        assert statuses.holds(where, name.encode())
        assert not statuses.holds(where, b"another")
        assert not statuses.check(where, statement, table)
        assert statuses.generation(where) == 3
    with pytest.raises(MeshError) as refused:
        statuses.check(nodes["a"], said(nodes["a"], 2), table)
    assert refused.value.reason is Reason.RECORD_ROLLED_BACK
    put(table, key(RecordType.REVOCATIONS), Revocations(frozenset({nodes["b"].node})))
    with pytest.raises(MeshError) as refused:
        statuses.check(nodes["b"], said(nodes["b"], 4), table)
    assert refused.value.reason is Reason.IDENTITY_REVOKED
    assert set(statuses.current) == {where.node for where in nodes.values()}
    assert statuses.sweep(NOW + 10, table)
    assert set(statuses.current) == {nodes["a"].node, nodes["c"].node}
    put(table, key(RecordType.FEDERATION), (), 2)
    assert statuses.sweep(NOW + 10, table)
    assert set(statuses.current) == {nodes["a"].node}
    assert not statuses.sweep(NOW + 10, table)
    assert statuses.remove(nodes["a"].node)
    assert not statuses.remove(nodes["a"].node)


# --- a dumb oracle ------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(1, 6), st.integers(1, 9)),
        st.tuples(st.just("time"), st.integers(0, 4)),
    ),
    max_size=40,
)


@given(STEPS)
def test_facts_in_force_are_those_of_the_highest_generation_that_has_not_expired(
    steps: list[tuple[object, ...]],
) -> None:
    table, now = RecordTable(OWN), NOW
    highest: dict[str, tuple[int, float]] = {}
    for step in steps:
        if step[0] == "time":
            now += int(str(step[1]))
            table.expire(now)
        else:
            name, generation, life = str(step[1]), int(str(step[2])), int(str(step[3]))
            news = generation > highest.get(name, (0, 0.0))[0]
            where = key(RecordType.FACTS, name)
            statement = said(where, generation, not_after=now + life, digest=f"{now}/{life}")
            try:
                accepted = table.accept(where, Held(statement, FACTS, b""))
            except MeshError as error:
                accepted = error.reason is not Reason.RECORD_ROLLED_BACK
            if news:
                highest[name] = (generation, now + life)
            elif accepted and table.seen[str(where)][1] != statement.digest:
                raise AssertionError("went back")
        in_force = {name for name, (_, end) in highest.items() if end > now}
        assert {k.name for k, _ in table.items()} == in_force
        assert {k: v[0] for k, v in table.seen.items()} == {
            str(key(RecordType.FACTS, name)): generation for name, (generation, _) in highest.items()
        }
