"""`meshctl trust`: exchanging trust bundles with other authorities, as files.

A bundle says whose certificates are believed for one trust domain. Compare its fingerprint with the
other authority by another way than the file came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.cli.bundle_view import bundle_json, bundle_lines
from control.cli.output import Output, OutputOption, emit, table
from control.cli.session import ProfileOption, act, call, open_session, require_profile
from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import MAX_BUNDLE_BYTES, dump_bundle, fingerprints, load_bundle, load_bundle_file
from mesh.identity.ca import CertificateAuthority
from mesh.identity.private_files import read_file, write_file
from mesh.identity.source import BUNDLE_DIRECTORY
from mesh.sdk.profile import Profile
from mesh.sdk.renewal import bundles_of
from sovereign.mesh.v1 import admin_pb2

app = typer.Typer(help="Exchange trust bundles with other authorities.")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="File to write (SPIFFE trust bundle, JSON).")],
    authority: Annotated[
        Path | None,
        typer.Option("--authority", help="The authority's directory, instead of a profile.", metavar="DIR"),
    ] = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write the own authority's trust bundle to a file (offline)."""
    bundle = _own_bundle(authority, profile)
    write_file(file, dump_bundle(bundle), mode=0o644, replace=True)
    emit(output, {"file": str(file), **bundle_json(bundle)}, f"Written to {file}:", *bundle_lines(bundle))


@app.command("import")
def accept(
    file: Annotated[Path, typer.Argument(help="Trust bundle of another authority.")],
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="Refuse it unless one of its roots has this SHA-256.")
    ] = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Accept another authority: its nodes and clients are believed to be who they are, and no more."""
    bundle = load_bundle(read_file(file, limit=MAX_BUNDLE_BYTES))
    if fingerprint is not None and fingerprint not in fingerprints(bundle):
        raise MeshError(Reason.BUNDLE_INVALID, "no root of the bundle has the fingerprint that was given")
    request = admin_pb2.FederateRequest(accept=codec.bundle_to_pb(bundle))
    bundles, generation = act(_federate(profile, request), output)
    emit(
        output,
        {"accepted": bundle_json(bundle), "generation": generation, "federated": _names(bundles)},
        f"Accepted (record {generation}):",
        *bundle_lines(bundle),
    )


@app.command()
def drop(
    trust_domain: Annotated[str, typer.Argument(help="Such as us.mesh.example.")],
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Stop believing another authority."""
    bundles, generation = act(_federate(profile, admin_pb2.FederateRequest(drop=trust_domain)), output)
    emit(
        output,
        {"dropped": trust_domain, "generation": generation, "federated": _names(bundles)},
        f"{trust_domain} is dropped (record {generation}).",
    )


@app.command("list")
def show(profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show the bundles that this profile trusts (offline)."""
    bundles = _known(require_profile(profile))
    rows = [(b.trust_domain, str(b.sequence), ", ".join(fingerprints(b))) for b in bundles]
    emit(
        output,
        {"bundles": [bundle_json(b) for b in bundles]},
        table(("TRUST DOMAIN", "SEQUENCE", "ROOTS"), rows),
    )


async def _federate(
    profile: Path | None, request: admin_pb2.FederateRequest
) -> tuple[tuple[TrustBundle, ...], int]:
    async with open_session(profile) as session:
        answer = await call(session.admin.Federate(request))
        return bundles_of(answer.bundles), answer.generation


def _own_bundle(authority: Path | None, profile: Path | None) -> TrustBundle:
    if authority is not None:
        return CertificateAuthority.load(
            authority / "ca" if (authority / "ca").is_dir() else authority
        ).bundle
    directory = require_profile(profile)
    own = Profile.load(directory).trust_domain
    for bundle in _known(directory):
        if bundle.trust_domain == own:
            return bundle
    raise MeshError(Reason.NOT_FOUND, f"the profile has no trust bundle of {own}")


def _known(directory: Path) -> list[TrustBundle]:
    files = sorted((Profile.load(directory).identity / BUNDLE_DIRECTORY).glob("*.json"))
    return [load_bundle_file(file) for file in files]


def _names(bundles: tuple[TrustBundle, ...]) -> list[str]:
    return sorted(bundle.trust_domain for bundle in bundles)
