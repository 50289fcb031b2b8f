"""The engine port.

An engine turns a prompt into tokens and texts into embeddings, on this machine and nowhere else. It
knows nothing of callers, policies or permits: whatever reaches it has been permitted already (I2).
scripted.py (for tests of everything around it) and remote.py in front of ray_vllm.py (the real one)
are held to one contract suite, tests/contract/test_engine.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mesh.core.types import Model


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate; already validated and with defaults filled in."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue, or, if `messages` is not empty, a conversation.

    `resume_text` is output that an interrupted stream already delivered: the engine continues right
    after it and does not repeat it.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    resume_text: str = ""


class FinishReason(StrEnum):
    """How a generation ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Piece:
    """New text and how many tokens it stands for. The last piece has `finish` set."""

    text: str
    tokens: int
    finish: FinishReason | None = None
    prompt_tokens: int = 0  # on the last piece


class EngineState(StrEnum):
    """Where an engine is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"  # died; is being replaced
    STOPPED = "stopped"


class Engine(Protocol):
    """What a gateway needs of an engine.

    Errors are MeshError: ENGINE_UNAVAILABLE (not ready), ENGINE_FAILED (died under the request),
    PROMPT_TOO_LONG, MODEL_UNKNOWN.
    """

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        ...

    @property
    def models(self) -> tuple[Model, ...]:
        """What it serves; empty until it was ready once."""
        ...

    @property
    def capacity(self) -> int:
        """How many generations it runs at once."""
        ...

    async def start(self) -> None:
        """Begins to start; returns before it is ready. Watch `wait_state`."""
        ...

    async def wait_state(self, *states: EngineState) -> EngineState:
        """Waits until the engine is in one of the states."""
        ...

    def generate(self, model: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Piece]:
        """Streams pieces. Closing the iterator (aclose, or cancelling its consumer) stops the
        generation and frees what it holds, within 0.5 s."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector per text, in order."""
        ...

    async def aclose(self) -> None:
        """Stops everything that it started."""
        ...
