"""A model of a hub that speaks Hugging Face's protocol, through its own client.

Which hub and as whom: HF_ENDPOINT and HF_TOKEN in the environment. A revision that is a commit's hash
names the same files for ever; the digest says so in any case. The client writes by itself, so how much is
bounded by the system: no file may grow past what the hub said it has.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from mesh.core.errors import MeshError, Reason
from node.models.rules import MOST_FILES
from node.models.source import Item, Wrote, missing

# Its own: progress on our terminal, and telling its makers.
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_SLACK_BYTES = 64 << 20  # for what else this process writes meanwhile


class HubSource:
    """See the module. `scratch` is an empty folder on the disk that the model is to be on."""

    def __init__(self, model: str, revision: str, scratch: Path) -> None:
        self._model, self._revision, self._scratch = model, revision or None, scratch

    def items(self) -> list[Item]:
        """All files of the revision."""
        hub = _client(self._scratch)
        with _explained():
            # One commit for all: a branch may move while we read.
            info = hub.HfApi().model_info(self._model, revision=self._revision)
            tree = hub.HfApi().list_repo_tree(self._model, revision=info.sha, recursive=True)
            entries = list(islice(tree, 2 * MOST_FILES + 1))
        if len(entries) > 2 * MOST_FILES:  # with folders
            raise MeshError(Reason.MODEL_TOO_LARGE, f"more than {MOST_FILES} files")
        files = [each for each in entries if isinstance(each, hub.hf_api.RepoFile)]
        return [Item(each.path, each.size, self._saver(each.path, each.size, info.sha)) for each in files]

    def _saver(self, name: str, size: int, commit: str) -> Any:
        def save(target: Path, wrote: Wrote) -> None:
            with _explained(), _no_file_above(size + _SLACK_BYTES):
                kept = _client(self._scratch).hf_hub_download(
                    self._model, name, revision=commit, local_dir=self._scratch
                )
            found = Path(kept)
            if not stat.S_ISREG(found.lstat().st_mode) or self._scratch not in found.parents:
                raise MeshError(Reason.MODEL_UNSAFE, f"{name} did not arrive as a file")
            if found.stat().st_size != size:
                raise MeshError(Reason.PEER_MISBEHAVED, f"{name} has another size than the hub said")
            wrote(size)
            with found.open("rb") as file:
                os.fsync(file.fileno())
            if target.exists():
                raise MeshError(Reason.MODEL_UNSAFE, f"{name} comes twice")
            shutil.move(found, target)

        return save


def _client(scratch: Path) -> Any:
    # What it keeps for the next time goes with the scratch folder: the model may fill the disk as it is.
    for name, value in (_QUIET | {"HF_HOME": str(scratch / "home")}).items():
        os.environ.setdefault(name, value)
    try:
        import huggingface_hub
        import huggingface_hub.hf_api
    except ImportError:
        raise missing("huggingface-hub", "huggingface-hub") from None
    return huggingface_hub


@contextmanager
def _no_file_above(size: int) -> Iterator[None]:
    """Meanwhile writing past it fails, in this process and whatever it starts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    bounds = [bound for bound in (*before, max(size, 0)) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(bounds), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what the client raises into reasons. By kind alone: its words quote addresses and headers."""
    from huggingface_hub import errors

    try:
        yield
    except MeshError:
        raise
    except errors.HFValidationError:
        raise MeshError(Reason.REQUEST_INVALID, "expected hub:ORG/NAME or hub:ORG/NAME@REVISION") from None
    except errors.GatedRepoError:
        raise MeshError(Reason.IDENTITY_NOT_ALLOWED, "the hub does not let us in (HF_TOKEN)") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise MeshError(Reason.NOT_FOUND, "the hub has no such model or revision, or not for us") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise MeshError(Reason.MODEL_TOO_LARGE, "a file is larger than the hub said") from None
        raise MeshError(Reason.UNREACHABLE, f"the hub: {type(error).__name__}") from None
    except Exception as error:  # its own, those of two HTTP clients, and the system's
        raise MeshError(Reason.UNREACHABLE, f"the hub: {type(error).__name__}") from None
