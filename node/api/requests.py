"""Inference requests as the engine takes them, within the limits that inference.proto states.

The one place of the node that reads payloads, and only to pass them on: nothing here logs, keeps or
quotes them (I1). REQUEST_INVALID and REQUEST_TOO_LARGE say which limit was passed, not by what.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action
from mesh.sdk.requests import MAX_MESSAGES, MAX_NEW_TOKENS, MAX_TEXTS, ROLES
from node.engine.base import Message, Prompt, Sampling
from sovereign.mesh.v1 import inference_pb2

MAX_REQUEST_BYTES = 1024 * 1024
MAX_MODEL_BYTES = 128
MAX_STOPS = 8
MAX_STOP_BYTES = 64
DEFAULT_MAX_TOKENS = 256

AnyRequest = inference_pb2.ChatRequest | inference_pb2.CompleteRequest | inference_pb2.EmbedRequest


@dataclass(frozen=True, slots=True)
class Generation:
    """What a Chat or Complete request asks of the engine."""

    prompt: Prompt
    sampling: Sampling


def action_of(request: AnyRequest) -> Action:
    """What kind of flow the request is."""
    return Action.EMBED if isinstance(request, inference_pb2.EmbedRequest) else Action.INFER


def check_size(request: AnyRequest) -> None:
    """The bounds of any request."""
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise MeshError(
            Reason.REQUEST_TOO_LARGE, f"a request has at most {MAX_REQUEST_BYTES} bytes as a whole"
        )
    if len(request.model.encode()) > MAX_MODEL_BYTES:
        raise MeshError(Reason.REQUEST_INVALID, f"model: expected at most {MAX_MODEL_BYTES} bytes")


def read_chat(request: inference_pb2.ChatRequest) -> Generation:
    """A conversation to continue."""
    if not 1 <= len(request.messages) <= MAX_MESSAGES:
        raise MeshError(Reason.REQUEST_INVALID, f"messages: expected 1 to {MAX_MESSAGES}")
    if any(message.role not in ROLES for message in request.messages):
        raise MeshError(Reason.REQUEST_INVALID, f"role: expected one of {', '.join(ROLES)}")
    messages = tuple(Message(message.role, message.content) for message in request.messages)
    return Generation(
        Prompt(messages=messages, resume_text=request.resume_text), _read_sampling(request.sampling)
    )


def read_complete(request: inference_pb2.CompleteRequest) -> Generation:
    """A text to continue."""
    return Generation(
        Prompt(text=request.prompt, resume_text=request.resume_text), _read_sampling(request.sampling)
    )


def read_embed(request: inference_pb2.EmbedRequest) -> tuple[str, ...]:
    """Texts to embed."""
    if not 1 <= len(request.texts) <= MAX_TEXTS:
        raise MeshError(Reason.REQUEST_INVALID, f"texts: expected 1 to {MAX_TEXTS}")
    return tuple(request.texts)


def _read_sampling(message: inference_pb2.Sampling) -> Sampling:
    max_tokens = message.max_tokens or DEFAULT_MAX_TOKENS
    if max_tokens > MAX_NEW_TOKENS:
        raise MeshError(Reason.REQUEST_INVALID, f"max_tokens: expected 1 to {MAX_NEW_TOKENS}")
    # Written so that NaN fails, too.
    if not 0.0 <= message.temperature <= 2.0:
        raise MeshError(Reason.REQUEST_INVALID, "temperature: expected 0 to 2")
    top_p = message.top_p or 1.0
    if not 0.0 < top_p <= 1.0:
        raise MeshError(Reason.REQUEST_INVALID, "top_p: expected over 0 and at most 1")
    stop = tuple(message.stop)
    if len(stop) > MAX_STOPS or any(not 0 < len(text.encode()) <= MAX_STOP_BYTES for text in stop):
        raise MeshError(
            Reason.REQUEST_INVALID, f"stop: expected at most {MAX_STOPS} texts of 1 to {MAX_STOP_BYTES} bytes"
        )
    return Sampling(
        max_tokens=max_tokens,
        temperature=message.temperature,
        top_p=top_p,
        seed=message.seed if message.HasField("seed") else None,
        stop=stop,
        ignore_eos=message.ignore_eos,
    )
