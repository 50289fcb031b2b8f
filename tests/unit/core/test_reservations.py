"""Reservations count what a node's status cannot show yet, and no longer."""

from mesh.core.reservations import GRACE_S, LIFETIME_S, MAX_PER_NODE, Reservations
from mesh.core.types import SpiffeId

A = SpiffeId("de.mesh.example", "/node/a")
B = SpiffeId("de.mesh.example", "/node/b")
NOW = 1000.0


def test_counted_by_node_until_the_node_reports_after_it() -> None:
    reservations = Reservations()
    reservations.reserve(A, "1", NOW)
    reservations.reserve(A, "2", NOW + 0.1)
    reservations.reserve(B, "3", NOW)
    assert (reservations.count(A, NOW + 0.1), reservations.count(B, NOW)) == (2, 1)
    assert reservations.count(A, NOW + 0.2, reported_at=NOW + 0.2) == 2  # may have been reported before
    assert reservations.count(A, NOW + 0.3, reported_at=NOW + GRACE_S) == 1
    assert reservations.count(A, NOW + 0.4, reported_at=NOW + 0.1 + GRACE_S) == 0


def test_never_longer_than_its_lifetime() -> None:
    reservations = Reservations()
    reservations.reserve(A, "1", NOW)
    assert reservations.count(A, NOW + LIFETIME_S - 0.01) == 1
    assert reservations.count(A, NOW + LIFETIME_S) == 0
    assert len(reservations) == 0


def test_the_same_decision_counts_once() -> None:
    reservations = Reservations()
    for _ in range(3):
        reservations.reserve(A, "1", NOW)
    assert reservations.count(A, NOW) == 1


def test_bounded_and_forgotten() -> None:
    reservations = Reservations()
    for i in range(MAX_PER_NODE + 10):
        reservations.reserve(A, str(i), NOW)
    assert reservations.count(A, NOW) == MAX_PER_NODE
    reservations.expire(NOW + LIFETIME_S)
    assert len(reservations) == 0
