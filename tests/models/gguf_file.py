"""The same tiny Llama as a GGUF file, written by hand, so that headers can be tried without any package."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.models.llama_dir import BOS, CONFIG, END, EOS, PAD, SPECIALS, TEMPLATE, byte_chars, tensors

ALIGNMENT: Final = 32
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
_U16, _U32, _F32, _BOOL, _TEXT, _LIST = 2, 4, 6, 7, 8, 9
_I32: Final = 5
F32: Final = 0


def write_gguf(path: Path, *, seed: int = 0, template: str = TEMPLATE, **values: Any) -> Path:
    """The file with the model in it; `values` go over its metadata (with `__` for the dots in their names)."""
    found = {**metadata(template), **{name.replace("__", "."): value for name, value in values.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf(found, weights(seed)))
    return path


class U16(int):
    """A number of two bytes, as some values must be."""


class I32(int):
    """A number with a sign, in four bytes."""


def write_parts(folder: Path, *, seed: int = 0) -> Path:
    """The same in two files; the path of the first."""
    found = weights(seed)
    names = list(found)
    halves = (names[:5], names[5:])
    paths = []
    for number, half in enumerate(halves):
        own = metadata() if number == 0 else {"general.architecture": "llama"}
        split = {"split.no": U16(number), "split.count": U16(len(halves)), "split.tensors.count": I32(len(names))}
        path = folder / f"tiny-{number + 1:05}-of-{len(halves):05}.gguf"
        path.write_bytes(gguf({**own, **split}, {name: found[name] for name in half}))
        paths.append(path)
    return paths[0]


def metadata(template: str = TEMPLATE) -> dict[str, Any]:
    words = [*byte_chars(), *SPECIALS]
    made_up = [f"madeupword{number:04d}" for number in range(CONFIG["vocab_size"] - len(words))]
    kinds = [_NORMAL] * 256 + [_CONTROL] * len(SPECIALS) + [_UNUSED] * len(made_up)
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": F32,
        "llama.context_length": CONFIG["max_position_embeddings"],
        "llama.embedding_length": CONFIG["hidden_size"],
        "llama.block_count": CONFIG["num_hidden_layers"],
        "llama.feed_forward_length": CONFIG["intermediate_size"],
        "llama.attention.head_count": CONFIG["num_attention_heads"],
        "llama.attention.head_count_kv": CONFIG["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": CONFIG["rms_norm_eps"],
        "llama.rope.dimension_count": CONFIG["head_dim"],
        "llama.rope.freq_base": CONFIG["rope_theta"],
        "llama.vocab_size": CONFIG["vocab_size"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*words, *made_up],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["Ġ Ġ"],
        "tokenizer.ggml.bos_token_id": BOS,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.eot_token_id": END,
        "tokenizer.ggml.padding_token_id": PAD,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template,
    }


def weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """In llama.cpp's names; queries and keys have their rotary halves one beside the other, and not behind it."""
    found = tensors(CONFIG, seed)
    made = {
        "token_embd.weight": found["model.embed_tokens.weight"],
        "output_norm.weight": found["model.norm.weight"],
        "output.weight": found["lm_head.weight"],
    }
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        for theirs, ours in names.items():
            tensor = found[f"model.layers.{layer}.{theirs}.weight"]
            made[f"blk.{layer}.{ours}.weight"] = _turned(tensor) if ours in ("attn_q", "attn_k") else tensor
    return made


def gguf(values: Mapping[str, Any], found: Mapping[str, NDArray[np.float32]]) -> bytes:
    head, data = io.BytesIO(), io.BytesIO()
    head.write(b"GGUF" + struct.pack("<IQQ", 3, len(found), len(values)))
    for name, value in values.items():
        head.write(_text(name) + _value(value))
    for name, tensor in found.items():
        shape = tensor.shape[::-1]
        head.write(_text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
        head.write(struct.pack("<IQ", F32, data.tell()))
        data.write(tensor.astype(np.float32).tobytes())
        data.write(bytes(-data.tell() % ALIGNMENT))
    return head.getvalue() + bytes(-head.tell() % ALIGNMENT) + data.getvalue()


def _turned(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    heads = CONFIG["num_attention_heads"]
    parts = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, tensor.shape[1])
    return parts.swapaxes(1, 2).reshape(tensor.shape)


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind = _TEXT if isinstance(value[0], str) else _I32
        parts = b"".join(_text(one) if kind == _TEXT else struct.pack("<i", one) for one in value)
        return struct.pack("<IIQ", _LIST, kind, len(value)) + parts
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, str):
        return struct.pack("<I", _TEXT) + _text(value)
    if isinstance(value, U16):
        return struct.pack("<IH", _U16, value)
    if isinstance(value, I32):
        return struct.pack("<Ii", _I32, value)
    return struct.pack("<II", _U32, value) if isinstance(value, int) else struct.pack("<If", _F32, value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
