"""node-backup.sh and node-restore.sh on a real log and made-up files: what they keep and refuse."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mesh.core.types import SpiffeId
from mesh.evidence import open_log
from mesh.evidence.offline import read_entries
from tests.support.backups import SCRIPTS, needs_tools, run_script, shadow

pytestmark = [pytest.mark.slow, needs_tools]

NODE = SpiffeId("de.mesh.example", "/node/fra-1")


class Machine:
    """A node's directories and where its backups go."""

    def __init__(self, folder: Path) -> None:
        self.state, self.identity, self.backups = folder / "state", folder / "identity", folder / "backups"
        self.folder = folder

    async def record(self, count: int, node: SpiffeId = NODE) -> None:
        """Opens the log as the daemon does, writes so many entries, signs for them, ends."""
        log = open_log(self.state, node)
        for number in range(count):
            await log.record({"kind": "serve", "id": f"{number}", "at": time.time()})
        await log.aclose()

    def fill(self) -> None:
        write(
            self.state,
            {
                "board/records.json": "generations",
                "retrieval/indexes/secret": "s" * 32,
                "retrieval/indexes/handbook/made": "",
                "retrieval/indexes/handbook/index.db": "documents",
                "retrieval/budgets.sqlite": "taken today",
                "retrieval/embedder/model.onnx": "made again",
                "retrieval/inbox/half.pdf": "on its way",
                "engine/cache": "made again",
            },
        )
        (self.state / "retrieval/indexes/handbook/shard-1").mkdir()
        write(self.identity, {"svid.key": "the key", "svid.pem": "the certificate", "bundles/de.json": "{}"})

    def backup(self, **settings: object) -> Path:
        return run_script(
            "node-backup.sh", **self.environment(BACKUP_DIRECTORY=self.backups, **settings)
        ).path

    def environment(self, **more: object) -> dict[str, object]:
        return {"STATE_DIRECTORY": self.state, "IDENTITY_DIRECTORY": self.identity, **more}

    def restore(self, archive: Path, evidence: str = "", **settings: object) -> object:
        if evidence:
            settings["RESTORE_EVIDENCE"] = evidence
        return run_script("node-restore.sh", archive, **self.environment(**settings))

    def lose(self) -> None:
        shutil.rmtree(self.state)
        shutil.rmtree(self.identity)

    @property
    def entries(self) -> int:
        return len(list(read_entries(self.state / "evidence/decisions")))


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


def tree(folder: Path, *left_out: str) -> dict[str, str]:
    """Every file by its SHA-256, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(left_out or ("\0",)):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def repack(archive: Path, change: Mapping[str, bytes | None]) -> None:
    """The archive with files replaced, added or (None) left out, and its sum made right again."""
    with tarfile.open(archive) as old:
        members = [(m, old.extractfile(m).read() if m.isfile() else b"") for m in old]  # type: ignore[union-attr]
    names = {member.name for member, _ in members}
    with tarfile.open(archive, "w") as new:
        for member, data in members:
            found = change.get(member.name, data)
            if found is not None:
                member.size = len(found)
                new.addfile(member, io.BytesIO(found))
        for name in change.keys() - names:
            extra = tarfile.TarInfo(name)
            extra.size = len(change[name] or b"")
            new.addfile(extra, io.BytesIO(change[name] or b""))
    archive.with_name(archive.name + ".sha256").write_text(hashlib.sha256(archive.read_bytes()).hexdigest())


@pytest.fixture
async def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    await made.record(3)
    made.fill()
    return made


async def test_what_was_lost_comes_back_whole_and_for_its_owner_alone(machine: Machine):
    before, identity = (
        tree(machine.state, "engine", "retrieval/embedder", "retrieval/inbox"),
        tree(machine.identity),
    )
    archive = machine.backup()
    assert archive.name.startswith("de.mesh.example_node_fra-1-")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert machine.backups.stat().st_mode & 0o777 == 0o700
    machine.lose()
    ran = machine.restore(archive, "continue")
    assert (ran.code, ran.err) == (0, "")
    assert tree(machine.state) == before
    assert tree(machine.identity) == identity
    modes = {
        path.stat().st_mode & 0o077
        for path in machine.folder.rglob("*")
        if machine.backups not in path.parents
    }
    assert modes == {0}
    assert not list(machine.folder.glob(".restoring.*"))
    await machine.record(1)  # the daemon opens the log and goes on
    assert machine.entries == 4


async def test_a_lost_log_is_continued_only_if_somebody_says_that_it_has_not_grown(machine: Machine):
    archive = machine.backup()
    machine.lose()
    machine.restore(archive).refused("RESTORE_EVIDENCE", "continue", "aside")
    assert not machine.state.exists()
    assert machine.restore(archive, "aside").code == 0
    (aside,) = machine.state.glob("evidence-until-*")
    assert len(list(read_entries(aside / "decisions"))) == 3
    key = (aside / "decisions.key").read_bytes()
    await machine.record(1)
    assert machine.entries == 1
    assert (machine.state / "evidence/decisions.key").read_bytes() != key, "a new log has a key of its own"


async def test_a_log_that_has_signed_for_more_is_not_replaced(machine: Machine):
    archive = machine.backup()
    await machine.record(2)
    write(machine.state, {"retrieval/indexes/handbook/index.db": "damaged", "board/records.json": "later"})
    before = tree(machine.state)
    for evidence in ("", "continue"):
        machine.restore(archive, evidence).refused(
            "signed for 5 entries, the backup's for 3", "second history"
        )
    assert tree(machine.state) == before
    # what is needed then: the documents of the backup, and everything that moves on as it is
    assert machine.restore(archive, "keep").code == 0
    assert machine.entries == 5
    assert (machine.state / "retrieval/indexes/handbook/index.db").read_text() == "documents"
    assert (machine.state / "board/records.json").read_text() == "later"
    (aside,) = machine.folder.glob("state.before-*")
    assert tree(aside) == before


async def test_with_its_own_log_still_there_nothing_has_to_be_said(machine: Machine):
    archive = machine.backup()
    shutil.rmtree(machine.state / "retrieval")
    write(machine.identity, {"svid.key": "renewed since"})
    assert machine.restore(archive).code == 0
    assert machine.entries == 3
    assert (machine.state / "retrieval/indexes/secret").exists()
    assert (machine.identity / "svid.key").read_text() == "renewed since"


async def test_two_logs_of_one_name_are_told_apart(machine: Machine):
    archive = machine.backup()
    shutil.rmtree(machine.state / "evidence")
    await machine.record(3)
    machine.restore(archive).refused("different entries", "second history")
    shutil.rmtree(machine.state / "evidence")
    await machine.record(1, SpiffeId("de.mesh.example", "/node/fra-2"))
    machine.restore(archive, "continue").refused(
        "is of de.mesh.example/node/fra-1", "of de.mesh.example/node/fra-2"
    )


async def test_a_daemon_that_runs_is_refused_and_one_cannot_start_meanwhile(machine: Machine):
    archive = machine.backup()
    log = open_log(machine.state, NODE)
    for name, arguments in (("node-backup.sh", ()), ("node-restore.sh", (archive,))):
        ran = run_script(name, *arguments, **machine.environment(BACKUP_DIRECTORY=machine.backups))
        ran.refused("a daemon has", "open")
    await log.aclose()
    # while the backup reads, a daemon finds the log locked
    opening = (
        f"{sys.executable} -c 'import sys; from pathlib import Path; from mesh.core.types import SpiffeId; "
        f'from mesh.evidence import open_log; open_log(Path("{machine.state}"), SpiffeId.parse("{NODE}"))\' '
        f'2>{machine.folder}/said; {{real}} "$@"'
    )
    busy = shadow(machine.folder / "bin", "tar", opening)
    ran = run_script(
        "node-backup.sh", path=busy, PYTHONPATH=Path(__file__).parents[2],
        **machine.environment(BACKUP_DIRECTORY=machine.folder / "others"),
    )  # fmt: skip
    assert ran.path.exists()
    assert "another process has this log open" in (machine.folder / "said").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"./retrieval/indexes/handbook/index.db": b"other documents"}, "was altered"),
        ({"./retrieval/indexes/secret": None}, "was altered"),
        ({"./retrieval/indexes/more.db": b"smuggled in"}, "was altered"),
        ({"./MANIFEST.sha256": b"nonsense\n"}, "was altered"),
        ({"./MANIFEST.sha256": None}, "has no MANIFEST.sha256"),
        ({"./BACKUP": b"format 2\n"}, "format"),
        ({"../outside": b"x"}, "lead out of it"),
        ({"./a/../../outside": b"x"}, "lead out of it"),
        ({"/tmp/outside": b"x"}, "lead out of it"),
    ],
)
async def test_an_altered_archive_is_refused_and_leaves_what_was_there(
    machine: Machine, change: dict[str, bytes | None], said: str
):
    archive = machine.backup()
    before = tree(machine.state)
    repack(archive, change)
    machine.restore(archive, "continue").refused(said)
    assert tree(machine.state) == before
    assert not (machine.folder / "outside").exists()
    assert not list(machine.folder.glob(".restoring.*"))


async def test_an_archive_is_held_against_a_sum_from_elsewhere(machine: Machine):
    archive = machine.backup()
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    files = {"./retrieval/indexes/handbook/index.db": b"other", "./MANIFEST.sha256": b""}
    repack(archive, files)
    machine.restore(archive, "keep", RESTORE_SHA256=right).refused("SHA-256 differs")
    archive.with_name(archive.name + ".sha256").write_text(right)
    machine.restore(archive, "keep").refused("SHA-256 differs")


async def test_a_link_in_an_archive_is_refused(machine: Machine):
    archive = machine.backup()
    with tarfile.open(archive, "a") as opened:
        link = tarfile.TarInfo("./retrieval/indexes/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    repack_sum = hashlib.sha256(archive.read_bytes()).hexdigest()
    machine.restore(archive, "keep", RESTORE_SHA256=repack_sum).refused(
        "something else than files and folders"
    )


@pytest.mark.parametrize(
    ("program", "script"),
    [
        ("sha256sum", 'case "$*" in *-c*) kill -9 $PPID ;; esac; {real} "$@"'),  # while it verifies
        ("sync", "kill -9 $PPID"),  # everything is ready
        ("mv", 'case "$1" in */new) exit 1 ;; esac; {real} "$@"'),  # the second of the two renames fails
        ("tar", 'case "$1" in -xf) exit 1 ;; esac; {real} "$@"'),  # the disk is full
    ],
)
async def test_an_interrupted_restore_leaves_what_was_there(machine: Machine, program: str, script: str):
    archive = machine.backup()
    await machine.record(1)
    before = tree(machine.state)
    broken = shadow(machine.folder / "bin", program, script)
    ran = run_script("node-restore.sh", archive, path=broken, **machine.environment(RESTORE_EVIDENCE="keep"))
    assert ran.code != 0
    assert tree(machine.state) == before
    assert machine.restore(archive, "keep").code == 0


async def test_an_interrupted_backup_leaves_no_archive(machine: Machine):
    broken = shadow(machine.folder / "bin", "sync", "kill -9 $PPID")
    environment = machine.environment(BACKUP_DIRECTORY=machine.backups)
    assert run_script("node-backup.sh", path=broken, **environment).code != 0
    assert not list(machine.backups.glob("*.tar"))


async def test_an_identity_with_links_is_refused_before_it_is_needed(machine: Machine):
    (machine.identity / "svid.key").rename(machine.identity / "1.key")
    (machine.identity / "svid.key").symlink_to("1.key")
    environment = machine.environment(BACKUP_DIRECTORY=machine.backups)
    run_script("node-backup.sh", **environment).refused("something else than files")
    assert list(machine.backups.iterdir()) == []


async def test_only_the_newest_few_are_kept(machine: Machine):
    """Of this log, and none of another's whose name begins with this one's."""
    machine.backups.mkdir()
    others = [machine.backups / f"de.mesh.example_node_fra-1-{each}-20250101T000000Z.tar" for each in "abc"]
    for other in others:
        other.write_bytes(b"")
    made = []
    for number in range(4):
        clock = shadow(machine.folder / "bin", "date", f"echo 2026010{number}T000000Z")
        environment = machine.environment(BACKUP_DIRECTORY=machine.backups, BACKUP_KEEP=2)
        made.append(run_script("node-backup.sh", path=clock, **environment).path)
    assert made[0].name.startswith("de.mesh.example_node_fra-1-2026"), "as the others' names do"
    kept = [path for each in made[2:] for path in (each, each.with_name(each.name + ".sha256"))]
    assert sorted(machine.backups.iterdir()) == sorted([*kept, *others])


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("node-backup.sh", {"BACKUP_DIRECTORY": "/nowhere"}, "STATE_DIRECTORY"),
        ("node-backup.sh", {"STATE_DIRECTORY": "/tmp", "BACKUP_DIRECTORY": "x"}, "evidence/decisions"),
        (
            "node-backup.sh",
            {"STATE_DIRECTORY": "/tmp", "BACKUP_DIRECTORY": "x", "BACKUP_KEEP": "0"},
            "BACKUP_KEEP",
        ),
        ("node-restore.sh", {"STATE_DIRECTORY": "/tmp"}, "expected one backup"),
        ("etcd-backup.sh", {}, "BACKUP_DIRECTORY"),
        ("etcd-backup.sh", {"BACKUP_DIRECTORY": "x", "ETCDCTL": "no-such-program"}, "no-such-program"),
        ("etcd-restore.sh", {}, "expected one snapshot"),
    ],
)
def test_what_is_missing_is_said_in_one_line(name: str, settings: dict[str, str], said: str):
    ran = run_script(name, **settings)
    assert ran.code != 0
    assert ran.err.count("\n") == 1
    assert said in ran.err


def test_shellcheck_finds_nothing():
    root = Path(__file__).parents[2]
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(program).exists():
        pytest.skip("needs shellcheck (requirements/dev.lock)")
    scripts = sorted(map(str, SCRIPTS.glob("*.sh")))
    assert len(scripts) == 4
    chart = sorted(map(str, (root / "helm/sovereign-mesh/files/scripts").glob("*.sh")))
    tools = sorted(map(str, (root / "tools").glob("*.sh")))
    assert len(chart) >= 10
    assert len(tools) >= 5
    # The chart's source admin.sh from their own folder.
    command = [program, "--external-sources", "--source-path=SCRIPTDIR", *scripts, *chart, *tools]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
