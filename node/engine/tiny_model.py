"""Builds a tiny Llama that speaks nonsense, so that everything around a model can run without one.

`python -m node.engine.tiny_model DIR` writes a complete Hugging Face folder (weights, tokenizer, chat
template) in seconds, with no network: about 3.7 million parameters, 7 MB. Nobody trained it and it
says nothing of use; the README it writes says so.

Three properties are worth their few lines:

- Same bytes every time. Weights come from integer arithmetic and a counter-based generator, never
  from a float library, and the tokenizer from a text that ships with Python. So its digest is stable
  across runs and machines with the same pins.
- It does not stutter. A model of random weights falls into repeating one token. Here the output
  matrix sends each token to one that often followed it in the text, such that these steps form a
  single path through all the words of the vocabulary: greedy output reads like shredded English and
  does not repeat itself for hundreds of tokens, which is what a test of a resumed stream needs.
- It listens a little. Attention is random but real, and the marker tokens of the chat template are
  quiet, so that the first word of an answer depends on the whole conversation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from tokenizers import Tokenizer

FORMAT = 1  # raise it whenever the written bytes change
SEED = 20240613
VOCABULARY = 2048
HIDDEN = 256
LAYERS = 4
HEADS = 4
INTERMEDIATE = 512
CONTEXT_TOKENS = 2048
SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
BEGIN, END = 0, 1

# How far the chosen next token stands above the noise of the others: softmax gives it about 0.9, so
# greedy output is stable between processors and temperature still shows.
NEXT_TOKEN_LOGIT = 10.0

_SENTENCES = re.compile(r"[A-Za-z ,.;:()\n'-]+[.:]\s*")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

README = """# A model that speaks nonsense

Made by `python -m node.engine.tiny_model`. Its weights were computed, not trained: it strings
together pieces of English and knows nothing. It is there so that a mesh can be tried and tested
without downloading a model. Do not put it in front of people.
"""


def build(folder: Path) -> Path:
    """Writes the model into `folder` unless it is there already; returns `folder`.

    Safe when several processes build the same folder at once: each builds aside and the first
    rename wins.
    """
    if _complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(aside)
        aside.chmod(0o755)
        if folder.exists() and not _complete(folder):
            shutil.rmtree(folder)
        try:
            os.rename(aside, folder)
        except OSError:
            if not _complete(folder):
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _complete(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(config.get("sovereign_mesh_format") == FORMAT)


def _text() -> list[str]:
    """English of some length that every Python carries: the language reference behind help().

    Only its sentences: paragraphs without code, tables or markup.
    """
    from pydoc_data import topics  # 450 kB

    return [
        " " + " ".join(paragraph.split())
        for name in sorted(topics.topics)
        for paragraph in topics.topics[name].split("\n\n")
        if _SENTENCES.fullmatch(paragraph)
    ]


def _write(folder: Path) -> None:
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        trainers,
    )

    text = _text()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    followers = _path([tokenizer.encode(part).ids for part in text], _words(tokenizer, text))
    _write_weights(folder / "model.safetensors", followers)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    _write_json(
        folder / "generation_config.json",
        {"bos_token_id": BEGIN, "eos_token_id": END, "temperature": 1.0},
    )
    (folder / "README.md").write_text(README)
    _write_json(folder / "config.json", _config())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BEGIN],
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[END],
        "additional_special_tokens": list(SPECIAL[2:]),
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": END,
        "sovereign_mesh_format": FORMAT,
    }


def _words(tokenizer: Tokenizer, text: list[str]) -> list[int]:
    """The tokens that are whole words (the byte-level alphabet writes a space as Ġ)."""
    known = set(re.findall("[A-Za-z]{2,}", " ".join(text)))
    vocabulary = tokenizer.get_vocab()
    return sorted(at for token, at in vocabulary.items() if token[0] == "Ġ" and token[1:] in known)


def _path(sequences: list[list[int]], words: list[int]) -> list[int]:
    """For each token its next one: frequent pairs first, such that the words form one closed path.

    A token that is no word leads to a word, and nothing leads to it.
    """
    pairs: Counter[tuple[int, int]] = Counter()
    for ids in sequences:
        pairs.update(pairwise(ids))
    ranked = [pair for pair, _ in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))]
    following = [-1] * VOCABULARY
    is_word, preceded = set(words), set[int]()
    part = list(range(VOCABULARY))  # which stretch of the path a token is on (union-find)

    def root(token: int) -> int:
        while part[token] != token:
            part[token] = part[part[token]]
            token = part[token]
        return token

    for left, right in ranked:
        free = following[left] < 0 and right not in preceded
        if {left, right} <= is_word and free and root(left) != root(right):
            following[left] = right
            preceded.add(right)
            part[root(left)] = root(right)
    # What is left are stretches: tie each to the next, the last to the first, in order of their ids.
    heads = [token for token in words if token not in preceded]
    tails = []
    for token in heads:
        while following[token] >= 0:
            token = following[token]
        tails.append(token)
    for tail, head in zip(tails, heads[1:] + heads[:1], strict=True):
        following[tail] = head
    for left, right in ranked:
        if following[left] < 0 and right in is_word:
            following[left] = right
    return [right if right >= 0 else words[left % len(words)] for left, right in enumerate(following)]


def _write_weights(path: Path, following: list[int]) -> None:
    import numpy  # needed only to build

    bits = numpy.random.Philox(SEED)  # specified bit for bit, on every platform

    def noise(rows: int, columns: int, spread: float) -> numpy.ndarray:
        """Uniform in ±spread·√3 (standard deviation `spread`), by exact arithmetic."""
        raw = bits.random_raw(rows * columns) >> numpy.uint64(48)
        steps = raw.astype(numpy.float64) - 32767.5
        return (steps * (spread * 1.7320508 / 32767.5)).reshape(rows, columns)

    embedding = noise(VOCABULARY, HIDDEN, 1.0)
    head = noise(VOCABULARY, HIDDEN, 0.1 * NEXT_TOKEN_LOGIT / HIDDEN)
    # After the final norm a token's own embedding has length √HIDDEN, so its product with itself is
    # HIDDEN: this factor turns that into NEXT_TOKEN_LOGIT.
    numpy.add.at(head, following, embedding * (NEXT_TOKEN_LOGIT / HIDDEN))
    embedding[: len(SPECIAL)] *= 0.05

    def tensors() -> Iterator[tuple[str, numpy.ndarray]]:
        yield "model.embed_tokens.weight", embedding
        yield "lm_head.weight", head
        yield "model.norm.weight", numpy.ones(HIDDEN)
        for layer in range(LAYERS):
            at = f"model.layers.{layer}."
            yield at + "input_layernorm.weight", numpy.ones(HIDDEN)
            yield at + "post_attention_layernorm.weight", numpy.ones(HIDDEN)
            for name in "qkv":
                yield at + f"self_attn.{name}_proj.weight", noise(HIDDEN, HIDDEN, 0.06)
            yield at + "self_attn.o_proj.weight", noise(HIDDEN, HIDDEN, 0.02)
            yield at + "mlp.gate_proj.weight", noise(INTERMEDIATE, HIDDEN, 0.02)
            yield at + "mlp.up_proj.weight", noise(INTERMEDIATE, HIDDEN, 0.02)
            yield at + "mlp.down_proj.weight", noise(HIDDEN, INTERMEDIATE, 0.02)

    # The safetensors format: length of the header, the header as JSON, the tensors one after another.
    header: dict[str, object] = {"__metadata__": {"format": "pt", "note": "computed: speaks nonsense"}}
    data: list[bytes] = []
    end = 0
    for name, values in tensors():
        data.append(_bfloat16(values))
        start, end = end, end + len(data[-1])
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, sort_keys=True).encode()
    encoded += b" " * (-len(encoded) % 8)  # readers map the data: keep it aligned
    path.write_bytes(b"".join([len(encoded).to_bytes(8, "little"), encoded, *data]))


def _bfloat16(values: numpy.ndarray) -> bytes:
    """Rounds to the nearest bfloat16 (ties up: no value here is a tie worth caring about)."""
    import numpy

    single = numpy.ascontiguousarray(values, dtype="<f4").view("<u4")
    return bytes(((single + numpy.uint32(0x8000)) >> numpy.uint32(16)).astype("<u2").tobytes())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m node.engine.tiny_model", description="Builds a tiny model that speaks nonsense."
    )
    parser.add_argument("folder", type=Path, help="where to write the model; kept if complete")
    print(build(parser.parse_args().folder))


if __name__ == "__main__":
    main()
