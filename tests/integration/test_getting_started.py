"""The walkthrough of docs/getting-started.md, run as it stands: every line, every daemon a process.

Only three things differ: the engine is the scripted one, ports are free ones, and the folder is a
temporary one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mesh.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
WALKTHROUGH = ROOT / "docs" / "getting-started.md"
PORTS = ("2379", "7443", "7444", "7445", "7543", "7544", "7545")


def script(folder: Path) -> str:
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", WALKTHROUGH.read_text(), re.M | re.S))

    def put(old: str, new: str) -> None:
        nonlocal text
        assert old in text, f"the walkthrough no longer says {old!r}: adapt this test"
        text = text.replace(old, new)

    put("make setup\nsource .venv/bin/activate\n", "")
    put("python -m node.engine.tiny_model .state/models/tiny\n", "")
    put("kind: ray_vllm\n  model: $PWD/.state/models/tiny\n", "kind: scripted\n  model_name: tiny\n")
    put(".state/hand", str(folder))
    # What the walkthrough leaves at its default, said, so that it can be replaced below.
    control, board = "--control 127.0.0.1:7443 --enrolment 127.0.0.1:7444", "--board 127.0.0.1:2379"
    put("--trust-domain de.mesh.example", f"--trust-domain de.mesh.example {control} {board}")
    put("--trust-domain fr.mesh.example", f"--trust-domain fr.mesh.example {board}")
    peer, *ports = free_ports(len(PORTS) + 1)
    for old, new in zip(PORTS, ports, strict=True):
        put(f":{old}", f":{new}")
    # etcd's own members talk on a port that the walkthrough leaves at its default.
    put("--advertise-client-urls", f"--listen-peer-urls http://127.0.0.1:{peer} --advertise-client-urls")
    return text


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_line_of_the_walkthrough_works(tmp_path: Path) -> None:
    """I1 to I4 as a newcomer meets them: placed, served, narrowed and refused, withdrawn, revoked."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script(tmp_path / "hand")],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(200, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        said, _ = process.communicate()
    finally:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # daemons, too, if it stopped half way
    assert process.returncode == 0, said[-4000:]
    assert said.count("exit code 3") == 2, said[-4000:]
    assert re.search(r"\b(\d\d+) of \1 hold", said)
    assert re.search(r"par-1 \(fr\) +FR +permitted", said)
    assert "de-withdraws-france" in said
    assert "refused, and kept" in said
    assert "The receipt holds. It proves:" in said
    assert "spiffe://de.mesh.example/node/fra-1 " in said
    assert not (tmp_path / "hand").exists()
