"""The Llama that is trained: the mathematics of transformers' LlamaForCausalLM in few lines.

It is written out because training tells some attention heads where to look, and because 3.6 million
parameters suffer from general machinery.
Parameter names are those of the checkpoint format, so that `state_dict()` is the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of the network."""

    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    intermediate: int = 320
    rope_theta: float = 10000.0
    eps: float = 1e-5


def rotation(positions: torch.Tensor, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, (batch, 1, tokens, head), of the rotary embedding."""
    width = size.hidden // size.heads
    frequencies = size.rope_theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = positions.float()[..., None] * frequencies
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos(), angles.sin()


def _rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    left, right = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-right, left), -1) * turn[1]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Attention row by row: with a mask and in bfloat16 twice as fast on a CPU as the fused kernel."""
    scale = query.shape[-1] ** -0.5
    mixed = []
    for at in range(query.shape[0]):
        mask = visible[at].expand(query.shape[1], -1, -1)
        scores = torch.baddbmm(mask, query[at], key[at].transpose(-1, -2), alpha=scale)
        mixed.append(torch.softmax(scores, -1) @ value[at])
    return torch.stack(mixed)


@dataclass(frozen=True, slots=True)
class Pointers:
    """Where the first head of a layer should look: (row, asking position, position to look at) each."""

    rows: torch.Tensor
    asking: torch.Tensor
    target: torch.Tensor


def _misses(
    query: torch.Tensor, key: torch.Tensor, visible: torch.Tensor, pointers: Pointers
) -> torch.Tensor:
    """Negative log of the attention that falls where it should, of the first head."""
    asked = query[pointers.rows, 0, pointers.asking].float()
    keys = key[pointers.rows, 0].float()
    scores = torch.einsum("nd,ntd->nt", asked, keys) * query.shape[-1] ** -0.5
    scores = scores + visible[pointers.rows, 0, pointers.asking].float()
    return functional.cross_entropy(scores, pointers.target, reduction="none")


class Attention(nn.Module):
    """Multi-head attention with rotary positions."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.pointers: Pointers | None = None  # set during training
        self.misses: torch.Tensor | None = None
        for name in "qkvo":
            setattr(self, f"{name}_proj", nn.Linear(size.hidden, size.hidden, bias=False))

    def forward(
        self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], visible: torch.Tensor
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to the same; `visible` is additive, 0 or -inf."""
        batch, tokens, hidden = x.shape

        def split(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(batch, tokens, self.heads, hidden // self.heads).transpose(1, 2)

        query, key, value = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        query, key = _rotate(query, turn).to(value.dtype), _rotate(key, turn).to(value.dtype)
        with torch.autocast("cpu", enabled=False):
            mixed = _attend(query, key, value, visible.to(value.dtype))
            if self.pointers is not None:
                self.misses = _misses(query, key, visible, self.pointers)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, hidden))


class FeedForward(nn.Module):
    """The gated feed-forward part of a layer."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.hidden, size.intermediate, bias=False)
        self.up_proj = nn.Linear(size.hidden, size.intermediate, bias=False)
        self.down_proj = nn.Linear(size.intermediate, size.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) to the same."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One layer."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.hidden, size.eps)
        self.self_attn = Attention(size)
        self.post_attention_layernorm = nn.RMSNorm(size.hidden, size.eps)
        self.mlp = FeedForward(size)

    def forward(
        self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], visible: torch.Tensor
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to the same."""
        x = x + self.self_attn(self.input_layernorm(x), turn, visible)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Everything but the output matrix, which is the embedding's."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens = nn.Embedding(size.vocabulary, size.hidden)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden, size.eps)

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Token ids (batch, tokens) to final states (batch, tokens, hidden)."""
        x = self.embed_tokens(ids)
        turn = rotation(positions, self.size)
        for layer in self.layers:
            x = layer(x, turn, visible)
        return self.norm(x)


class Reader(nn.Module):
    """The whole network."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.model = Body(size)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * size.layers) ** 0.5 if deep else 0.02)

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """Logits of what follows the tokens at the flat positions `at`."""
        states = self.model(ids, positions, visible).flatten(0, 1)[at]
        return functional.linear(states, self.model.embed_tokens.weight)
