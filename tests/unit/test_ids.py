"""Ids sort by time and are UUIDs of version 7."""

from __future__ import annotations

import uuid

from mesh.ids import id_maker


def test_the_example_of_rfc_9562():
    """Appendix A.6: unix_ts_ms 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F."""
    random = (0xCC3 << 64 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    new_id = id_maker(lambda: 0x017F22E279B0 / 1000, lambda size: random)
    assert new_id() == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_they_sort_by_time_and_differ():
    now = [1_780_000_000.0]
    new_id = id_maker(lambda: now[0])
    found = []
    for _ in range(100):
        now[0] += 0.002
        found.append(new_id())
    assert found == sorted(set(found))
    assert {uuid.UUID(each).variant for each in found} == {uuid.RFC_4122}
