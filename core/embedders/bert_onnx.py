"""Makes an ONNX graph from the published files of a BERT sentence encoder (`config.json` and `model.safetensors`).

The graph takes one unpadded text (`input_ids`, int64 [1, n]) and gives its L2-normalised `embedding`, float32
[1, dimension]. With nothing padded there is no mask, and attention takes ONNX Runtime's fastest way; one text a call
also makes a vector depend on its own text only, though int8 chooses one activation scale a call.

With pooling `score` it is a cross-encoder's: the graph also takes `token_type_ids`, which tell a question from its
passage, and gives one `score`, float32 [1, 1], the logit of the model's classification head.

`onnx` is imported here alone. `python -m core.embedders.bert_onnx SOURCE TARGET POOLING PRECISION` builds in a process
of its own, so that its memory is given back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from core.embedders.safetensors import Safetensors
from core.errors import ConfigError

VERSION: Final = "2"
"""Of the graph: a model whose graph is of another one is built anew."""
SPACE: Final = "1"
"""Part of the fingerprint: raise it whenever a vector could not be compared any more with those made before."""

Pooling: TypeAlias = Literal["mean", "cls", "score"]
Precision: TypeAlias = Literal["int8", "fp32"]

_ORT = "com.microsoft"
_LARGEST: Final = 64
"""Of a weight in int8. AVX2 adds two products of a weight and an activation (at most 255) in 16 bits, and cuts off what
is more: with 127, such a processor gives other vectors than one with VNNI, and now and then a wrong one
(ONNX Runtime, "Quantize ONNX models", reduced range)."""


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The sizes of a BERT encoder."""

    words: int
    positions: int
    types: int
    width: int
    inner_width: int
    layers: int
    heads: int
    epsilon: float


def read_config(folder: Path) -> BertConfig:
    """The sizes in `config.json`; raises ConfigError for a model that is not BERT with absolute positions."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_bytes())
        if raw["model_type"] != "bert" or raw["hidden_act"] != "gelu":
            raise ConfigError(f"{path} describes no BERT encoder with GELU; choose such a model.")
        if raw.get("position_embedding_type", "absolute") != "absolute":
            raise ConfigError(f"{path} asks for relative positions; choose a BERT model with absolute ones.")
        config = BertConfig(
            words=_size(raw["vocab_size"]),
            positions=_size(raw["max_position_embeddings"]),
            types=_size(raw["type_vocab_size"]),
            width=_size(raw["hidden_size"]),
            inner_width=_size(raw["intermediate_size"]),
            layers=_size(raw["num_hidden_layers"]),
            heads=_size(raw["num_attention_heads"]),
            epsilon=float(raw["layer_norm_eps"]),
        )
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"{path} does not describe a BERT encoder; get the model's files once more.") from error
    if config.width % config.heads or config.layers > 128:
        raise ConfigError(f"{path} has sizes that do not fit together; get the model's files once more.")
    return config


def build(source: Path, target: Path, *, pooling: Pooling, precision: Precision) -> None:
    """Write the graph of the model in `source` to the file `target`. Raises ConfigError."""
    graph = _Graph(precision)
    config = read_config(source)
    tensors = Safetensors(source / "model.safetensors")
    if pooling == "score":
        score = _score(graph, _encoder(graph, config, tensors, pairs=True), config.width, tensors)
        target.write_bytes(graph.serialized(score, 1, pairs=True))
        return
    embedding = _pooled(graph, _encoder(graph, config, tensors), pooling)
    target.write_bytes(graph.serialized(embedding, config.width))


def _size(value: object) -> int:
    if type(value) is not int or not 0 < value < 10_000_000:
        raise ValueError("not a size")
    return value


class _Graph:
    """Collects nodes and constants; each method returns the name of its result."""

    def __init__(self, precision: Precision) -> None:
        # Heavy, and needed only while a model is built.
        import onnx
        import onnx.numpy_helper

        self._onnx: Any = onnx
        self.precision = precision
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def apply(self, kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def split(self, value: str, outputs: Sequence[str]) -> None:
        node = self._onnx.helper.make_node("Split", [value], outputs, axis=-1, num_outputs=len(outputs))
        self._nodes.append(node)

    def linear(self, value: str, weight: NDArray[np.float32], bias: NDArray[np.float32], name: str) -> str:
        """`value @ weight.T + bias`; in int8 with one scale for each output, alike on every processor."""
        columns = weight.T
        added = self.constant(f"{name}.bias", bias)
        if self.precision == "fp32":
            product = self.apply("MatMul", [value, self.constant(f"{name}.weight", columns)], f"{name}.product")
            return self.apply("Add", [product, added], name)
        scales = np.maximum(np.abs(columns).max(axis=0) / _LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
        rounded = np.clip(np.rint(columns / scales), -_LARGEST, _LARGEST).astype(np.int8)
        weights = [self.constant(f"{name}.weight", rounded), self.constant(f"{name}.scale", scales)]
        return self.apply("DynamicQuantizeMatMul", [value, *weights, "", added], name, _ORT)

    def serialized(self, output: str, width: int, *, pairs: bool = False) -> bytes:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        inputs = ("input_ids", "token_type_ids") if pairs else ("input_ids",)
        graph = helper.make_graph(
            self._nodes,
            "sentence_encoder",
            [helper.make_tensor_value_info(name, kinds.INT64, [1, "tokens"]) for name in inputs],
            [helper.make_tensor_value_info(output, kinds.FLOAT, [1, width])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(_ORT, 1)]
        model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
        return model


def _encoder(graph: _Graph, config: BertConfig, tensors: Safetensors, *, pairs: bool = False) -> str:
    """Hidden states of the last layer, [1, n, width]; with `pairs`, of two segments."""
    prefix = "" if "embeddings.word_embeddings.weight" in tensors else "bert."
    width, inner = config.width, config.inner_width

    def square(name: str, outputs: int, inputs: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        path = prefix + name
        return tensors.floats(f"{path}.weight", (outputs, inputs)), tensors.floats(f"{path}.bias", (outputs,))

    def norm(name: str, label: str) -> list[str]:
        path = f"{prefix}{name}.LayerNorm"
        return [
            graph.constant(f"{label}.gamma", tensors.floats(f"{path}.weight", (width,))),
            graph.constant(f"{label}.beta", tensors.floats(f"{path}.bias", (width,))),
        ]

    words = tensors.floats(f"{prefix}embeddings.word_embeddings.weight", (config.words, width))
    places = tensors.floats(f"{prefix}embeddings.position_embeddings.weight", (config.positions, width))
    types = tensors.floats(f"{prefix}embeddings.token_type_embeddings.weight", (config.types, width))
    if pairs:
        segments = graph.apply("Gather", [graph.constant("types", types), "token_type_ids"], "type_rows")
        summed = graph.apply("Add", [_embedded(graph, words, places), segments], "typed")
    else:  # There is one segment, so that its type's row can be added to every position beforehand.
        summed = _embedded(graph, words, places + types[0])
    state = graph.apply(
        "LayerNormalization", [summed, *norm("embeddings", "norm0")], "state0", axis=-1, epsilon=config.epsilon
    )
    for number in range(config.layers):
        layer = f"encoder.layer.{number}."
        parts = [square(f"{layer}attention.self.{part}", width, width) for part in ("query", "key", "value")]
        weight = np.concatenate([weight for weight, _ in parts])
        bias = np.concatenate([bias for _, bias in parts])
        heads = [f"{part}{number}" for part in ("query", "key", "value")]
        graph.split(graph.linear(state, weight, bias, f"projection{number}"), heads)
        seen = graph.apply("MultiHeadAttention", heads, f"attention{number}", _ORT, num_heads=config.heads)
        seen = graph.linear(seen, *square(f"{layer}attention.output.dense", width, width), f"attended{number}")
        gains = norm(f"{layer}attention.output", f"norm{number}a")
        middle = graph.apply(
            "SkipLayerNormalization", [seen, state, *gains], f"middle{number}", _ORT, epsilon=config.epsilon
        )
        wide = graph.linear(middle, *square(f"{layer}intermediate.dense", inner, width), f"wide{number}")
        wide = graph.apply("Gelu", [wide], f"gelu{number}", _ORT)
        narrow = graph.linear(wide, *square(f"{layer}output.dense", width, inner), f"narrow{number}")
        gains = norm(f"{layer}output", f"norm{number}b")
        state = graph.apply(
            "SkipLayerNormalization", [narrow, middle, *gains], f"state{number + 1}", _ORT, epsilon=config.epsilon
        )
    return state


def _embedded(graph: _Graph, words: NDArray[np.float32], places: NDArray[np.float32]) -> str:
    """Rows of the words plus those of their positions, [1, n, width]."""
    # The word table is most of a small model; halves of it are exact to 1e-3 and save a third of the memory.
    narrow = graph.precision == "int8" and float(np.abs(words).max()) < 60_000
    table = graph.constant("words", words.astype(np.float16) if narrow else words)
    rows = graph.apply("Gather", [table, "input_ids"], "word_rows")
    if narrow:
        rows = graph.apply("Cast", [rows], "word_floats", to=graph._onnx.TensorProto.FLOAT)
    shape = graph.apply("Shape", ["input_ids"], "shape")
    one, two = graph.constant("one", np.array([1])), graph.constant("two", np.array([2]))
    length = graph.apply("Slice", [shape, one, two], "length")
    zero, axis = graph.constant("zero", np.array([0])), graph.constant("axis", np.array([0]))
    near = graph.apply("Slice", [graph.constant("places", places), zero, length, axis], "place_rows")
    return graph.apply("Add", [rows, near], "embedded")


def _pooled(graph: _Graph, state: str, pooling: Pooling) -> str:
    if pooling == "mean":
        vector = graph.apply("ReduceMean", [state, graph.constant("over", np.array([1]))], "pooled", keepdims=0)
    else:
        vector = graph.apply("Gather", [state, graph.constant("first", np.array(0))], "pooled", axis=1)
    return graph.apply("LpNormalization", [vector], "embedding", axis=-1, p=2)


def _score(graph: _Graph, state: str, width: int, tensors: Safetensors) -> str:
    """What the classification head says of the first token, in full precision: it is small."""
    first = graph.apply("Gather", [state, graph.constant("first", np.array(0))], "first_state", axis=1)
    for name, label, outputs in (("bert.pooler.dense", "pooler", width), ("classifier", "score", 1)):
        weight = tensors.floats(f"{name}.weight", (outputs, width)).T
        added = graph.constant(f"{label}.bias", tensors.floats(f"{name}.bias", (outputs,)))
        product = graph.apply("MatMul", [first, graph.constant(f"{label}.weight", weight)], f"{label}.product")
        first = graph.apply("Add", [product, added], label)
        if label == "pooler":
            first = graph.apply("Tanh", [first], "pooled")
    return first


def main(arguments: Sequence[str]) -> int:
    source, target, pooling, precision = arguments
    try:
        build(
            Path(source),
            Path(target),
            pooling=next((known for known in get_args(Pooling) if known == pooling), "mean"),
            precision="fp32" if precision == "fp32" else "int8",
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
