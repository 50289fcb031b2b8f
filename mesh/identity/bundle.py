"""Trust bundles as files, in the SPIFFE format, for authorities to exchange by hand.

The format is that of the SPIFFE Trust Domain and Bundle specification, section 4
(https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md): a JWK set
whose keys of use ``x509-svid`` carry one root each in ``x5c``. A bundle does not say there whose it
is; ours do, in a member ``trust_domain``, and the file's name does.

Whoever accepts a bundle trusts what it says about one trust domain and no other: roots without
critical name constraints for exactly that domain are refused (roots.py).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.private_files import read_file, write_file
from mesh.identity.roots import read_root

MAX_BUNDLE_BYTES = 64 * 1024
MAX_ROOTS = 8
MAX_SEQUENCE = 2**53 - 1  # what JSON numbers hold exactly
REFRESH_HINT_S = 300
COORDINATE_BYTES = 32

_USE = "x509-svid"


def check_bundle(bundle: TrustBundle) -> None:
    """Raises BUNDLE_INVALID unless every root is one that its trust domain may have."""
    _require_trust_domain(bundle.trust_domain)
    if not 1 <= len(bundle.roots) <= MAX_ROOTS or len(set(bundle.roots)) != len(bundle.roots):
        raise MeshError(Reason.BUNDLE_INVALID, f"expected 1 to {MAX_ROOTS} different roots")
    for der in bundle.roots:
        read_root(der, bundle.trust_domain)


def dump_bundle(bundle: TrustBundle) -> bytes:
    """The bundle as a JSON document; BUNDLE_INVALID if it is not fit to be given away."""
    check_bundle(bundle)
    document = {
        "trust_domain": bundle.trust_domain,
        "spiffe_sequence": bundle.sequence,
        "spiffe_refresh_hint": REFRESH_HINT_S,
        "keys": [_key_of(der, bundle.trust_domain) for der in bundle.roots],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def load_bundle(document: bytes, trust_domain: str = "") -> TrustBundle:
    """Reads a bundle document of at most 64 KiB; raises BUNDLE_INVALID.

    `trust_domain` is whose bundle it has to be; empty where only the document says.
    """
    members = _parse(document)
    stated = members.get("trust_domain", trust_domain)
    if not isinstance(stated, str) or not stated:
        raise MeshError(Reason.BUNDLE_INVALID, 'expected a member "trust_domain"')
    if trust_domain and stated != trust_domain:
        raise MeshError(Reason.BUNDLE_INVALID, f"expected the bundle of {trust_domain}")
    sequence = members.get("spiffe_sequence", 1)
    if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
        raise MeshError(Reason.BUNDLE_INVALID, "spiffe_sequence: expected a whole number")
    keys = members.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise MeshError(Reason.BUNDLE_INVALID, 'expected a member "keys", a list of JSON Web Keys')
    # The specification: consumers ignore keys of other uses, such as jwt-svid.
    bundle = TrustBundle(stated, tuple(_root_of(key) for key in keys if key.get("use") == _USE), sequence)
    check_bundle(bundle)
    for der, key in zip(bundle.roots, (key for key in keys if key.get("use") == _USE), strict=True):
        if any(key.get(name) != value for name, value in _key_of(der, stated).items() if name != "x5c"):
            raise MeshError(Reason.BUNDLE_INVALID, "a key does not match the certificate beside it")
    return bundle


def fingerprints(bundle: TrustBundle) -> tuple[str, ...]:
    """ "sha256:<hex>" of each root certificate, for two people to compare by another way."""
    return tuple("sha256:" + hashlib.sha256(der).hexdigest() for der in bundle.roots)


def save_bundle(directory: Path, bundle: TrustBundle) -> Path:
    """Writes ``<trust domain>.json`` into the directory and returns its path."""
    path = directory / f"{bundle.trust_domain}.json"
    write_file(path, dump_bundle(bundle), mode=0o644, replace=True)
    return path


def load_bundle_file(path: Path) -> TrustBundle:
    """Reads a ``<trust domain>.json`` file; raises BUNDLE_INVALID, NOT_FOUND or CONFIG_INVALID."""
    return load_bundle(read_file(path, limit=MAX_BUNDLE_BYTES), path.stem)


def _require_trust_domain(trust_domain: str) -> None:
    try:
        SpiffeId(trust_domain, "/authority")
    except MeshError as error:
        raise MeshError(Reason.BUNDLE_INVALID, error.message) from None


def _parse(document: bytes) -> Mapping[str, Any]:
    if len(document) > MAX_BUNDLE_BYTES:
        raise MeshError(Reason.BUNDLE_INVALID, f"a trust bundle has at most {MAX_BUNDLE_BYTES} bytes")
    try:
        members = json.loads(document.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise MeshError(Reason.BUNDLE_INVALID, "expected a SPIFFE trust bundle in JSON") from None
    if not isinstance(members, dict):
        raise MeshError(Reason.BUNDLE_INVALID, "expected a SPIFFE trust bundle, a JSON object")
    return members


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of one document must not see two different bundles.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _root_of(key: Mapping[str, Any]) -> bytes:
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise MeshError(Reason.BUNDLE_INVALID, "x5c: expected one certificate in base64")
    try:
        return base64.b64decode(chain[0], validate=True)
    except (binascii.Error, ValueError):
        raise MeshError(Reason.BUNDLE_INVALID, "x5c: expected one certificate in base64") from None


def _key_of(der: bytes, trust_domain: str) -> dict[str, Any]:
    public_key = read_root(der, trust_domain).public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise MeshError(Reason.BUNDLE_INVALID, "a root's key must be ECDSA P-256")
    numbers = public_key.public_numbers()
    return {
        "kty": "EC",
        "use": _USE,
        "crv": "P-256",
        "x": _coordinate(numbers.x),
        "y": _coordinate(numbers.y),
        "x5c": [base64.b64encode(der).decode()],
    }


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(COORDINATE_BYTES, "big")).rstrip(b"=").decode()
