"""Join tokens: one use each, whoever tries, however often, from wherever."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from control.ca.tokens import JoinTokens
from mesh.core.errors import MeshError, Reason

NOW = 1_800_000_000.0


class World:
    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.path = path
        self.tokens = JoinTokens(path, lambda: self.now)

    def refusal(self, token: str) -> str:
        with pytest.raises(MeshError) as caught:
            self.tokens.spend(token)
        assert caught.value.reason is Reason.JOIN_TOKEN_INVALID
        assert token not in str(caught.value) or not token
        return caught.value.message


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "tokens.db")


def test_a_token_is_spent_once(world: World) -> None:
    made = world.tokens.create("fra-1", 600)
    assert (made.node, made.expires_at) == ("fra-1", NOW + 600)
    assert world.tokens.spend(made.token) == "fra-1"
    assert "used already" in world.refusal(made.token)
    again = JoinTokens(world.path, lambda: world.now)  # and after a restart
    with pytest.raises(MeshError, match="used already"):
        again.spend(made.token)


def test_a_token_expires(world: World) -> None:
    made = world.tokens.create("fra-1", 600)
    world.now = NOW + 599.9
    world.tokens.spend(made.token)
    made = world.tokens.create("fra-1", 600)
    world.now += 600
    assert "expired" in world.refusal(made.token)


def test_only_a_hash_is_stored_and_nothing_is_shown(world: World) -> None:
    made = world.tokens.create("fra-1")
    secret = made.token.rsplit(".", 1)[1]
    assert secret not in repr(made)
    stored = b"".join(file.read_bytes() for file in world.path.parent.iterdir())
    assert secret.encode() not in stored
    assert hashlib.sha256(secret.encode()).digest() in stored
    assert world.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token + "\n",
        lambda token: token.upper(),
        lambda token: token.replace("smt1", "smt2"),
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "smt1." + "0" * 16 + token[21:],
        lambda token: "smt1." + "\u0660" * 16 + token[21:],
        lambda token: "x" * 1_000_000,
        lambda token: "smt1.' OR 1=1 --.",
    ],
)
def test_no_other_token_will_do(world: World, change) -> None:
    made = world.tokens.create("fra-1")
    told = world.refusal(change(made.token))
    assert "used" not in told
    assert "expired" not in told
    assert world.tokens.spend(made.token) == "fra-1"


def test_the_wrong_secret_learns_nothing_of_a_spent_token(world: World) -> None:
    made = world.tokens.create("fra-1")
    world.tokens.spend(made.token)
    wrong = made.token[:-2] + ("AA" if made.token[-2:] != "AA" else "BB")
    assert "not known" in world.refusal(wrong)


def test_withdrawn_tokens_are_forgotten(world: World) -> None:
    first, second = world.tokens.create("fra-1"), world.tokens.create("fra-1")
    other = world.tokens.create("fra-2")
    world.tokens.spend(first.token)
    assert world.tokens.withdraw("fra-1") == 1
    assert "not known" in world.refusal(second.token)
    assert world.tokens.spend(other.token) == "fra-2"


@pytest.mark.parametrize(
    ("node", "ttl_s", "reason"),
    [
        ("a/b", 600, Reason.IDENTITY_MALFORMED),
        ("A", 600, Reason.IDENTITY_MALFORMED),
        ("", 600, Reason.IDENTITY_MALFORMED),
        ("fra-1", 59, Reason.REQUEST_INVALID),
        ("fra-1", 86_401, Reason.REQUEST_INVALID),
        ("fra-1", float("nan"), Reason.REQUEST_INVALID),
    ],
)
def test_tokens_that_are_not_made(world: World, node: str, ttl_s: float, reason: Reason) -> None:
    with pytest.raises(MeshError) as caught:
        world.tokens.create(node, ttl_s)
    assert caught.value.reason is reason


def test_open_tokens_are_bounded_and_old_ones_make_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.ca.tokens.MAX_OPEN_TOKENS", 3)
    for number in range(3):
        world.tokens.create(f"n-{number}", 600)
    with pytest.raises(MeshError) as caught:
        world.tokens.create("n-3")
    assert caught.value.reason is Reason.OVERLOADED
    world.now += 600
    world.tokens.create("n-3")


@pytest.mark.slow
def test_one_of_many_threads_gets_it(world: World) -> None:
    made = world.tokens.create("fra-1")

    def attempt(_: int) -> bool:
        try:
            return world.tokens.spend(made.token) == "fra-1"
        except MeshError:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(48))) == 1


@pytest.mark.slow
def test_one_of_many_processes_gets_it(world: World) -> None:
    made = world.tokens.create("fra-1")
    program = (
        "import sys; from control.ca.tokens import JoinTokens\n"
        f"tokens = JoinTokens(sys.argv[1], lambda: {NOW})\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try: print(tokens.spend(sys.argv[2]))\n"
        "except Exception as error: print(error)\n"
    )
    root = Path(__file__).parents[4]
    command = [sys.executable, "-c", program, str(world.path), made.token]
    runs = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for run in runs:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
        for run in runs:
            assert run.stdin is not None
            run.stdin.write("\n")
            run.stdin.flush()
        answers = [run.communicate(timeout=30)[0].strip() for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert answers.count("fra-1") == 1
    assert sum("used already" in answer for answer in answers) == 3


def test_a_store_that_cannot_be_written_gives_nothing_away(tmp_path: Path) -> None:
    world = World(tmp_path / "tokens.db")
    made = world.tokens.create("fra-1")
    world.path.write_bytes(b"this is not a database" * 100)
    for attempt in (lambda: world.tokens.spend(made.token), lambda: world.tokens.create("fra-2")):
        with pytest.raises(MeshError) as caught:
            attempt()
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
