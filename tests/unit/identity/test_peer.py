"""Who called, from what gRPC knows of the connection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.names import dns_name_of, is_within
from mesh.identity.peer import peer_of
from tests.support.identities import AuthorityForTests


class Call:
    """A call on a connection with these facts."""

    def __init__(self, **facts: Iterable[bytes]) -> None:
        self._facts = facts

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._facts


def reason_of(call: Call, authority: AuthorityForTests, now: float | None = None) -> Reason:
    with pytest.raises(MeshError) as caught:
        peer_of(call, {authority.trust_domain: authority.bundle}, time.time() if now is None else now)
    return caught.value.reason


def test_a_peer(de: AuthorityForTests) -> None:
    svid = de.svid("/client/clinic-a/app")
    peer = peer_of(Call(x509_pem_cert=[svid.chain_pem]), {de.trust_domain: de.bundle}, time.time())
    assert (peer.id, peer.serial, peer.not_after) == (svid.id, svid.serial, svid.not_after)


def test_no_peer(de: AuthorityForTests, us: AuthorityForTests) -> None:
    pem = de.svid("/client/clinic-a").chain_pem
    assert reason_of(Call(), de) is Reason.IDENTITY_MALFORMED
    assert reason_of(Call(x509_pem_cert=[]), de) is Reason.IDENTITY_MALFORMED
    assert reason_of(Call(x509_pem_cert=[b"junk"]), de) is Reason.IDENTITY_MALFORMED
    assert reason_of(Call(x509_pem_cert=[pem, pem]), de) is Reason.IDENTITY_MALFORMED
    assert reason_of(Call(x509_pem_cert=[pem * 40]), de) is Reason.IDENTITY_MALFORMED
    # what gRPC calls the peer's SPIFFE id is not asked: it is there for a name without a certificate too
    assert (
        reason_of(Call(peer_spiffe_id=[b"spiffe://de.mesh.example/node/a"]), de) is Reason.IDENTITY_MALFORMED
    )
    assert reason_of(Call(x509_pem_cert=[pem]), us) is Reason.IDENTITY_UNTRUSTED
    assert reason_of(Call(x509_pem_cert=[pem]), de, time.time() + 7200) is Reason.IDENTITY_EXPIRED
    unnamed, _ = de.forge([x509.DNSName("x.de.mesh.example")])
    certificate = x509.load_der_x509_certificate(unnamed[0]).public_bytes(Encoding.PEM)
    assert reason_of(Call(x509_pem_cert=[certificate]), de) is Reason.IDENTITY_MALFORMED


@pytest.mark.parametrize(
    ("spiffe_id", "dns_name"),
    [
        ("spiffe://de.mesh.example/node/fra-1", "fra-1.node.de.mesh.example"),
        ("spiffe://de.mesh.example/control/main", "main.control.de.mesh.example"),
        ("spiffe://de.mesh.example/client/clinic-a/app", "app.clinic-a.client.de.mesh.example"),
    ],
)
def test_dns_names(spiffe_id: str, dns_name: str) -> None:
    assert dns_name_of(SpiffeId.parse(spiffe_id)) == dns_name
    assert is_within(dns_name, "de.mesh.example")
    assert not is_within(dns_name, "us.mesh.example")
    assert not is_within("node.xde.mesh.example", "de.mesh.example")


def test_a_dns_name_that_would_be_too_long() -> None:
    label = "x" * 63
    with pytest.raises(MeshError) as caught:
        dns_name_of(SpiffeId(f"de.{label}.{label}", f"/client/{label}/{label}/{label}"))
    assert caught.value.reason is Reason.IDENTITY_MALFORMED
