"""The ONNX graph we build gives what the published model gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from core.embedders.bert_onnx import Pooling, Precision, build, main
from core.embedders.folder import CONFIG, WEIGHTS
from core.errors import ConfigError
from tests.fakes.model import POSITIONS, reference, tiny_model, tiny_tensors

WORDS = 74
TEXTS = [[2, 3], [2, 9, 31, 12, 3], [2, *range(5, 60), 3], [2, *[70] * (POSITIONS - 2), 3]]


def run(graph: Path, ids: list[int]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    [rows] = session.run(None, {"input_ids": np.array([ids], np.int64)})
    assert rows.shape == (1, 32)
    vector: NDArray[np.float32] = rows[0]
    return vector


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(("precision", "nearness"), [("fp32", 0.99999), ("int8", 0.98)])
def test_it_agrees_with_the_encoder_written_out_in_numpy(
    tmp_path: Path, pooling: Pooling, precision: Precision, nearness: float
) -> None:
    source = tiny_model(tmp_path / "model")
    words = json.loads((source / CONFIG).read_text())["vocab_size"]
    build(source, tmp_path / "graph", pooling=pooling, precision=precision)
    for ids in TEXTS:
        vector = run(tmp_path / "graph", ids)
        assert abs(float(vector @ vector) - 1) < 1e-4
        assert float(vector @ reference(tiny_tensors(words), ids, pooling)) > nearness


def test_two_products_of_int8_fit_into_16_bits(tmp_path: Path) -> None:
    """Where they do not, processors without VNNI cut the sum off, and give other vectors than those with it."""
    import onnx.numpy_helper  # heavy

    build(tiny_model(tmp_path / "model"), tmp_path / "graph", pooling="mean", precision="int8")
    constants = onnx.load(str(tmp_path / "graph")).graph.initializer
    narrow = [onnx.numpy_helper.to_array(one) for one in constants if one.data_type == onnx.TensorProto.INT8]
    assert narrow
    assert all(2 * 255 * np.abs(weights.astype(int)).max() <= np.iinfo(np.int16).max for weights in narrow)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_weights_may_be_stored_in_other_widths(tmp_path: Path, dtype: str) -> None:
    source = tiny_model(tmp_path / "model", dtype=dtype)
    words = json.loads((source / CONFIG).read_text())["vocab_size"]
    build(source, tmp_path / "graph", pooling="mean", precision="fp32")
    for ids in TEXTS:
        assert float(run(tmp_path / "graph", ids) @ reference(tiny_tensors(words), ids)) > 0.999


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "roberta"},
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"hidden_size": 33},
        {"hidden_size": 0},
        {"hidden_size": -32},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 3},
        {"vocab_size": "many"},
        {"vocab_size": 5},
        {"layer_norm_eps": "small"},
        {"num_attention_heads": None},
    ],
    ids=str,
)
def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    source = tiny_model(tmp_path / "model")
    config = json.loads((source / CONFIG).read_text()) | change
    (source / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ConfigError):
        build(source, tmp_path / "graph", pooling="mean", precision="int8")


def test_the_builder_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a process: `test_embedder_fetch.py`."""
    source = tiny_model(tmp_path / "model")
    (source / WEIGHTS).write_bytes(b"\x80\x04 a pickle")
    assert main([str(source), str(tmp_path / "graph"), "mean", "int8"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "not a usable safetensors file" in said
