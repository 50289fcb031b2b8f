"""`meshctl authority`: founding an authority, offline.

Whoever can read the authority's directory is the authority: it holds the root key. Nothing here
touches a network.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from control.cli.bundle_view import bundle_json, bundle_lines
from control.cli.identity_files import IDENTITY, require_vacant, write_identity, write_profile
from control.cli.output import Output, OutputOption, emit, progress
from control.config_example import example_config
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId, jurisdiction_of
from mesh.identity.bundle import dump_bundle
from mesh.identity.ca import MAX_TTL_S, CertificateAuthority
from mesh.identity.keys import make_key_and_csr
from mesh.identity.private_files import read_file, write_file
from mesh.sdk.profile import ControlPlane, Profile

CA = "ca"
BUNDLE = "bundle.json"
CONFIG = "mesh-control.yaml"
FIRST_ADMIN = "admin"

app = typer.Typer(help="Found an authority, and name its administrators (offline).")

ControlOption = Annotated[
    str, typer.Option("--control", help="Where the control plane will be reached.", metavar="HOST:PORT")
]
EnrolmentOption = Annotated[
    str, typer.Option("--enrolment", help="Where machines will enrol.", metavar="HOST:PORT")
]
BoardOption = Annotated[str, typer.Option("--board", help="An etcd endpoint.", metavar="HOST:PORT")]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="New directory for everything.", metavar="DIR")],
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", help="Country first, such as de.mesh.example.")
    ],
    control: ControlOption = "127.0.0.1:7443",
    enrolment: EnrolmentOption = "127.0.0.1:7444",
    board: BoardOption = "127.0.0.1:2379",
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a certificate authority, the first administrator and a configuration for mesh-control."""
    _require_new(directory, trust_domain)
    with progress("making keys", output):
        ca = CertificateAuthority.create(directory / CA, trust_domain, time.time)
        _found(ca, directory, control, enrolment, board)
    _tell(ca, directory, output)


@app.command()
def adopt(
    directory: Annotated[Path, typer.Argument(help="New directory for everything.", metavar="DIR")],
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", help="Country first, such as de.mesh.example.")
    ],
    ca_certificate: Annotated[
        Path, typer.Option("--ca-certificate", help="The root, in PEM, such as cert-manager's tls.crt.")
    ],
    ca_key: Annotated[Path, typer.Option("--ca-key", help="Its ECDSA P-256 key, in PEM.")],
    control: ControlOption = "127.0.0.1:7443",
    enrolment: EnrolmentOption = "127.0.0.1:7444",
    board: BoardOption = "127.0.0.1:2379",
    output: OutputOption = Output.TEXT,
) -> None:
    """The same with a root that exists already: self-signed, constrained to the trust domain's names."""
    _require_new(directory, trust_domain)
    # The files may be anybody's, such as a mounted Secret's; the copy is the owner's alone.
    certificate_pem, key_pem = read_file(ca_certificate), read_file(ca_key)
    with progress("making keys", output):
        ca = CertificateAuthority.adopt(directory / CA, trust_domain, certificate_pem, key_pem, time.time)
        _found(ca, directory, control, enrolment, board)
    _tell(ca, directory, output)


def _require_new(directory: Path, trust_domain: str) -> None:
    if directory.exists() and any(directory.iterdir()):
        raise MeshError(Reason.CONFIG_INVALID, f"{directory} is not empty: an authority is never overwritten")
    jurisdiction_of(SpiffeId(trust_domain, "/authority").trust_domain)  # before anything is written


def _found(ca: CertificateAuthority, directory: Path, control: str, enrolment: str, board: str) -> None:
    write_file(directory / BUNDLE, dump_bundle(ca.bundle), mode=0o644)
    text = example_config(ca.trust_domain, listen=control, enrolment=enrolment, board=board)
    write_file(directory / CONFIG, text.encode(), mode=0o644)
    _make_admin(ca, FIRST_ADMIN, directory / FIRST_ADMIN, control, enrolment)


def _tell(ca: CertificateAuthority, directory: Path, output: Output) -> None:
    emit(
        output,
        {
            "trust_domain": ca.trust_domain,
            "authority_directory": str(directory / CA),
            "bundle": str(directory / BUNDLE),
            "config": str(directory / CONFIG),
            "profile": str(directory / FIRST_ADMIN),
            **bundle_json(ca.bundle),
        },
        f"Authority {ca.trust_domain} is in {directory}:",
        f"  {CA}/  its root key; back it up and let nobody read it",
        f"  {BUNDLE}  its trust bundle, for other authorities and for machines that enrol",
        f"  {CONFIG}  for: mesh-control --config {directory / CONFIG}",
        f"  {FIRST_ADMIN}/  the first administrator, for meshctl --profile; it renews itself every day",
        *bundle_lines(ca.bundle),
    )


@app.command("admin")
def issue_admin(
    directory: Annotated[Path, typer.Argument(help="The authority's directory.", metavar="DIR")],
    name: Annotated[str, typer.Argument(help="The administrator's name.")],
    out: Annotated[Path, typer.Option("--out", help="New directory for the profile.", metavar="DIR")],
    control: ControlOption = "127.0.0.1:7443",
    enrolment: EnrolmentOption = "127.0.0.1:7444",
    output: OutputOption = Output.TEXT,
) -> None:
    """Name an administrator without the control plane, such as after a certificate has run out."""
    ca = CertificateAuthority.load(directory / CA if (directory / CA).is_dir() else directory)
    _make_admin(ca, name, out, control, enrolment)
    identity = SpiffeId(ca.trust_domain, f"/admin/{name}")
    emit(
        output,
        {"spiffe_id": str(identity), "profile": str(out)},
        f"{identity} may act through the profile {out}.",
    )


def _make_admin(ca: CertificateAuthority, name: str, out: Path, control: str, enrolment: str) -> None:
    require_vacant(out)
    identity = SpiffeId(ca.trust_domain, f"/admin/{name}")
    key, csr = make_key_and_csr()
    chain = ca.issue(csr, identity, MAX_TTL_S, time.time())
    plane = ControlPlane(endpoint=control, enrolment=enrolment)
    write_profile(out, Profile(trust_domain=ca.trust_domain, control=plane))
    write_identity(out / IDENTITY, chain, key, [ca.bundle], identity)
