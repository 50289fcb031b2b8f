"""The node process that bench_engine.py measures: mesh-node in front of an engine that is there already.

The bench started the engine's host with the same spec and directory; this gateway adopts it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from mesh.telemetry import logs
from node.config import load_config
from node.daemon import serve
from node.engine.remote import RemoteEngine
from node.engine.spec import EngineSpec


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--engine-directory", type=Path, required=True)
    arguments = parser.parse_args()
    settings = load_config(arguments.config, os.environ)
    logs.configure("warning", "json")
    spec = EngineSpec.from_json(arguments.spec.read_text())
    asyncio.run(serve(settings, RemoteEngine(spec, arguments.engine_directory)))


if __name__ == "__main__":
    main()
