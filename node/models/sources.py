"""Which source a text names: a folder, an archive, hub:, s3:// or https://.

Credentials never stand in it: a text that holds some is refused, because command lines are seen by many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mesh.core.errors import MeshError, Reason
from node.models.archive import ArchiveSource, opened_file, opened_url
from node.models.folder import FolderSource
from node.models.hub import HubSource
from node.models.objects import ObjectSource
from node.models.rules import Rules
from node.models.source import Source

EXPECTED = "a folder, a .tar file, hub:ORG/NAME[@REVISION], s3://BUCKET/PREFIX or https://HOST/NAME.tar"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def source_of(text: str, rules: Rules, environment: Mapping[str, str], scratch: Path) -> Source:
    """The source. Raises REQUEST_INVALID for what is none, NOT_FOUND for a path where nothing is."""
    if text.startswith("hub:"):
        model, _, revision = text.removeprefix("hub:").partition("@")
        return HubSource(model, revision, scratch)
    if "://" in text:
        return _remote(text, rules, environment)
    path = Path(text)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file() and path.name.endswith(_ARCHIVES):
        return ArchiveSource(opened_file(path), rules)
    if path.exists():
        raise MeshError(Reason.REQUEST_INVALID, f"--from: expected {EXPECTED}")
    raise MeshError(Reason.NOT_FOUND, "--from: there is no such folder or archive")


def _remote(text: str, rules: Rules, environment: Mapping[str, str]) -> Source:
    try:
        url = urlsplit(text)
        host, named = url.hostname, url.username is not None or url.password is not None
    except ValueError:
        raise MeshError(Reason.REQUEST_INVALID, f"--from: expected {EXPECTED}") from None
    if named:
        raise MeshError(
            Reason.REQUEST_INVALID, "--from: no credentials on the command line; they come by the environment"
        )
    if url.scheme == "s3" and _BUCKET.fullmatch(url.netloc) and not url.query and not url.fragment:
        return ObjectSource.of_s3(url.netloc, url.path.strip("/"), environment)
    if url.scheme == "https" and host:
        return ArchiveSource(opened_url(text, environment), rules)
    raise MeshError(Reason.REQUEST_INVALID, f"--from: expected {EXPECTED}")
