"""Where a watch stands, without etcd: fragments, order, repetition, other histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.store.base import WatchKind
from mesh.store.etcd_watch import Change, Compacted, Followed

KEYS = st.sampled_from(["a", "b", "c"])


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """Changes in order; those of one transaction share a revision and touch different keys."""
    changes: list[Change] = []
    revision = 10
    for keys in draw(st.lists(st.lists(KEYS, min_size=1, max_size=3, unique=True), max_size=12)):
        revision += draw(st.integers(1, 3))
        changes += [Change(key, draw(st.sampled_from([None, b"x", b"y"])), revision) for key in keys]
    return changes


@given(histories(), st.data())
def test_however_it_is_cut_and_repeated_every_change_arrives_once_and_in_order(
    history: list[Change], data: st.DataObject
) -> None:
    followed = Followed(10, 1)
    arrived: list[tuple[str, bytes | None]] = []
    start = 0
    while start < len(history):
        # A message holds whole revisions, perhaps in fragments.
        revisions = sorted({change.revision for change in history[start:]})
        last = data.draw(st.sampled_from(revisions))
        message = [change for change in history[start:] if change.revision <= last]
        if data.draw(st.booleans()):
            # The stream breaks amid the fragments, and etcd begins anew after what was handled whole.
            assert list(followed.advance(message[:1], fragment=True)) == []
            followed.restart()
        cut = data.draw(st.integers(0, len(message)))
        assert list(followed.advance(message[:cut], fragment=True)) == []
        for batch in followed.advance(message[cut:], fragment=False):
            assert batch.kind is WatchKind.CHANGES
            assert batch.revision <= last
            arrived += [(entry.key, entry.value) for entry in batch.puts]
            arrived += [(key, None) for key in batch.deletes]
        assert followed.revision == last
        start += len(message)
        # Said again, it is not believed to be news.
        again = list(followed.advance(message, fragment=False))
        assert [batch.kind for batch in again] == [WatchKind.PROGRESS]
    assert arrived == [(change.key, change.value) for change in history]


@pytest.mark.parametrize(
    ("revision", "cluster", "compacted", "goes_on"),
    [(10, 1, 0, True), (11, 1, 0, True), (9, 1, 0, False), (11, 2, 0, False), (11, 1, 8, False)],
)
def test_only_the_history_that_is_followed_goes_on(
    revision: int, cluster: int, compacted: int, goes_on: bool
) -> None:
    followed = Followed(10, 1)
    if goes_on:
        followed.check(revision, cluster, compacted)
    else:
        with pytest.raises(Compacted):
            followed.check(revision, cluster, compacted)
