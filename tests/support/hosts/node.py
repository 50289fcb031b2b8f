"""`mesh-node` for a lab: the real daemon, with a scripted engine that takes its time and a scripted embedder.

    python -m tests.support.hosts.node --config FILE

Everything else is as in production. The engine's pace leaves room to break something in the middle of a
stream.
"""

from __future__ import annotations

import sys
from typing import Any

import mesh  # noqa: F401  (before grpc)
import node.daemon
from node.engine.scripted import Script, ScriptedEngine
from node.index.embedding import ScriptedEmbedder

DIMENSIONS = 64
EMBEDDER = ScriptedEmbedder(DIMENSIONS)
PER_TOKEN_S = 0.02


def main() -> int:
    def make_engine(*_: Any) -> ScriptedEngine:
        return ScriptedEngine(script=Script(per_token_s=PER_TOKEN_S), context_tokens=1_000_000)

    parts: Any = node.daemon
    parts.LocalEmbedder = lambda *_: EMBEDDER
    parts.make_engine = make_engine
    return node.daemon.main()


if __name__ == "__main__":
    sys.exit(main())
