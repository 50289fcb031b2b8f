"""The configuration file of mesh-node: the example holds, and mistakes are named."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.core.errors import MeshError, Reason
from node.config import NodeSettings, load_config
from node.daemon import make_engine
from node.engine.remote import RemoteEngine
from node.engine.shared_cluster import SharedClusterEngine

EXAMPLE = Path(__file__).parents[3] / "examples" / "config" / "mesh-node.yaml"
SMALLEST: dict[str, Any] = {
    "listen": ["127.0.0.1:7443"],
    "state_directory": "state",
    "identity": {"directory": "identity"},
    "board": {"endpoints": ["127.0.0.1:2379"]},
    "engine": {"kind": "scripted"},
}

PINNED = f"sha256:{'0a' * 32}"
RAY = {"replicas": ["replicas.svc:7450"], "ca": "ca.crt", "certificate": "/etc/tls.crt", "key": "tls.key"}


def in_cluster(ray: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "ray_vllm", "model_name": "m", "ray": ray}


def write(folder: Path, settings: Any) -> Path:
    path = folder / "mesh-node.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return path


def with_(**changes: Any) -> dict[str, Any]:
    """The smallest file with settings added or, by dots, replaced: board__user="x"."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SMALLEST))
    for name, value in changes.items():
        group, _, setting = name.rpartition("__")
        (found.setdefault(group, {}) if group else found)[setting] = value
    return found


def test_the_example_holds():
    settings = load_config(EXAMPLE, {})
    assert settings.engine.kind == "ray_vllm"
    assert settings.board.ca is not None
    assert settings.board.ca.is_absolute()


def _settings_of(kind: Any, prefix: str = "") -> set[str]:
    found = set()
    for name, field in kind.model_fields.items():
        annotated = (field.annotation, *typing.get_args(field.annotation))
        inner = [kind for kind in annotated if isinstance(kind, type) and hasattr(kind, "model_fields")]
        if inner:
            found |= _settings_of(inner[0], f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_the_example_comments_every_setting_and_its_default(tmp_path: Path):
    text = EXAMPLE.read_text()
    uncommented = "\n".join(
        line.replace("# ", "", 1) if line.strip().startswith("# ") and _is_setting(line) else line
        for line in text.splitlines()
    )
    found = yaml.safe_load(uncommented)
    assert _named(found) == _settings_of(NodeSettings)
    defaults = NodeSettings.model_validate(SMALLEST)
    for group in ("serving", "status", "log"):
        assert found[group] == getattr(defaults, group).model_dump(), group
    assert found["retrieval"]["budgets"] == defaults.retrieval.budgets.model_dump()


def _named(found: dict[str, Any], prefix: str = "") -> set[str]:
    named = set()
    for name, value in found.items():
        named |= _named(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return named


def _is_setting(line: str) -> bool:
    words = line.strip().removeprefix("# ").split()
    return (
        bool(words)
        and words[0].endswith(":")
        and words[0][:-1].replace("_", "").isalnum()
        and len(words) <= 2
    )


def test_an_engine_in_a_cluster_that_is_there(tmp_path: Path):
    engine = {"kind": "ray_vllm", "model_name": "m", "model_digest": PINNED, "ray": RAY}
    settings = load_config(write(tmp_path, with_(engine=engine)), {}).engine
    assert settings.ray is not None
    assert settings.ray.ca == tmp_path / "ca.crt"
    assert settings.ray.certificate == Path("/etc/tls.crt")
    assert settings.ray.replica_name == "replica.engine.sovereign-mesh.internal"
    made = make_engine(settings, tmp_path)
    assert isinstance(made, SharedClusterEngine)
    assert made.capacity == 16


def test_a_pinned_model_reaches_the_engine(tmp_path: Path):
    engine = {"kind": "ray_vllm", "model": "/srv/m", "model_digest": PINNED}
    made = make_engine(load_config(write(tmp_path, with_(engine=engine)), {}).engine, tmp_path)
    assert isinstance(made, RemoteEngine)
    assert made._spec.model_digest == PINNED


def test_the_smallest_file(tmp_path: Path):
    settings = load_config(write(tmp_path, SMALLEST), {})
    assert settings.state_directory == tmp_path / "state"
    assert settings.identity.directory == tmp_path / "identity"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (with_(colour="red"), "colour: no such setting"),
        (with_(serving__colour="red"), "serving.colour: no such setting"),
        ({k: v for k, v in SMALLEST.items() if k != "listen"}, "listen: missing"),
        (with_(listen=["nowhere"]), "listen.0: expected host:port"),
        (with_(listen=["a:70000"]), "listen.0: expected host:port"),
        (with_(listen=["0.0.0.0:1"]), "advertise is needed"),
        (with_(serving__queue="many"), "serving.queue:"),
        (with_(serving__queue=-1), "serving.queue:"),
        (with_(serving__write_timeout_s=0), "serving.write_timeout_s:"),
        (with_(engine__model="/srv/m"), "engine: model is of no use to the scripted engine"),
        (with_(engine__kind="ray_vllm"), "engine: model is needed"),
        (with_(engine__kind="other"), "engine.kind:"),
        (with_(engine__model_digest="sha256:00"), "engine.model_digest:"),
        (with_(engine__model_digest=PINNED + "\n"), "engine.model_digest:"),
        (with_(engine__model_digest=PINNED), "engine: model_digest is of no use to the scripted engine"),
        (
            with_(engine={"kind": "ray_vllm", "model_name": "m", "ray": {"replicas": ["a:1"]}}),
            "engine.ray.ca",
        ),
        (with_(engine=in_cluster(RAY | {"key": None})), "engine.ray.key"),
        (
            with_(engine={"kind": "ray_vllm", "model_name": "m", "ray": RAY | {"replicas": ["a"]}}),
            "host:port",
        ),
        (with_(engine=in_cluster(RAY | {"replicas": []})), "replicas"),
        (with_(engine={"kind": "ray_vllm", "ray": RAY}), "engine: model_name is needed with ray"),
        (with_(engine={"kind": "scripted", "ray": RAY}), "engine: ray is for ray_vllm"),
        (
            with_(engine={"kind": "ray_vllm", "model_name": "m", "gpus": 1, "model": "/m", "ray": RAY}),
            "engine: with ray, the cluster's application says gpus, model",
        ),
        (with_(identity__renew_at="a:1"), "identity: renew_at and renew_name belong together"),
        (with_(board__certificate="c.pem"), "board: certificate and key belong together"),
        (with_(board__certificate="c.pem", board__key="k"), "board: certificate is of no use without ca"),
        (with_(board__user="u"), "board: user and password belong together"),
        (with_(status__coalesce_s=2.0), "status: coalesce_s cannot be longer"),
        (with_(status__heartbeat_s=4.0), "status: lease_s must be at least twice"),
        (with_(log__level="loud"), "log.level:"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, settings: dict[str, Any], named: str):
    with pytest.raises(MeshError) as caught:
        load_config(write(tmp_path, settings), {})
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert named in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "listen: [\n", "listen: !!python/object:os.system x\n", "a: 1\na: 2\n", "\x00"]
)
def test_what_is_no_settings_file(tmp_path: Path, text: str):
    with pytest.raises(MeshError) as caught:
        load_config(write(tmp_path, text), {})
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(MeshError) as caught:
        load_config(tmp_path / "none.yaml", {})
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_secrets_come_from_the_environment_and_are_never_shown(tmp_path: Path):
    environment = {"SOVEREIGN_MESH_BOARD_PASSWORD": "hunter2"}
    settings = load_config(write(tmp_path, with_(board__user="node")), environment)
    assert settings.board.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)
    with pytest.raises(MeshError) as caught:
        load_config(write(tmp_path, with_(board__pasword="hunter2")), {})
    assert "hunter2" not in caught.value.message


def test_a_group_without_lines_means_its_defaults(tmp_path: Path):
    settings = load_config(write(tmp_path, with_(serving=None)), {})
    assert settings.serving.queue == 64
