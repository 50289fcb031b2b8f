"""mesh-model as a command: from each kind of source, and what it refuses. Nothing is ever left half done."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.engine.model_files import computed_digest
from node.models import cli, progress
from tests.support.fake_cluster import ReplicaAuthority
from tests.support.model_servers import Answer, bucket, hub, serving

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 9000, "sub/tokenizer.json": b"[1]"}
WRONG = f"sha256:{'0' * 64}"

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def digest(model: Path) -> str:
    return computed_digest(model)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "llama"


@pytest.fixture
def run(target: Path, digest: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mesh-model fetch`; the exit code, and what it says as JSON."""

    def run(source: str | Path, *more: str, digest: str = digest) -> tuple[int, dict[str, Any]]:
        words = ["fetch", "--from", str(source), "--to", str(target), "--digest", digest, *more]
        code = cli.run([*words, "--output", "json"])
        out, err = capsys.readouterr()
        said = out or err
        assert len(said.splitlines()) == 1
        return code, json.loads(said)

    return run


def refusal(said: tuple[int, dict[str, Any]]) -> str:
    code, document = said
    assert code == document["error"]["exit_code"] != 0
    return str(document["error"]["reason"])


def nothing_is_left(target: Path) -> None:
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def archive(
    files: dict[str, bytes] | None = None, mode: str = "w", extra: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in (FILES if files is None else files).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return made.getvalue()


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Answer], str]]:
    """An HTTPS server whose authority is trusted. Say what it answers to a path; gives the URL."""
    answers: dict[str, Answer] = {}
    asked: list[tuple[str, str | None]] = []
    (tmp_path / "tls").mkdir()
    tls = ReplicaAuthority(tmp_path / "tls").files("localhost")
    monkeypatch.setenv("SSL_CERT_FILE", tls.ca)

    def behave(method: str, path: str, headers: Any) -> Answer:
        asked.append((path, headers.get("Authorization")))
        return answers.get(path, (404, {}, b""))

    with serving(behave, tls) as address:
        port = address.rpartition(":")[2]

        def put(path: str, answer: Answer) -> str:
            answers[path] = answer
            return f"https://localhost:{port}{path}"

        put.asked = asked  # type: ignore[attr-defined]
        yield put


def test_digest_is_what_a_node_computes(model: Path, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["digest", str(model)]) == 0
    assert capsys.readouterr().out == f"{digest}\n"
    assert cli.run(["digest", str(model), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest
    assert cli.run(["digest", str(model / "missing")]) == 1
    assert capsys.readouterr().err.startswith("mesh-model: NOT_FOUND: ")


def test_from_a_folder_and_then_at_once(model: Path, target: Path, run: Run, digest: str) -> None:
    code, said = run(model)
    assert code == 0
    size = sum(map(len, FILES.values()))
    assert said == {
        "digest": digest, "directory": str(target), "files": 3, "bytes": size, "already": False,
    }  # fmt: skip
    assert computed_digest(target) == digest
    assert [path.name for path in target.parent.iterdir()] == ["llama"], "nothing else lies there"
    before = target.stat().st_ino
    assert run("/nowhere") == (0, said | {"already": True}), "the source is not even asked"
    assert target.stat().st_ino == before


def test_an_empty_folder_is_filled(model: Path, target: Path, run: Run, digest: str) -> None:
    target.mkdir(parents=True)
    assert run(model)[0] == 0
    assert computed_digest(target) == digest


def test_what_is_there_and_something_else_is_not_touched(model: Path, target: Path, run: Run) -> None:
    target.mkdir(parents=True)
    (target / "mine").write_text("mine")
    assert refusal(run(model)) == "MODEL_DIGEST_MISMATCH"
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_another_digest_is_refused(model: Path, target: Path, run: Run) -> None:
    assert refusal(run(model, digest=WRONG)) == "MODEL_DIGEST_MISMATCH"
    nothing_is_left(target)


@pytest.mark.parametrize("what", ["link to a file", "link to a folder", "pipe"])
def test_a_folder_with_other_than_files_is_refused(model: Path, target: Path, run: Run, what: str) -> None:
    if what == "pipe":
        os.mkfifo(model / "x.json")
    else:
        (model / "x.json").symlink_to("/etc/hostname" if what == "link to a file" else "/etc")
    assert refusal(run(model)) == "MODEL_UNSAFE"
    nothing_is_left(target)


def test_pickles_are_refused_before_anything_is_copied(model: Path, target: Path, run: Run) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert refusal(run(model)) == "MODEL_UNSAFE"
    nothing_is_left(target)
    assert run(model, "--exclude", "*.bin")[0] == 0
    assert not (target / "pytorch_model.bin").exists()


def test_pickles_if_they_must_be(model: Path, target: Path, run: Run) -> None:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert run(model, "--allow-pickle", digest=computed_digest(model))[0] == 0
    assert (target / "pytorch_model.bin").exists()


def test_the_size_is_bounded(model: Path, target: Path, run: Run) -> None:
    assert refusal(run(model, "--max-bytes", "2MB")) == "MODEL_TOO_LARGE"
    nothing_is_left(target)
    assert run(model, "--max-bytes", "3MB")[0] == 0


def test_one_at_a_time_and_leftovers_are_swept(model: Path, target: Path, run: Run) -> None:
    place = target.parent / ".llama.mesh-model"
    (place / "model" / "half").mkdir(parents=True)
    (place / "model" / "half" / "a.safetensors").write_text("half")
    handle = os.open(place, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert refusal(run(model)) == "STORE_CONFLICT"
    assert (place / "model" / "half").exists(), "somebody works there"
    os.close(handle)
    assert run(model)[0] == 0
    assert [path.name for path in target.parent.iterdir()] == ["llama"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_from_an_archive(tmp_path: Path, target: Path, run: Run, mode: str) -> None:
    suffix = mode.replace("w", "").replace(":", ".")
    path = tmp_path / f"model.tar{suffix}"
    path.write_bytes(archive(mode=mode))
    assert run(path)[0] == 0
    assert (target / "sub" / "tokenizer.json").read_bytes() == b"[1]"


def test_one_folder_in_an_archive_is_the_model(tmp_path: Path, target: Path, run: Run) -> None:
    (tmp_path / "m.tar").write_bytes(archive({f"./llama-7b/{name}": what for name, what in FILES.items()}))
    assert run(tmp_path / "m.tar")[0] == 0
    assert (target / "config.json").exists()


def linked(kind: bytes, name: str = "config.json", to: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


HOSTILE = {
    "climbs": (archive({"../../escaped.json": b"x"}), "MODEL_UNSAFE"),
    "absolute": (archive({"/tmp/escaped.json": b"x"}), "MODEL_UNSAFE"),
    "symlink": (archive(extra=(linked(tarfile.SYMTYPE, "x.json"),)), "MODEL_UNSAFE"),
    "hard link": (archive(extra=(linked(tarfile.LNKTYPE, "x.json", "config.json"),)), "MODEL_UNSAFE"),
    "device": (archive(extra=(linked(tarfile.CHRTYPE, "x.json"),)), "MODEL_UNSAFE"),
    "pickle": (archive(FILES | {"a.pt": b"x"}), "MODEL_UNSAFE"),
    "cut off": (archive()[:5000], "MODEL_UNSAFE"),
    "no archive": (b"<html>" * 1000, "MODEL_UNSAFE"),
    "empty": (archive({}), "NOT_FOUND"),
    "hidden only": (archive({".config": b"x"}), "NOT_FOUND"),
    "bomb": (gzip.compress(archive({"a.json": bytes(8 << 20)})), "MODEL_TOO_LARGE"),
    "hidden bomb": (gzip.compress(archive({".a": bytes(8 << 20)} | FILES)), "MODEL_TOO_LARGE"),
    "another": (archive({"config.json": b"[]"}), "MODEL_DIGEST_MISMATCH"),
}


def twice() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("config.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def endless_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    return info.tobuf()


def folders(count: int) -> bytes:
    """Headers alone."""
    return gzip.compress(linked(tarfile.DIRTYPE, "x").tobuf() * count, 1)


def sparse() -> bytes:
    """A file of the name's type 1.0, whose map would be read to its end."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("config.json")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.size": "2"}
        info.size = 1024
        tar.addfile(info, io.BytesIO(b"1\n0\n2\n".ljust(512, b"\0") + b"{}".ljust(512, b"\0")))
    return made.getvalue()


HOSTILE |= {
    "sparse": (sparse(), "MODEL_UNSAFE"),
    "damaged gzip": (gzip.compress(archive())[:64] + b"\0" * 4096, "MODEL_UNSAFE"),
    "damaged bzip2": (archive(mode="w:bz2")[:64] + b"\0" * 4096, "MODEL_UNSAFE"),
}
HOSTILE |= {"twice": (twice(), "MODEL_UNSAFE"), "header": (endless_header(), "MODEL_UNSAFE")}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives(tmp_path: Path, target: Path, run: Run, kind: str) -> None:
    content, reason = HOSTILE[kind]
    path = tmp_path / "model.tar"
    path.write_bytes(content)
    assert refusal(run(path, "--max-bytes", "3MB")) == reason
    nothing_is_left(target)
    assert not (tmp_path / "escaped.json").exists()
    assert not Path("/tmp/escaped.json").exists()


def test_headers_are_bounded_in_all(
    tmp_path: Path, target: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.models.archive._MOST_OVERHEAD_BYTES", 1 << 20)
    (tmp_path / "m.tar").write_bytes(folders(1000) + gzip.compress(archive()))
    assert run(tmp_path / "m.tar")[0] == 0
    shutil.rmtree(target)
    (tmp_path / "m.tar").write_bytes(folders(4000) + gzip.compress(archive()))
    assert refusal(run(tmp_path / "m.tar")) == "MODEL_UNSAFE"


def test_a_bomb_is_unpacked_a_piece_at_a_time(tmp_path: Path, target: Path, run: Run) -> None:
    """A few hundred bytes of bzip2, which stand for 64 MiB."""
    path = tmp_path / "model.tar.bz2"
    path.write_bytes(bz2.compress(archive({"a.safetensors": bytes(64 << 20)})))
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    try:
        assert refusal(run(path, "--max-bytes", "3MB")) == "MODEL_TOO_LARGE"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_from_https(https: Any, target: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = https("/m.tar", (200, {}, archive()))
    monkeypatch.setenv("MESH_MODEL_AUTHORIZATION", "Bearer hush")
    assert run(https("/moved", (302, {"Location": url}, b"")))[0] == 0
    assert (target / "config.json").exists()
    assert https.asked == [("/moved", "Bearer hush"), ("/m.tar", None)], "shown to the first alone"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}, b""), "NOT_FOUND"),
        ((403, {}, b""), "IDENTITY_NOT_ALLOWED"),
        ((500, {}, b""), "UNREACHABLE"),
        ((302, {"Location": "http://localhost/m.tar"}, b""), "MODEL_UNSAFE"),
        ((200, {"Content-Length": "99999999"}, archive()[:5000]), "MODEL_UNSAFE"),
        ((200, {}, archive({"config.json": b"[]"})), "MODEL_DIGEST_MISMATCH"),
    ],
)
def test_https_that_fails(https: Any, target: Path, run: Run, answer: Answer, reason: str) -> None:
    if "Content-Length" in answer[1]:
        answer[1]["Connection"] = "close"
    assert refusal(run(https("/m.tar", answer))) == reason
    nothing_is_left(target)


def test_https_of_nobody_we_trust(
    https: Any, target: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = https("/m.tar", (200, {}, archive()))
    monkeypatch.delenv("SSL_CERT_FILE")
    assert refusal(run(url)) == "UNREACHABLE"
    assert https.asked == []
    nothing_is_left(target)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A bucket "weights"; what is in it can be changed."""
    objects = {f"llama/v1/{name}": content for name, content in FILES.items()}
    objects |= {"llama/v1/": b"", "llama/v10/other.json": b"", "secret": b"no"}
    with serving(bucket("weights", objects, "AKIATEST")) as address:
        for name, value in {
            "AWS_ENDPOINT": f"http://{address}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": "hushhush",
        }.items():
            monkeypatch.setenv(name, value)
        yield objects


def test_from_an_object_store(s3: dict[str, bytes], target: Path, run: Run, digest: str) -> None:
    code, said = run("s3://weights/llama/v1/")
    assert (code, said.get("files")) == (0, 3), said
    assert computed_digest(target) == digest


def test_an_object_store_that_refuses(
    s3: dict[str, bytes], target: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(run("s3://weights/nothing")) == "NOT_FOUND"
    s3["llama/v1/evil\\name"] = b""
    assert refusal(run("s3://weights/llama/v1")) == "MODEL_UNSAFE"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    code, said = run("s3://weights/llama/v1")
    assert refusal((code, said)) == "IDENTITY_NOT_ALLOWED"
    assert "hush" not in json.dumps(said)
    nothing_is_left(target)


@pytest.mark.parametrize(
    "source",
    [
        "https://user:hush@host/m.tar",
        "s3://AKIA:hush@weights/x",
        "http://host/m.tar",
        "gopher://host/m",
        "s3://",
        "https://",
        "https://[",
    ],
)
def test_sources_that_are_none(run: Run, target: Path, source: str) -> None:
    code, said = run(source)
    assert (code, refusal((code, said))) == (2, "REQUEST_INVALID")
    assert "hush" not in json.dumps(said)
    nothing_is_left(target)


def test_usage(run: Run, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(run(model, digest="sha256:00")) == "REQUEST_INVALID"
    assert refusal(run(model, "--max-bytes", "lots")) == "REQUEST_INVALID"
    assert cli.run(["fetch"]) == 2
    assert capsys.readouterr().err.startswith("mesh-model: ")
    assert refusal(run(model / "config.json")) == "REQUEST_INVALID"
    assert refusal(run(model / "missing")) == "NOT_FOUND"


def command(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "node.models.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.slow
def test_from_a_hub(model: Path, target: Path, digest: str, tmp_path: Path) -> None:
    """As a process: the hub's client reads its settings when it is imported."""
    files = FILES | {".gitattributes": b"x", "pytorch_model.bin": b"x"}
    with serving(hub("org/llama", files, "hf_hush")) as address:
        words = ["fetch", "--to", str(target), "--digest", digest, "--exclude", "*.bin", "-o", "json"]
        settings = {"HF_ENDPOINT": f"http://{address}", "HOME": str(tmp_path / "home")}
        settings |= {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_hush"}
        out, err = command(*words, "--from", "hub:org/llama@main", **settings).communicate(timeout=60)
        assert json.loads(out)["digest"] == digest, err
        assert [path.name for path in target.parent.iterdir()] == ["llama"]
        assert computed_digest(target) == digest
        words[2] = str(target) + "-2"
        for source, changed, reason in (
            ("hub:org/other", {}, "NOT_FOUND"),
            ("hub:org/llama", {"HF_TOKEN": "hf_wrong"}, "NOT_FOUND"),
            ("hub:not/a/name", {}, "REQUEST_INVALID"),
        ):
            _, err = command(*words, "--from", source, **settings | changed).communicate(timeout=60)
            assert json.loads(err.splitlines()[-1])["error"]["reason"] == reason
            assert "hf_" not in err
        assert [path.name for path in target.parent.iterdir()] == ["llama"]
        assert not (tmp_path / "home").exists(), "nor is anything left elsewhere"


@pytest.mark.slow
@pytest.mark.parametrize(("more", "reason"), [(9, "PEER_MISBEHAVED"), (70 << 20, "MODEL_TOO_LARGE")])
def test_a_hub_that_lies_about_sizes(
    target: Path, digest: str, tmp_path: Path, more: int, reason: str
) -> None:
    lies = hub("org/llama", {"config.json": bytes(2 + more)}, "hush", lambda content: 2)
    with serving(lies) as address:
        words = ["fetch", "--to", str(target), "--digest", digest, "-o", "json", "--from", "hub:org/llama"]
        settings = {"HF_ENDPOINT": f"http://{address}", "HOME": str(tmp_path / "home"), "HF_TOKEN": "hush"}
        settings |= {"HF_HUB_OFFLINE": "0"}
        out, err = command(*words, **settings).communicate(timeout=60)
    assert json.loads(err)["error"]["reason"] == reason, out
    nothing_is_left(target)


@pytest.mark.slow
def test_stopped_in_the_middle_it_leaves_nothing(target: Path, digest: str) -> None:
    asked, over = threading.Event(), threading.Event()

    def stall(method: str, path: str, headers: Any) -> Answer:
        asked.set()
        over.wait(60)
        return 500, {}, b""

    with serving(stall) as address:
        settings = {"AWS_ENDPOINT": f"http://{address}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "x"}
        settings |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        words = ["fetch", "--from", "s3://weights/x", "--to", str(target), "--digest", digest]
        process = command(*words, **settings)
        try:
            assert asked.wait(30)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            over.set()
    assert (process.returncode, err) == (130, "mesh-model: CANCELLED: interrupted; nothing is left\n")
    nothing_is_left(target)


def test_a_log_gets_a_line_now_and_then() -> None:
    now, said = [0.0], list[str]()
    lines = progress.Lines(said.append, lambda: now[0])
    lines.total(10 << 20)
    for second in range(25):
        now[0] = float(second)
        lines.wrote(1 << 18)
    lines.verified(5)
    assert said == ["fetched 2.8 MiB of 10.0 MiB", "fetched 5.2 MiB of 10.0 MiB"]
