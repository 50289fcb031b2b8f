"""Trust bundle documents: the SPIFFE format, read strictly."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import (
    MAX_BUNDLE_BYTES,
    check_bundle,
    dump_bundle,
    fingerprints,
    load_bundle,
    load_bundle_file,
    save_bundle,
)
from tests.support.identities import AuthorityForTests, root_certificate

DE, US = "de.mesh.example", "us.mesh.example"


def document_of(authority: AuthorityForTests) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(dump_bundle(authority.bundle))
    return document


def refused(document: object, trust_domain: str = DE) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(MeshError) as caught:
        load_bundle(text, trust_domain)
    assert caught.value.reason is Reason.BUNDLE_INVALID
    return caught.value.message


def test_a_round_trip(de: AuthorityForTests) -> None:
    bundle = TrustBundle(DE, de.bundle.roots, sequence=7)
    assert load_bundle(dump_bundle(bundle)) == load_bundle(dump_bundle(bundle), DE) == bundle


def test_the_document_is_a_spiffe_bundle(de: AuthorityForTests) -> None:
    document = document_of(de)
    (key,) = document["keys"]
    assert (key["use"], key["kty"], key["crv"]) == ("x509-svid", "EC", "P-256")
    assert base64.b64decode(key["x5c"][0]) == de.bundle.roots[0]
    numbers = de.root_key.public_key().public_numbers()
    assert base64.urlsafe_b64decode(key["x"] + "=") == numbers.x.to_bytes(32, "big")
    assert document["spiffe_sequence"] == 1
    assert document["spiffe_refresh_hint"] > 0


def test_a_document_of_another_make_needs_no_member_of_ours(de: AuthorityForTests) -> None:
    document = document_of(de)
    del document["trust_domain"]
    document["keys"].append({"kty": "EC", "use": "jwt-svid", "kid": "x", "crv": "P-256", "x": "a", "y": "b"})
    document["something_new"] = {"may": "come"}
    assert load_bundle(json.dumps(document).encode(), DE).roots == de.bundle.roots
    assert "trust_domain" in refused(document, "")


def test_a_bundle_is_for_its_own_domain(de: AuthorityForTests, us: AuthorityForTests) -> None:
    assert DE in refused(document_of(us))
    # the US root in a document that claims to be DE's: its name constraints give it away
    stolen = {**document_of(us), "trust_domain": DE}
    assert "name constraints" in refused(stolen)


def test_a_root_as_it_should_be() -> None:
    check_bundle(TrustBundle(DE, (root_certificate(),)))


def test_roots_that_are_none(de: AuthorityForTests) -> None:
    def withroot_certificate(certificate: bytes) -> dict[str, Any]:
        document = document_of(de)
        document["keys"][0]["x5c"] = [base64.b64encode(certificate).decode()]
        return document

    refused(withroot_certificate(de.svid("/node/fra-1").chain[0]))
    refused(withroot_certificate(b"garbage"))
    refused(withroot_certificate(de.bundle.roots[0] + b"\0"))
    for changed in (
        {"critical": False},
        {"permitted": [x509.DNSName(DE)]},
        {"permitted": [x509.DNSName(DE), x509.UniformResourceIdentifier("." + DE)]},
        {"permitted": [x509.DNSName("mesh.example"), x509.UniformResourceIdentifier(DE)]},
        {"permitted": [x509.DNSName(DE), x509.UniformResourceIdentifier(DE), x509.DNSName(US)]},
        {"permitted": None},
    ):
        assert "name constraints" in refused(withroot_certificate(root_certificate(**changed)))  # type: ignore[arg-type]
    assert "CA certificate" in refused(withroot_certificate(root_certificate(ca=False)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b"{" * 60_000,
        b"[" * 60_000,
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b'{"keys": []}',
        b'{"keys": [{"use": "x509-svid"}]}',
        b'{"keys": [{"use": "x509-svid", "x5c": ["%%%"]}]}',
        b'{"keys": [{"use": "x509-svid", "x5c": []}]}',
        b'{"keys": [], "keys": []}',
        b'{"trust_domain": 5, "keys": []}',
        b'{"trust_domain": "DE.mesh.example", "keys": []}',
        b" " * (MAX_BUNDLE_BYTES + 1),
    ],
    ids=lambda text: repr(text[:50]),
)
def test_malformed(text: bytes) -> None:
    refused(text)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("spiffe_sequence", -1),
        ("spiffe_sequence", "1"),
        ("spiffe_sequence", True),
        ("spiffe_sequence", 2**60),
    ],
)
def test_a_sequence_is_a_whole_number(de: AuthorityForTests, member: str, value: object) -> None:
    refused({**document_of(de), member: value})


def test_key_and_certificate_have_to_agree(de: AuthorityForTests, us: AuthorityForTests) -> None:
    document = document_of(de)
    document["keys"][0]["x"] = document_of(us)["keys"][0]["x"]
    assert "does not match" in refused(document)


def test_too_many_roots_or_the_same_twice(de: AuthorityForTests) -> None:
    document = document_of(de)
    document["keys"] *= 2
    refused(document)


def test_files(de: AuthorityForTests, tmp_path: Path) -> None:
    path = save_bundle(tmp_path, de.bundle)
    assert path.name == f"{DE}.json"
    assert load_bundle_file(path) == de.bundle
    renamed = path.rename(tmp_path / f"{US}.json")
    with pytest.raises(MeshError):
        load_bundle_file(renamed)
    with pytest.raises(MeshError) as caught:
        load_bundle_file(path)
    assert caught.value.reason is Reason.NOT_FOUND


def test_fingerprints_are_of_the_certificates(de: AuthorityForTests) -> None:
    assert fingerprints(de.bundle) == ("sha256:" + hashlib.sha256(de.bundle.roots[0]).hexdigest(),)
