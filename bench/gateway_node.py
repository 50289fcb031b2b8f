"""The node process that bench_gateway.py measures: mesh-node with a scripted engine at a given pace."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from mesh.telemetry import logs
from node.config import load_config
from node.daemon import serve
from node.engine.scripted import Script, ScriptedEngine


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--per-token-s", type=float, required=True)
    arguments = parser.parse_args()
    settings = load_config(arguments.config, os.environ)
    logs.configure("warning", "json")
    engine = ScriptedEngine(capacity=64, script=Script(per_token_s=arguments.per_token_s))
    asyncio.run(serve(settings, engine))


if __name__ == "__main__":
    main()
