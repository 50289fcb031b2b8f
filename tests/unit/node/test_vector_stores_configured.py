"""Which store the settings name, what they must not say, and what happens when a server is not there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from mesh.core.errors import MeshError, Reason
from node.index.base import Where
from node.index.memory import MemoryStore
from node.index.stores import StoreSettings, discard_store, open_store
from tests.support.vector_stores import StoreFolder, entry, everyone, need


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_the_default_is_embedded(tmp_path: Path) -> None:
    assert StoreSettings().kind == "qdrant_edge"
    assert isinstance(open_store(StoreSettings(kind="memory"), tmp_path, "papers", 4), MemoryStore)


@pytest.mark.slow
def test_an_embedded_store_lives_in_its_folder_until_discarded(tmp_path: Path) -> None:
    need("qdrant_edge")
    settings, folder = StoreSettings(), tmp_path / "papers"
    store = open_store(settings, folder, "papers", 4)
    store.apply([entry(1)], [])
    store.close()
    discard_store(settings, folder)
    store = open_store(settings, folder, "papers", 4)
    assert store.count() == 0
    store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "lancedb"},
        {"kind": "qdrant"},
        {"kind": "milvus", "url": ""},
        {"kind": "memory", "url": "https://index.example:6333"},
        {"kind": "qdrant_edge", "api_key_file": "key"},
        {"kind": "qdrant", "url": "http://index.example:6333"},
        {"kind": "qdrant", "url": "http://10.0.0.1:6333"},
        {"kind": "milvus", "url": "tcp://127.0.0.1:19530"},
        {"kind": "milvus", "url": "papers.db"},
        {"kind": "qdrant", "url": "https://user:secret@index.example"},
        {"kind": "qdrant", "url": "https://index.example:99999"},
        {"kind": "qdrant", "url": "https://index.example", "timeout_s": 0},
        {"exact_below": -1},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        StoreSettings.model_validate(wrong)
    assert "secret" not in str(refused.value)


def test_paths_are_taken_from_the_file_s_folder(tmp_path: Path) -> None:
    settings = StoreSettings(kind="qdrant", url="https://index.example", api_key_file=Path("key"))
    assert settings.beside(tmp_path).api_key_file == tmp_path / "key"
    assert settings.beside(tmp_path).ca_file is None


@pytest.mark.slow  # imports the client
@pytest.mark.parametrize("setting", ["api_key_file", "ca_file"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_files_that_cannot_be_used_are_named(tmp_path: Path, setting: str, content: bytes | None) -> None:
    need("qdrant")
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    settings = StoreSettings.model_validate({"kind": "qdrant", "url": "https://127.0.0.1:1", setting: path})
    with pytest.raises(MeshError, match=setting) as refused:
        open_store(settings, tmp_path, "papers", 4)
    assert refused.value.reason is Reason.CONFIG_INVALID


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qdrant", "milvus"])
def test_a_server_that_is_not_there_is_unavailable(kind: str, tmp_path: Path, closed_port: int) -> None:
    need(kind)
    settings = StoreSettings.model_validate(
        {"kind": kind, "url": f"http://127.0.0.1:{closed_port}", "timeout_s": 1}
    )
    with pytest.raises(MeshError) as refused:
        open_store(settings, tmp_path, "papers", 4)
    assert refused.value.reason is Reason.INDEX_UNAVAILABLE
    assert refused.value.__cause__ is None


@pytest.mark.slow
def test_no_filter_reaches_the_log_of_milvus_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """I1: the client would write the expression of a search that fails."""
    need("milvus")
    made = StoreFolder("milvus", tmp_path)
    caplog.set_level(logging.DEBUG)
    try:
        store = made.open()
        store._client.drop_collection(store._collection)  # type: ignore[attr-defined]
        with pytest.raises(MeshError) as failed:
            store.by_vector((1, 0, 0, 0), 5, Where(frozenset({424242}), everyone().fields))
        assert failed.value.reason is Reason.INDEX_UNAVAILABLE
        written = capfd.readouterr()
        assert "424242" not in caplog.text + written.out + written.err
        assert "pymilvus" not in {record.name.split(".")[0] for record in caplog.records}
    finally:
        made.close()
