"""Asking before something is removed or put in force. Where nobody can be asked, consent is given by --yes
or not at all."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from control.cli.output import harmless
from mesh.core.errors import MeshError, Reason

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing anything.")]


def require_consent(question: str, yes: bool, refused: str = "nothing was removed") -> None:
    """Returns if `yes`, or if a person says so on the terminal. Raises CANCELLED, which says what was
    not done (`refused`), or REQUEST_INVALID."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise MeshError(Reason.REQUEST_INVALID, "nobody can be asked here: add --yes")
    sys.stderr.write(f"{harmless(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise MeshError(Reason.CANCELLED, refused)
