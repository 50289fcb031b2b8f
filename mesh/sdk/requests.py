"""What a caller asks for, as values that are checked before anything is placed.

Bounds are those of protos/sovereign/mesh/v1/inference.proto; REQUEST_INVALID and REQUEST_TOO_LARGE
say which one. The wire form is made here too, once a permit is at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.types import RequestContext
from sovereign.mesh.v1 import inference_pb2

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 256
MAX_TEXTS = 256
MAX_NEW_TOKENS = 8192
# Below the 1 MiB of a whole request, so that a permit and the text to resume after still fit.
MAX_PAYLOAD_BYTES = 768 * 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. `temperature` 0 is greedy; `max_tokens` 1 to 8,192."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= MAX_NEW_TOKENS:
            raise MeshError(Reason.REQUEST_INVALID, f"max_tokens: expected 1 to {MAX_NEW_TOKENS}")
        if not 0 <= self.temperature <= 2:
            raise MeshError(Reason.REQUEST_INVALID, "temperature: expected 0 to 2")
        if not 0 < self.top_p <= 1:
            raise MeshError(Reason.REQUEST_INVALID, "top_p: expected over 0 and at most 1")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise MeshError(Reason.REQUEST_INVALID, "seed: expected 0 to 2^64 - 1")
        if len(self.stop) > 8 or any(not 0 < len(s.encode()) <= 64 for s in self.stop):
            raise MeshError(Reason.REQUEST_INVALID, "stop: expected at most 8 texts of 1 to 64 bytes")

    def to_pb(self, max_tokens: int) -> inference_pb2.Sampling:
        """The wire form, with what is left of `max_tokens`."""
        return inference_pb2.Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stop,
            ignore_eos=self.ignore_eos,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: role "system", "user" or "assistant"."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise MeshError(Reason.REQUEST_INVALID, "role: expected one of " + ", ".join(ROLES))


def messages_of(messages: Iterable[Message | Mapping[str, str]] | str) -> tuple[Message, ...]:
    """Messages from a single user text, from {"role", "content"} mappings or from Message values."""
    if isinstance(messages, str):
        messages = [Message("user", messages)]
    found = []
    for message in messages:
        if not isinstance(message, Message):
            if set(message) != {"role", "content"}:
                raise MeshError(Reason.REQUEST_INVALID, "message: expected role and content")
            message = Message(message["role"], message["content"])
        found.append(message)
    if not 1 <= len(found) <= MAX_MESSAGES:
        raise MeshError(Reason.REQUEST_INVALID, f"messages: expected 1 to {MAX_MESSAGES}")
    check_size(m.content for m in found)
    return tuple(found)


def texts_of(texts: Sequence[str] | str) -> tuple[str, ...]:
    """Texts to embed."""
    found = (texts,) if isinstance(texts, str) else tuple(texts)
    if not 1 <= len(found) <= MAX_TEXTS:
        raise MeshError(Reason.REQUEST_INVALID, f"texts: expected 1 to {MAX_TEXTS}")
    check_size(found)
    return found


def check_size(texts: Iterable[str]) -> None:
    """Raises REQUEST_TOO_LARGE if the texts do not fit into one request."""
    if sum(len(text.encode()) for text in texts) > MAX_PAYLOAD_BYTES:
        raise MeshError(Reason.REQUEST_TOO_LARGE, f"expected at most {MAX_PAYLOAD_BYTES} bytes of text")


@dataclass(frozen=True, slots=True)
class Generation:
    """A conversation (`messages`) or a text (`prompt`) to continue."""

    model: str
    context: RequestContext
    sampling: Sampling
    messages: tuple[Message, ...] = ()
    prompt: str = ""

    def to_pb(
        self, permit: bytes, max_tokens: int, resume_text: str
    ) -> inference_pb2.ChatRequest | inference_pb2.CompleteRequest:
        """The wire form for one node."""
        admission = admission_to_pb(permit, self.context)
        sampling = self.sampling.to_pb(max_tokens)
        if not self.messages:
            return inference_pb2.CompleteRequest(
                admission=admission,
                model=self.model,
                prompt=self.prompt,
                sampling=sampling,
                resume_text=resume_text,
            )
        return inference_pb2.ChatRequest(
            admission=admission,
            model=self.model,
            messages=[inference_pb2.ChatMessage(role=m.role, content=m.content) for m in self.messages],
            sampling=sampling,
            resume_text=resume_text,
        )


def admission_to_pb(permit: bytes, context: RequestContext) -> inference_pb2.Admission:
    """What every payload travels with."""
    return inference_pb2.Admission(
        permit=codec.envelope_from_bytes(permit), context=codec.context_to_pb(context)
    )
