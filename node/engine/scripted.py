"""An engine whose every token, delay and failure a test decides.

It stands in for the real one wherever the subject is what surrounds an engine: admission, permits,
cancellation, failover, load. Same port, same errors, same contract suite. What it says depends on
its arguments alone: the n-th token of an answer is a function of the prompt and of n, so a stream
that was broken off and resumed elsewhere can be compared with one that was not.

It counts what reaches it (`seen`), which is how a test proves that nothing did (I2).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Model, Task
from node.engine.base import EngineState, FinishReason, Piece, Prompt, Sampling
from node.engine.lifecycle import Lifecycle

EMBEDDING_DIMENSIONS = 384
_SYLLABLES = ("la", "ri", "mo", "ten", "ka", "su", "ne", "vor", "pi", "dal", "ho", "zu", "fe", "gra")


@dataclass(slots=True)
class Script:
    """How the engine behaves. Fields may be changed while it runs; delays are in seconds.

    `fail_after_tokens`: every generation fails with ENGINE_FAILED once it delivered that many.
    `answer_tokens`: where an answer ends by itself (`ignore_eos` goes on).
    `words`: the exact tokens of every answer, instead of derived ones.
    """

    start_s: float = 0.0
    first_token_s: float = 0.0
    per_token_s: float = 0.0
    fail_after_tokens: int | None = None
    answer_tokens: int = 64
    words: tuple[str, ...] = ()


class ScriptedEngine:
    """See the module. Use from one event loop."""

    def __init__(
        self,
        model: str = "scripted",
        *,
        embedding_model: str = "scripted-embedding",
        capacity: int = 16,
        context_tokens: int = 4096,
        script: Script | None = None,
    ) -> None:
        self.script = script or Script()
        self.seen = 0
        """Requests (generations and embeddings) that reached the engine, refused ones included."""
        self.active = 0
        """Generations that hold a place right now."""
        self.waiting = 0
        """Generations that wait for a place."""
        self.cancelled = 0
        """Generations whose consumer left before the end."""
        self.finished = 0
        """Generations that came to their end."""
        self.prompts: deque[Prompt] = deque(maxlen=64)
        """The latest prompts."""
        self._capacity = capacity
        self._places = asyncio.Semaphore(capacity)
        self._life = Lifecycle()
        self._pauses: set[asyncio.Future[None]] = set()
        self._starting: asyncio.TimerHandle | None = None
        self._epoch = 0  # how often it died: a generation of an earlier life must not go on
        self._models = (
            Model(model, _digest(f"model:{model}"), context_tokens, frozenset({Task.GENERATE})),
            Model(embedding_model, _digest(f"model:{embedding_model}"), 512, frozenset({Task.EMBED})),
        )
        self._was_ready = False

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        return self._life.state

    @property
    def models(self) -> tuple[Model, ...]:
        """One for generating and one for embedding; empty until ready once."""
        return self._models if self._was_ready else ()

    @property
    def capacity(self) -> int:
        """How many generations run at once; further ones wait for a place."""
        return self._capacity

    async def start(self) -> None:
        """Becomes ready after `script.start_s`."""
        if self.script.start_s > 0:
            loop = asyncio.get_running_loop()
            self._starting = loop.call_later(self.script.start_s, self.revive)
        else:
            self.revive()

    async def wait_state(self, *states: EngineState) -> EngineState:
        """Waits until the engine is in one of the states."""
        return await self._life.wait(*states)

    def die(self) -> None:
        """Fails every running generation with ENGINE_FAILED and the engine with it."""
        self._epoch += 1
        self._life.move(EngineState.FAILED)
        self._interrupt()

    def revive(self) -> None:
        """Ready, for the first time or again."""
        self._was_ready = True
        self._life.move(EngineState.READY)

    async def aclose(self) -> None:
        """Stops; running generations fail."""
        self._epoch += 1
        if self._starting is not None:
            self._starting.cancel()
        self._life.move(EngineState.STOPPED)
        self._interrupt()

    async def generate(self, model: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Piece]:
        """One piece per token. Errors as in the port."""
        self._admit(model, Task.GENERATE)
        self.prompts.append(prompt)
        epoch = self._epoch
        prompt_tokens = _prompt_tokens(prompt)
        room = self._models[0].context_tokens - prompt_tokens
        if room < 1:
            raise MeshError(
                Reason.PROMPT_TOO_LONG,
                f"the prompt and one token of output must fit into {self._models[0].context_tokens} tokens",
            )
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.active += 1
        done = False
        try:
            key = _answer_key(prompt, sampling)
            limit = min(sampling.max_tokens, room)
            at = _tokens_in(prompt.resume_text, self.script.words)
            held = ""
            for count in range(1, limit + 1):
                await self._pause(self.script.per_token_s if count > 1 else self.script.first_token_s)
                self._check_alive(epoch, count - 1)
                token, over = self._token(key, at, sampling.ignore_eos)
                at += 1
                text, held, stopped = _until_stop(held + token, sampling.stop)
                if stopped or over or count == limit:
                    done = True
                    self.finished += 1
                    finish = FinishReason.STOP if stopped or over else FinishReason.LENGTH
                    yield Piece(text if stopped else text + held, 1, finish, prompt_tokens)
                    return
                yield Piece(text, 1)
        except MeshError:
            done = True
            raise
        finally:
            if not done:
                self.cancelled += 1
            self.active -= 1
            self._places.release()

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """Hashed bags of words: texts that share words have a positive dot product."""
        self._admit(model, Task.EMBED)
        return [_embedding(text) for text in texts]

    def _admit(self, model: str, task: Task) -> None:
        self.seen += 1
        if self.state is not EngineState.READY:
            raise MeshError(Reason.ENGINE_UNAVAILABLE, f"the engine is {self.state}", retry_after_s=1.0)
        if not any(known.name == model and task in known.tasks for known in self._models):
            raise MeshError(Reason.MODEL_UNKNOWN, f"no model of this name can {task.value} here")

    def _check_alive(self, epoch: int, delivered: int) -> None:
        fail_after = self.script.fail_after_tokens
        if epoch != self._epoch or (fail_after is not None and delivered >= fail_after):
            raise MeshError(Reason.ENGINE_FAILED, "the engine died under the request")

    def _token(self, key: bytes, at: int, ignore_eos: bool) -> tuple[str, bool]:
        """The token at this place of the answer, and whether the answer ends with it."""
        words = self.script.words
        over = at + 1 >= (len(words) or self.script.answer_tokens) and not ignore_eos
        return (words[at % len(words)] if words else _word(key, at)), over

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            pause = loop.create_future()
            timer = loop.call_later(seconds, _wake, pause)
            self._pauses.add(pause)
            try:
                await pause
            finally:
                self._pauses.discard(pause)
                timer.cancel()

    def _interrupt(self) -> None:
        for pause in tuple(self._pauses):
            _wake(pause)


def _wake(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _answer_key(prompt: Prompt, sampling: Sampling) -> bytes:
    return hashlib.sha256(f"{sampling.seed}\n{_prompt_text(prompt)}".encode()).digest()


def _prompt_text(prompt: Prompt) -> str:
    if prompt.messages:
        return "\n".join(f"{message.role}: {message.content}" for message in prompt.messages)
    return prompt.text


def _prompt_tokens(prompt: Prompt) -> int:
    """Words stand for tokens here."""
    return len(_prompt_text(prompt).split()) + len(prompt.resume_text.split())


def _tokens_in(resume_text: str, words: tuple[str, ...]) -> int:
    if not words:
        return len(resume_text.split())
    joined, count = "", 0
    while len(joined) < len(resume_text):
        joined += words[count % len(words)] or " "
        count += 1
    return count


def _word(key: bytes, at: int) -> str:
    digest = hashlib.blake2b(at.to_bytes(8, "big"), key=key, digest_size=3).digest()
    return "".join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest) + " "


def _until_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str, bool]:
    """(text that may go out, text held back since a stop string may begin in it, stopped)."""
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    if found:
        return text[: min(found)], "", True
    hold = max(
        (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
        default=0,
    )
    return text[: len(text) - hold], text[len(text) - hold :], False


def _embedding(text: str) -> list[float]:
    vector = [0.0] * EMBEDDING_DIMENSIONS
    for word in text.lower().split() or [""]:
        digest = hashlib.blake2b(word.encode(), digest_size=48).digest()
        for at in range(0, 48, 3):
            index = int.from_bytes(digest[at : at + 2], "big") % EMBEDDING_DIMENSIONS
            vector[index] += 1.0 if digest[at + 2] & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in vector))
    if norm == 0.0:
        vector[0], norm = 1.0, 1.0
    return [value / norm for value in vector]
