"""Keeping files as a Secret, against the part of a Kubernetes API server that this asks for, over HTTPS."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.kubernetes_secret import ABSENT, main
from tests.support.identities import server_certificate
from tests.support.kubernetes_api import ApiServer, api_server

CONTENTS = b"the root key, which no message may show"
RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["de-authority"]},
]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path / "api", RULES) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def root_key(tmp_path: Path) -> str:
    path = tmp_path / "root.key"
    path.write_bytes(CONTENTS)
    return f"root.key={path}"


def test_files_become_a_secret(cluster: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["de-authority", "--from-file", root_key, "--label", "app.kubernetes.io/name=sovereign-mesh"]
    assert main(words, cluster.mount) == 0
    assert cluster.files("de-authority") == {"root.key": CONTENTS}
    (made,) = cluster.api.created
    assert made["metadata"] == {
        "name": "de-authority",
        "namespace": "mesh",
        "labels": {"app.kubernetes.io/name": "sovereign-mesh"},
    }
    assert base64.b64decode(made["data"]["root.key"]) == CONTENTS
    assert "mesh/de-authority was made" in capsys.readouterr().out


def test_a_secret_is_never_overwritten(
    cluster: ApiServer, root_key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["de-authority", "--from-file", root_key], cluster.mount) == 0
    (tmp_path / "root.key").write_bytes(b"another")
    assert main(["de-authority", "--from-file", root_key], cluster.mount) == 1
    assert "never overwritten" in capsys.readouterr().err
    absent = ["de-authority", "--from-file", "root.key=/not/there", "--if-absent"]
    assert main(absent, cluster.mount) == 0, "what is not needed is not read"
    assert cluster.files("de-authority") == {"root.key": CONTENTS}


def test_asking_says_whether_it_exists_and_fetches_metadata_alone(cluster: ApiServer, root_key: str) -> None:
    assert main(["de-authority", "--exists"], cluster.mount) == ABSENT
    assert main(["de-authority", "--from-file", root_key], cluster.mount) == 0
    assert main(["de-authority", "--exists"], cluster.mount) == 0
    assert cluster.api.accepted == {"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}


def test_what_the_role_does_not_give_is_refused(
    cluster: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["another", "--exists"], cluster.mount) == 1, "trouble is not absence"
    assert "403 Forbidden (does the service account's Role allow it?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((500, b"<html>"), "said 500"),
        ((409, b'{"reason": "' + CONTENTS + b'"}'), "said 409"),
        ((202, b""), "said 202"),
        ((404, b"[" * 100_000), "said 404"),
    ],
)
def test_odd_answers_fail_and_are_not_repeated(
    cluster: ApiServer,
    root_key: str,
    answer: tuple[int, bytes],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster.api.odd_answer = answer
    assert main(["de-authority", "--from-file", root_key], cluster.mount) == 1
    err = capsys.readouterr().err
    assert says in err
    assert CONTENTS.decode() not in err


def test_the_server_has_to_prove_itself(
    cluster: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (cluster.mount / "ca.crt").write_bytes(server_certificate("127.0.0.1")[0])
    assert main(["de-authority", "--from-file", root_key], cluster.mount) == 1
    assert "does not answer: SSLCertVerificationError" in capsys.readouterr().err
    assert cluster.api.accepted == set()


@pytest.mark.parametrize(
    "words",
    [
        ["de-authority"],
        ["de-authority", "--from-file", "root.key"],
        ["de-authority", "--from-file", "../root.key=x"],
        ["de-authority", "--from-file", "root.key=/not/there"],
    ],
)
def test_what_is_not_a_file_is_refused(cluster: ApiServer, words: list[str]) -> None:
    assert main(words, cluster.mount) == 1
    assert cluster.secrets == set()


@pytest.mark.parametrize("name", ["De", "../x", "", "a/b", "x" * 254])
def test_a_name_that_is_none_is_wrong_usage(cluster: ApiServer, name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--exists"], cluster.mount)
    assert caught.value.code == 2
    assert cluster.api.accepted == set()


def test_outside_a_pod_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["de-authority", "--exists"], tmp_path) == 1
    assert "a pod of a cluster" in capsys.readouterr().err
