"""A board put together again from a node's memory: what verifies, and nothing over what is newer (I5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mesh.board_cache import CachedBoard
from mesh.board_restore import Fate, read_memory, restore
from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordKey
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.boards import DAY_S, Clock, Writer, running_board
from tests.support.identities import AuthorityForTests

DEADLINE_S = 10.0


def remembered(
    *records: tuple[RecordKey, bytes, int] | tuple[RecordKey, bytes], by: Writer
) -> dict[str, bytes]:
    """Envelopes by key: (key, payload[, generation])."""
    return {str(r[0]): by.seal(r[0], r[1], r[2] if len(r) == 3 else 5) for r in records}


@pytest.fixture
def mesh(de: Writer, fr: Writer) -> dict[str, bytes]:
    """What a node of DE remembers of a mesh with FR."""
    own = remembered(
        de.federation(fr.authority.bundle), de.policy(), de.facts("fra-1"), de.record("fra-1"),
        de.revocations(de.node("fra-9")), de.heads({str(de.policy()[0]): 5}), by=de,
    )  # fmt: skip
    return own | remembered(fr.policy(), fr.facts("par-1"), fr.record("par-1"), by=fr)


async def put_back(
    memory: MemoryBoard, own: Writer, envelopes: Mapping[str, bytes], clock: Clock, **seen: tuple[int, str]
) -> dict[str, tuple[Fate, Reason | None]]:
    cached = CachedBoard(1, clock(), seen, envelopes)
    found = await restore(MemoryStore(memory), own.authority.bundle, cached, clock)
    assert sorted(each.key for each in found) == sorted(envelopes)
    return {each.key: (each.fate, each.reason) for each in found}


def on(memory: MemoryBoard) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in memory.under("/")}


async def test_an_empty_board_has_everything_again_and_a_new_node_believes_it(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, mesh: dict[str, bytes]
):
    found = await put_back(memory, de, mesh, clock)
    assert set(found.values()) == {(Fate.PUT, None)}
    assert on(memory) == mesh
    for writer in (de, fr):  # of either authority, with nothing on disk
        async with running_board(MemoryStore(memory), writer.authority.bundle, clock) as board:
            assert not [why for why in board.refused.values() if why is not Reason.RECORD_WRONG_SIGNER]
            assert writer.trust_domain in board.snapshot.policies
    async with running_board(MemoryStore(memory), de.authority.bundle, clock) as board:
        assert set(board.snapshot.candidates) == {de.node("fra-1"), fr.node("par-1")}
        assert board.snapshot.is_revoked(de.node("fra-9"))
        assert not board.snapshot.stale_reason(de.trust_domain, clock())
    assert set((await put_back(memory, de, mesh, clock)).values()) == {(Fate.THERE, None)}


async def test_what_is_newer_on_the_board_stays_and_what_is_older_goes(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, mesh: dict[str, bytes]
):
    newer, older, same = str(de.policy()[0]), str(fr.policy()[0]), str(de.facts("fra-1")[0])
    federation = str(de.federation()[0])
    before = {
        newer: de.seal(*de.policy('@id("new") permit(principal, action, resource);'), 6),
        older: fr.seal(*fr.policy('@id("old") permit(principal, action, resource);'), 4),
        same: mesh[same],
        federation: mesh[federation],
    }
    for key, value in before.items():
        memory.overwrite(key, value)
    found = await put_back(memory, de, mesh, clock)
    assert found[newer] == (Fate.KEPT, None)
    assert found[older] == (Fate.REPLACED, None)
    assert found[same] == found[federation] == (Fate.THERE, None)
    assert on(memory) == {**mesh, newer: before[newer]}


async def test_what_is_newer_is_also_seen_where_only_the_memory_says_whom_to_believe(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, mesh: dict[str, bytes]
):
    """FR's control plane is back and has put its newer policy on the board; DE's federation is not there."""
    key, payload = fr.policy()
    memory.overwrite(str(key), fr.seal(key, payload, 6))
    assert (await put_back(memory, de, mesh, clock))[str(key)] == (Fate.KEPT, None)
    assert on(memory)[str(key)] != mesh[str(key)]


async def test_nobodys_word_on_the_board_is_replaced_and_a_signed_one_is_let_be(
    memory: MemoryBoard, de: Writer, us: Writer, clock: Clock, mesh: dict[str, bytes]
):
    garbage, forged, ahead = str(de.policy()[0]), str(de.facts("fra-1")[0]), str(de.record("fra-1")[0])
    memory.overwrite(garbage, b"not an envelope")
    memory.overwrite(forged, us.seal(*de.facts("fra-1", location="US"), 9, signer=us.signer))
    dated = de.seal(*de.record("fra-1"), 9, not_before=clock() + 3600)
    memory.overwrite(ahead, dated)
    found = await put_back(memory, de, mesh, clock)
    assert found[garbage] == found[forged] == (Fate.REPLACED, None)
    assert found[ahead] == (Fate.KEPT, Reason.RECORD_NOT_YET_VALID)
    assert on(memory) == {**mesh, ahead: dated}


async def test_what_was_forged_in_the_file_never_reaches_the_board(
    memory: MemoryBoard, de: Writer, fr: Writer, us: Writer, clock: Clock, mesh: dict[str, bytes]
):
    policy, facts, expired = str(de.policy()[0]), str(fr.facts("par-1")[0]), str(fr.record("par-1")[0])
    stranger, status = str(us.policy()[0]), str(de.status("fra-1")[0])
    forged = {
        **mesh,
        policy: us.seal(*de.policy(), 9, signer=us.signer),
        facts: mesh[str(fr.policy()[0])],  # a true record under another key
        expired: fr.seal(*fr.record("par-1"), 5, not_before=clock() - 2 * DAY_S),
        stranger: us.seal(*us.policy(), 1),  # nobody here federates with US
        status: de.seal(*de.status("fra-1"), 1),
        "/sovereign/v1/de.mesh.example/nonsense": b"x",
        "/elsewhere": mesh[policy],
    }
    found = await put_back(memory, de, forged, clock)
    refused = {key: reason for key, (fate, reason) in found.items() if fate is Fate.REFUSED}
    assert refused == {
        policy: Reason.RECORD_WRONG_SIGNER,
        facts: Reason.RECORD_WRONG_KEY,
        expired: Reason.RECORD_EXPIRED,
        stranger: Reason.RECORD_WRONG_SIGNER,
        status: Reason.RECORD_WRONG_KEY,
        "/sovereign/v1/de.mesh.example/nonsense": Reason.RECORD_WRONG_KEY,
        "/elsewhere": Reason.RECORD_WRONG_KEY,
    }
    assert on(memory).keys() == mesh.keys() - refused.keys()


async def test_a_generation_behind_what_the_node_had_seen_is_not_put_back(
    memory: MemoryBoard, de: Writer, clock: Clock, mesh: dict[str, bytes]
):
    key = str(de.policy()[0])
    found = await put_back(memory, de, mesh, clock, **{key: (6, "sha256:later")})
    assert found[key] == (Fate.REFUSED, Reason.RECORD_ROLLED_BACK)
    assert key not in on(memory)


async def test_a_revoked_nodes_word_is_not_put_back(
    memory: MemoryBoard, de: Writer, clock: Clock, mesh: dict[str, bytes]
):
    key = str(de.record("fra-9")[0])
    found = await put_back(memory, de, {**mesh, key: de.seal(*de.record("fra-9"), 1)}, clock)
    assert found[key] == (Fate.REFUSED, Reason.IDENTITY_REVOKED)


async def test_whoever_writes_meanwhile_knows_better(de: Writer, clock: Clock, mesh: dict[str, bytes]):
    memory = MemoryBoard()
    key, payload = de.policy()
    late = de.seal(key, payload, 7)

    class Racing(MemoryStore):
        async def list(self, prefix: str):  # type: ignore[no-untyped-def]
            found = await super().list(prefix)
            memory.overwrite(str(key), late)
            return found

    cached = CachedBoard(1, clock(), {}, mesh)
    found = await restore(Racing(memory), de.authority.bundle, cached, clock)
    assert next(each.fate for each in found if each.key == str(key)) is Fate.KEPT
    assert on(memory)[str(key)] == late


async def test_what_a_board_has_saved_can_be_read_and_a_damaged_file_is_left_alone(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, mesh: dict[str, bytes], tmp_path: Path
):
    for key, value in mesh.items():
        memory.overwrite(key, value)
    folder = tmp_path / "board"
    async with running_board(MemoryStore(memory), de.authority.bundle, clock, folder) as board:
        await board.wait_for(lambda snapshot: len(snapshot.candidates) == 2, DEADLINE_S)
    # the board has ended: it has written down what it held
    assert dict(read_memory(folder).envelopes) == mesh
    assert read_memory(folder).seen[str(de.policy()[0])][0] == 5
    file = folder / "records.json"
    file.write_bytes(file.read_bytes()[:-30])
    damaged = file.read_bytes()
    with pytest.raises(MeshError, match="damaged"):
        read_memory(folder)
    assert file.read_bytes() == damaged
    with pytest.raises(MeshError) as caught:
        read_memory(tmp_path / "nowhere")
    assert caught.value.reason is Reason.NOT_FOUND


async def test_a_memory_under_other_roots_is_refused_whole(
    memory: MemoryBoard, de: Writer, clock: Clock, mesh: dict[str, bytes], tmp_path: Path
):
    impostor = Writer(AuthorityForTests(tmp_path, de.trust_domain), clock)
    found = await put_back(memory, impostor, mesh, clock)
    assert {fate for fate, _ in found.values()} == {Fate.REFUSED}
    assert on(memory) == {}
