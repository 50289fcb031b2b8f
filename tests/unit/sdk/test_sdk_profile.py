"""Profiles: what is read is checked and named; what is written is read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.sdk.profile import ControlPlane, Profile

GOOD = """\
trust_domain: de.mesh.example
control:
  endpoint: 127.0.0.1:7443
nodes:
  fra-1: 127.0.0.1:8443
"""


def load(directory: Path, text: str) -> Profile:
    (directory / "profile.yaml").write_text(text)
    return Profile.load(directory)


def test_a_profile_names_everybody(tmp_path: Path):
    profile = load(tmp_path, GOOD)
    assert str(profile.control_id) == "spiffe://de.mesh.example/control/main"
    assert profile.identity == tmp_path / "identity"
    assert profile.nodes == {"fra-1": "127.0.0.1:8443"}


def test_what_is_written_is_read_back(tmp_path: Path):
    profile = Profile(
        trust_domain="de.mesh.example", control=ControlPlane(endpoint="[::1]:1", enrolment="host.example:2")
    )
    profile.save(tmp_path / "new")
    assert Profile.load(tmp_path / "new").control == profile.control
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + "colour: blue\n", "colour"),
        (GOOD.replace("trust_domain: de.mesh.example\n", ""), "trust_domain"),
        (GOOD.replace("de.mesh.example", "DE.mesh.example"), "trust_domain"),
        (GOOD.replace("127.0.0.1:7443", "nowhere"), "control.endpoint"),
        (GOOD.replace("127.0.0.1:8443", "127.0.0.1:99999"), "nodes"),
        (GOOD.replace("fra-1", "FRA_1"), "nodes"),
        (GOOD + "trust_domain: fr.mesh.example\n", "twice"),
        ("- a\n- b\n", "profile.yaml"),
        ("a: [", "line"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str):
    with pytest.raises(MeshError) as error:
        load(tmp_path, text)
    assert error.value.reason is Reason.CONFIG_INVALID
    assert named in error.value.message


def test_a_missing_profile_says_which_file(tmp_path: Path):
    with pytest.raises(MeshError) as error:
        Profile.load(tmp_path)
    assert "profile.yaml" in error.value.message


def test_without_a_control_plane_asking_for_it_says_so(tmp_path: Path):
    profile = load(tmp_path, "trust_domain: de.mesh.example\n")
    with pytest.raises(MeshError):
        profile.require_control()
