"""Keeping files as a Secret, against an API server that speaks HTTPS and asks for the pod's token."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.kubernetes_secret import ABSENT, main
from tests.support.kubernetes_api import ApiServer, api_server, server_certificate

CONTENTS = b"the root key, which no message may show"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def root_key(tmp_path: Path) -> str:
    path = tmp_path / "root.key"
    path.write_bytes(CONTENTS)
    return f"root.key={path}"


def test_files_become_a_secret(api: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["de-authority", "--from-file", root_key, "--label", "app.kubernetes.io/name=sovereign-mesh"]
    assert main(words, api.mount) == 0
    made = api.secrets["de-authority"]
    assert base64.b64decode(made["data"]["root.key"]) == CONTENTS
    assert made["metadata"]["labels"] == {"app.kubernetes.io/name": "sovereign-mesh"}
    assert made["metadata"]["namespace"] == "mesh"
    assert "mesh/de-authority was made" in capsys.readouterr().out


def test_a_secret_is_never_overwritten(
    api: ApiServer, root_key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["de-authority", "--from-file", root_key], api.mount) == 0
    (tmp_path / "root.key").write_bytes(b"another")
    assert main(["de-authority", "--from-file", root_key], api.mount) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert main(["de-authority", "--from-file", "root.key=/not/there", "--if-absent"], api.mount) == 0
    assert base64.b64decode(api.secrets["de-authority"]["data"]["root.key"]) == CONTENTS


def test_asking_says_whether_it_exists_and_fetches_metadata_alone(api: ApiServer, root_key: str) -> None:
    assert main(["de-authority", "--exists"], api.mount) == ABSENT
    assert main(["de-authority", "--from-file", root_key], api.mount) == 0
    assert main(["de-authority", "--exists"], api.mount) == 0
    assert all(accept.startswith("application/json;as=PartialObjectMetadata") for accept in api.accepted)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((403, b'{"kind": "Status", "reason": "Forbidden"}'), "403 Forbidden (does the service account"),
        ((500, b"<html>"), "said 500"),
        ((409, b'{"reason": "' + CONTENTS + b'"}'), "said 409"),
        ((201 + 1, b""), "said 202"),
    ],
)
def test_other_answers_fail_and_are_not_repeated(
    api: ApiServer, root_key: str, answer: tuple[int, bytes], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer = answer
    assert main(["de-authority", "--from-file", root_key], api.mount) == 1
    assert main(["de-authority", "--exists"], api.mount) == 1, "trouble is not absence"
    err = capsys.readouterr().err
    assert says in err
    assert CONTENTS.decode() not in err


def test_the_server_has_to_prove_itself(
    api: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (api.mount / "ca.crt").write_bytes(server_certificate()[0])
    assert main(["de-authority", "--from-file", root_key], api.mount) == 1
    assert "does not answer: SSLCertVerificationError" in capsys.readouterr().err
    assert api.accepted == []


@pytest.mark.parametrize(
    "words",
    [
        ["de-authority"],
        ["de-authority", "--from-file", "root.key"],
        ["de-authority", "--from-file", "../root.key=x"],
        ["de-authority", "--from-file", "root.key=/not/there"],
    ],
)
def test_what_is_not_a_file_is_refused(api: ApiServer, words: list[str]) -> None:
    assert main(words, api.mount) == 1
    assert api.secrets == {}


@pytest.mark.parametrize("name", ["De", "../x", "", "a/b", "x" * 254])
def test_a_name_that_is_none_is_wrong_usage(api: ApiServer, name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--exists"], api.mount)
    assert caught.value.code == 2
    assert api.accepted == []


def test_outside_a_pod_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["de-authority", "--exists"], tmp_path) == 1
    assert "a pod of a cluster" in capsys.readouterr().err
