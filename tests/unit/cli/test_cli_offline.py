"""meshctl without a network: founding, bundles, policy tables; one line on stderr and the right exit code."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from control.cli.main import run
from control.config import load_config
from mesh.identity.ca import CertificateAuthority
from mesh.identity.source import SvidSource
from mesh.sdk.profile import Profile

POLICIES = Path(__file__).parents[3] / "examples" / "policies"


class Shell:
    """Runs meshctl in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *arguments: object) -> dict[str, Any]:
        code, out, err = self(*arguments, "--output", "json")
        assert (code, err) == (0, "")
        assert out.count("\n") == 1
        return dict(json.loads(out))

    def refused(self, code: int, *arguments: object) -> dict[str, Any]:
        """Fails with this code, as text and as JSON, saying so in exactly one line on stderr."""
        found, _, err = self(*arguments)
        assert (found, err.count("\n")) == (code, 1), err
        assert err.startswith("meshctl: ")
        found, _, err = self(*arguments, "--output", "json")
        assert (found, err.count("\n")) == (code, 1), err
        error = json.loads(err)["error"]
        assert error["exit_code"] == code
        return dict(error)


@pytest.fixture
def meshctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MESHCTL_PROFILE", raising=False)
    return Shell(capsys)


@pytest.fixture
def founded(tmp_path: Path, meshctl: Shell) -> Path:
    meshctl.json("authority", "init", tmp_path / "de", "--trust-domain", "de.mesh.example")
    return tmp_path / "de"


def test_founding_makes_all_that_is_needed(founded: Path):
    assert CertificateAuthority.load(founded / "ca").trust_domain == "de.mesh.example"
    settings = load_config(founded / "mesh-control.yaml", {})
    assert settings.authority_directory == founded / "ca"
    profile = Profile.load(founded / "admin")
    source = SvidSource.load(profile.identity, clock=lambda: 0.0, random=lambda: 0.5)
    assert str(source.id) == "spiffe://de.mesh.example/admin/admin"
    private = [p for p in founded.rglob("*.key")]
    assert private
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in private)
    assert stat.S_IMODE((founded / "ca").stat().st_mode) == 0o700


def test_an_authority_is_never_overwritten(founded: Path, meshctl: Shell):
    before = (founded / "ca" / "root.pem").read_bytes()
    error = meshctl.refused(1, "authority", "init", founded, "--trust-domain", "de.mesh.example")
    assert error["reason"] == "CONFIG_INVALID"
    assert (founded / "ca" / "root.pem").read_bytes() == before


@pytest.mark.parametrize("trust_domain", ["xx.mesh.example", "mesh.example"])
def test_an_authority_is_of_a_country(tmp_path: Path, meshctl: Shell, trust_domain: str):
    error = meshctl.refused(2, "authority", "init", tmp_path / "new", "--trust-domain", trust_domain)
    assert error["reason"] == "COUNTRY_UNKNOWN"
    assert not (tmp_path / "new").exists()


def test_a_root_that_exists_is_adopted(founded: Path, tmp_path: Path, meshctl: Shell):
    """Here: that of another directory of the same authority, which is what a root in a Secret is."""
    root = ("--ca-certificate", founded / "ca" / "root.pem", "--ca-key", founded / "ca" / "root.key")
    meshctl.json("authority", "adopt", tmp_path / "again", "--trust-domain", "de.mesh.example", *root)
    again = tmp_path / "again"
    assert (again / "bundle.json").read_bytes() == (founded / "bundle.json").read_bytes()
    assert Profile.load(again / "admin").trust_domain == "de.mesh.example"
    assert load_config(again / "mesh-control.yaml", {}).authority_directory == again / "ca"

    other = ("authority", "adopt", tmp_path / "fr", "--trust-domain", "fr.mesh.example", *root)
    assert meshctl.refused(1, *other)["reason"] == "BUNDLE_INVALID"
    assert not (tmp_path / "fr").exists()


def test_further_administrators_are_named_offline(founded: Path, tmp_path: Path, meshctl: Shell):
    made = meshctl.json("authority", "admin", founded, "second", "--out", tmp_path / "second")
    assert made["spiffe_id"] == "spiffe://de.mesh.example/admin/second"
    assert Profile.load(tmp_path / "second").trust_domain == "de.mesh.example"
    meshctl.refused(1, "authority", "admin", founded, "second", "--out", tmp_path / "second")


def test_the_bundle_is_the_same_from_the_authority_and_from_a_profile(
    founded: Path, tmp_path: Path, meshctl: Shell
):
    one = meshctl.json("trust", "export", tmp_path / "1.json", "--authority", founded)
    two = meshctl.json("trust", "export", tmp_path / "2.json", "--profile", founded / "admin")
    assert one["fingerprints"] == two["fingerprints"]
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert (founded / "bundle.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    listed = meshctl.json("trust", "list", "--profile", founded / "admin")
    assert [b["trust_domain"] for b in listed["bundles"]] == ["de.mesh.example"]


def test_a_bundle_with_another_fingerprint_is_not_imported(founded: Path, meshctl: Shell):
    error = meshctl.refused(
        1,
        "trust",
        "import",
        founded / "bundle.json",
        "--fingerprint",
        "sha256:00",
        "--profile",
        founded / "admin",
    )
    assert error["reason"] == "BUNDLE_INVALID"


@pytest.mark.parametrize("country", ["de", "fr", "us"])
def test_the_example_policies_say_what_their_tables_expect(meshctl: Shell, country: str):
    files = ("--policies", POLICIES / f"{country}.cedar", "--expect", POLICIES / f"{country}.expect.yaml")
    found = meshctl.json("policy", "test", *files)
    assert found["failed"] == 0
    assert found["passed"] == len(found["cases"]) > 5


def test_an_expectation_that_does_not_hold_is_told(tmp_path: Path, meshctl: Shell):
    table = (POLICIES / "de.expect.yaml").read_text().replace("expect: permit", "expect: deny", 1)
    (tmp_path / "table.yaml").write_text(table)
    code, out, err = meshctl(
        "policy", "test", "--policies", POLICIES / "de.cedar", "--expect", tmp_path / "table.yaml"
    )
    assert code == 1
    assert "fails" in out
    assert err.count("\n") == 1
    assert "a clinic at home" in err


@pytest.mark.parametrize(
    ("cedar", "named"),
    [("permit(principal, action, resource);", "@id"), ('@id("x")\npermit(principal', "line 1")],
)
def test_a_policy_that_does_not_parse_is_named(tmp_path: Path, meshctl: Shell, cedar: str, named: str):
    (tmp_path / "bad.cedar").write_text(cedar)
    error = meshctl.refused(
        1, "policy", "test", "--policies", tmp_path / "bad.cedar", "--expect", POLICIES / "de.expect.yaml"
    )
    assert error["reason"] == "POLICY_MALFORMED"
    assert named in error["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly",),
        ("node",),
        ("place",),
        ("place", "--class", "public"),
        ("status",),
        ("chat", "hello", "--class", "public", "--purpose", "x", "--model", "m", "--max-tokens", "0"),
        ("chat", "hello", "--class", "public", "--purpose", "x", "--model", "m", "--temperature", "x"),
        ("place", "--class", "secret", "--purpose", "x"),
        ("place", "--class", "public", "--purpose", "UPPER"),
        ("place", "--class", "public", "--purpose", "x", "--jurisdiction", "de"),
        ("place", "--class", "public", "--purpose", "x", "--jurisdiction", "XX"),
        ("node", "token", "fra-1", "--location", "de", "--operator", "DE", "--controller", "DE",
         "--admin-access", "DE"),
        ("status", "--output", "xml"),
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2_and_one_line(meshctl: Shell, arguments: tuple[str, ...]):
    code, out, err = meshctl(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err


def test_usage_errors_are_json_too(meshctl: Shell):
    code, _, err = meshctl("fly", "--output=json")
    assert code == 2
    assert json.loads(err)["error"]["reason"] == "USAGE"


def test_nobody_there_is_exit_code_1(founded: Path, meshctl: Shell):
    config = (founded / "admin" / "profile.yaml").read_text()
    (founded / "admin" / "profile.yaml").write_text(config.replace("7443", "1"))
    assert meshctl.refused(1, "status", "--profile", founded / "admin")["reason"] == "UNREACHABLE"


def test_a_missing_or_broken_profile_is_named(founded: Path, tmp_path: Path, meshctl: Shell):
    assert "profile.yaml" in meshctl.refused(1, "status", "--profile", tmp_path / "none")["message"]
    (founded / "admin" / "profile.yaml").write_text("colour: blue\n")
    assert "colour" in meshctl.refused(1, "status", "--profile", founded / "admin")["message"]


def test_a_key_that_others_may_read_is_refused(founded: Path, meshctl: Shell):
    (founded / "admin" / "identity" / "svid.key").chmod(0o644)
    assert "svid.key" in meshctl.refused(1, "status", "--profile", founded / "admin")["message"]


def test_enrolling_does_not_overwrite(founded: Path, meshctl: Shell):
    error = meshctl.refused(
        1, "node", "enroll", "--token", "x", "--control", "127.0.0.1:1", "--trust-bundle",
        founded / "bundle.json", "--out", founded / "admin" / "identity",
    )  # fmt: skip
    assert "not overwritten" in error["message"]


def test_help_is_there_for_every_command(meshctl: Shell):
    from control.cli.main import app

    groups = {group.name for group in app.registered_groups}
    commands = {command.name for command in app.registered_commands}
    for name in sorted(x for x in groups | commands if x):
        code, out, _ = meshctl(name, "--help")
        assert code == 0, name
        assert "Usage: meshctl" in out
