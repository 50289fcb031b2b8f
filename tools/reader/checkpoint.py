"""The files of the model: tokenizer, weights in half precision, configuration."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.reader.corpus import Generator, Shape
from tools.reader.model import Reader, Size
from tools.reader.packing import BEGIN, CHAT_TEMPLATE, END, SPECIAL

CONTEXT_TOKENS = 2048


def build_tokenizer(path: Path, samples: int = 6000, vocabulary: int = 2048) -> Tokenizer:
    """Trains the tokenizer on samples of its own seed, unless `path` has it; every digit is a token."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    generator = Generator("tokenizer")
    text: list[str] = []
    for _ in range(samples):
        sample = generator.sample(Shape())
        text += [" " + passage for passage in sample.passages]
        text += ["Question: " + question.text for question in sample.questions[:3]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.save(str(path))
    return Tokenizer.from_file(str(path))


def config(size: Size) -> dict[str, object]:
    """The checkpoint's config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.hidden // size.heads,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": size.eps,
        "rope_theta": size.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "torch_dtype": "float16",
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": END,
    }


def export(model: Reader, size: Size, tokenizer: Path, folder: Path) -> None:
    """Writes a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to(torch.float16).contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    _write(folder / "config.json", config(size))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[BEGIN],
            "eos_token": SPECIAL[END],
            "pad_token": SPECIAL[END],
            "additional_special_tokens": list(SPECIAL[2:]),
            "model_max_length": CONTEXT_TOKENS,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    _write(
        folder / "generation_config.json",
        {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END, "do_sample": False},
    )


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
