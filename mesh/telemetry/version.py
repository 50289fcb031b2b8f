"""Which version of this software runs, as records, metrics and traces state it."""

from __future__ import annotations

from importlib import metadata


def software_version() -> str:
    """Of the installed distribution; empty when run from a bare tree."""
    try:
        return metadata.version("sovereign-mesh")
    except metadata.PackageNotFoundError:
        return ""
