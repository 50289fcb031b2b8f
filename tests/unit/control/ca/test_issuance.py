"""Who may be given which name."""

from __future__ import annotations

import pytest

from control.ca.issuance import (
    Grant,
    grant_by_administrator,
    grant_by_renewal,
    grant_by_token,
    require_administrator,
)
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import Revocations
from mesh.core.types import SpiffeId

DE = "de.mesh.example"
NOBODY = Revocations()


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


@pytest.mark.parametrize("path", ["/client/acme", "/client/acme/app", "/admin/eve"])
def test_what_an_administrator_may_have_issued(path: str) -> None:
    assert grant_by_administrator(DE, path, 600, NOBODY) == Grant(SpiffeId(DE, path), 600)


@pytest.mark.parametrize(
    "path",
    [
        "/authority",
        "/authority/x",
        "/node/fra-1",
        "/control/main",
        "/client",
        "/client/a/b/c",
        "/admin",
        "/admin/a/b",
        "/board/etcd",
    ],
)
def test_what_an_administrator_may_not(path: str) -> None:
    with refused(Reason.IDENTITY_NOT_ALLOWED):
        grant_by_administrator(DE, path, 600, NOBODY)


@pytest.mark.parametrize("path", ["", "client/acme", "/client/../authority", "/client/A", "/client//x", "/"])
def test_malformed_paths(path: str) -> None:
    with refused(Reason.IDENTITY_MALFORMED):
        grant_by_administrator(DE, path, 600, NOBODY)


@pytest.mark.parametrize(
    ("asked", "longest", "granted"),
    [(0, 86_400, 86_400), (60, 86_400, 60), (86_400, 86_400, 86_400), (0, 5, 5), (600, 5, 5)],
)
def test_life(asked: float, longest: float, granted: float) -> None:
    assert grant_by_administrator(DE, "/client/acme", asked, NOBODY, longest).ttl_s == granted


@pytest.mark.parametrize("asked", [1, 59, 86_401, -1, float("nan")])
def test_life_out_of_bounds(asked: float) -> None:
    with refused(Reason.REQUEST_INVALID):
        grant_by_administrator(DE, "/client/acme", asked, NOBODY)


def test_a_token_gives_its_nodes_name() -> None:
    assert grant_by_token(DE, "fra-1", NOBODY).id == SpiffeId(DE, "/node/fra-1")
    for name in ("", "A", "a/b", "../authority", "x" * 64):
        with refused(Reason.IDENTITY_MALFORMED):
            grant_by_token(DE, name, NOBODY)


@pytest.mark.parametrize("path", ["/node/fra-1", "/client/acme/app", "/admin/eve", "/control/main"])
def test_renewal_gives_the_same_name(path: str) -> None:
    caller = SpiffeId(DE, path)
    assert grant_by_renewal(DE, caller, "ab", NOBODY) == Grant(caller, 86_400)


@pytest.mark.parametrize(
    "caller", [SpiffeId(DE, "/authority"), SpiffeId("us.mesh.example", "/node/a"), SpiffeId(DE, "/x/y")]
)
def test_renewal_is_for_own_certificates_only(caller: SpiffeId) -> None:
    with refused(Reason.IDENTITY_NOT_ALLOWED):
        grant_by_renewal(DE, caller, "ab", NOBODY)


def test_the_revoked_get_nothing() -> None:
    node, client = SpiffeId(DE, "/node/fra-1"), SpiffeId(DE, "/client/acme")
    revoked = Revocations(ids=frozenset({node, client}), serials=frozenset({"ab"}))
    with refused(Reason.IDENTITY_REVOKED):
        grant_by_token(DE, "fra-1", revoked)
    with refused(Reason.IDENTITY_REVOKED):
        grant_by_administrator(DE, "/client/acme", 0, revoked)
    with refused(Reason.IDENTITY_REVOKED):
        grant_by_renewal(DE, node, "cd", revoked)
    with refused(Reason.IDENTITY_REVOKED):
        grant_by_renewal(DE, SpiffeId(DE, "/node/fra-2"), "ab", revoked)


def test_administrators() -> None:
    require_administrator(SpiffeId(DE, "/admin/eve"), DE)
    for caller in (
        SpiffeId(DE, "/client/admin"),
        SpiffeId("us.mesh.example", "/admin/eve"),
        SpiffeId(DE, "/node/admin"),
    ):
        with refused(Reason.IDENTITY_NOT_ALLOWED):
            require_administrator(caller, DE)
