"""Which of the trust bundles on offer a process accepts. Pure.

The own trust domain's comes first and must be good. Another's that is not fit is left out by itself, so
that one bad bundle neither lets anything in nor keeps another from being dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import check_bundle
from mesh.identity.roots import read_root


def accept_bundles(
    bundles: Iterable[TrustBundle], own: str
) -> tuple[Mapping[str, TrustBundle], Mapping[str, str]]:
    """(accepted by trust domain, `own` first; why the others are refused, by trust domain).

    Raises BUNDLE_INVALID if there is no good bundle of `own`.
    """
    accepted: dict[str, TrustBundle] = {}
    refused: dict[str, str] = {}
    owners: dict[bytes, str] = {}
    for bundle in sorted(bundles, key=lambda b: (b.trust_domain != own, b.trust_domain)):
        try:
            check_bundle(bundle)
            _claim_subjects(bundle, owners)
        except MeshError as error:
            if bundle.trust_domain == own:
                raise
            refused[bundle.trust_domain] = error.message
        else:
            accepted[bundle.trust_domain] = bundle
    if own not in accepted:
        raise MeshError(Reason.BUNDLE_INVALID, f"expected a trust bundle of {own}, our own trust domain")
    return MappingProxyType(accepted), refused


def _claim_subjects(bundle: TrustBundle, owners: dict[bytes, str]) -> None:
    # TLS stacks find a root by its subject. A root that takes another domain's subject could not speak
    # for that domain, but would make its certificates fail.
    for der in bundle.roots:
        subject = read_root(der, bundle.trust_domain).subject.public_bytes()
        if owners.setdefault(subject, bundle.trust_domain) != bundle.trust_domain:
            raise MeshError(Reason.BUNDLE_INVALID, "a root bears the subject of another trust domain's root")
