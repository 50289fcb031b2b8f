"""mesh-control's settings: strict, and the example is what authority init writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.config import load_config
from control.config_example import example_config
from mesh.core.errors import MeshError, Reason

EXAMPLE = Path(__file__).parents[3] / "examples" / "config" / "mesh-control.yaml"


def load(directory: Path, text: str, **environment: str):
    path = directory / "mesh-control.yaml"
    path.write_text(text)
    return load_config(path, environment)


def test_the_example_is_what_authority_init_writes():
    assert EXAMPLE.read_text() == example_config("de.mesh.example")


def test_the_example_is_valid_and_its_comments_state_the_defaults(tmp_path: Path):
    plain = load(tmp_path, example_config("de.mesh.example"))
    text = example_config("de.mesh.example")
    for line in ("heads:", "  interval_s: 5", "  max_age_s: 60", "certificates:", "  ttl_hours: 24", "log:",
                 "  level: info", "  format: auto", "  per_minute: 60"):  # fmt: skip
        assert f"# {line}" in text.replace("  # per_minute", "#   per_minute"), line
        text = text.replace(f"# {line}", line)
    text = text.replace("  # per_minute: 60", "  per_minute: 60")
    assert load(tmp_path, text) == plain


def test_paths_are_beside_the_file(tmp_path: Path):
    settings = load(tmp_path, example_config("de.mesh.example"))
    assert settings.authority_directory == tmp_path / "ca"
    assert settings.state_directory == tmp_path / "state"


BASE = example_config("de.mesh.example")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (BASE + "colour: blue\n", "colour"),
        (BASE.replace("state_directory: state", ""), "state_directory"),
        (BASE.replace("state_directory: state", "state_directory: ca"), "state_directory"),
        (BASE.replace("name: main", "name: Main"), "name"),
        (BASE.replace("0.0.0.0:7444", "0.0.0.0:7443"), "enrolment.listen"),
        (BASE.replace("127.0.0.1:2379", "etcd"), "board.endpoints"),
        (BASE + "heads: {interval_s: 5, max_age_s: 9}\n", "max_age_s"),
        (BASE + "certificates: {ttl_hours: 48}\n", "certificates.ttl_hours"),
        (BASE + "log: {level: chatty}\n", "log.level"),
        (BASE.replace("board:", "board:\n  certificate: c.pem"), "certificate and key"),
        (BASE + "name: other\n", "twice"),
    ],
)
def test_what_is_unknown_or_contradictory_is_named(tmp_path: Path, text: str, named: str):
    with pytest.raises(MeshError) as error:
        load(tmp_path, text)
    assert error.value.reason is Reason.CONFIG_INVALID
    assert named in error.value.message


def test_a_secret_comes_from_the_environment_and_shows_nowhere(tmp_path: Path):
    text = BASE.replace("board:", "board:\n  user: mesh-control")
    settings = load(tmp_path, text, SOVEREIGN_MESH_BOARD_PASSWORD="s3cret")
    assert settings.board.password.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)
