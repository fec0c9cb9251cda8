"""A tiny Llama of random numbers in Hugging Face's form (2 layers, 11 MB), alike each time; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.fakes.model import write_safetensors

SPECIALS: Final = ("<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
"""Ids 256 to 261; the ids before them are the bytes themselves."""
BOS, EOS, PAD, USER, ASSISTANT, END = range(256, 262)
TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|assistant|>' if message.role == 'assistant' else '<|user|>' }}{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 288,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


def write_llama(folder: Path, *, seed: int = 0, strength: float = 0.02, **config: Any) -> Path:
    """The folder with the model in it; `config` goes over what CONFIG says, None leaves a key out.

    The likeliest token is always an ASCII character, so that greedy text can be read. With a `strength` of 0.02, as
    real models begin, attention counts for little; with ten times that it decides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": BOS, "eos_token_id": [EOS, END]}))
    write_tokenizer(folder)
    write_safetensors(folder / "model.safetensors", tensors({**CONFIG, **config}, seed, strength), "F16")
    return folder


def write_tokenizer(folder: Path) -> None:
    byte_words = models.BPE(vocab={char: byte for byte, char in enumerate(byte_chars())}, merges=[])
    made = Tokenizer(byte_words)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    made.save(str(folder / "tokenizer.json"))
    told = {
        "bos_token": SPECIALS[0],
        "eos_token": {"__type": "AddedToken", "content": SPECIALS[1], "special": True},
        "pad_token": SPECIALS[2],
        "chat_template": TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def tensors(config: Mapping[str, Any], seed: int, strength: float = 0.02) -> dict[str, NDArray[np.float32]]:
    """The weights in Hugging Face's names and shapes ([out, in])."""
    random = np.random.default_rng(seed)
    hidden, inner, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]

    def some(rows: int, columns: int) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * strength).astype(np.float32)

    head = some(words, hidden)
    head[:32] = head[127:] = 0
    norm = np.ones(hidden, np.float32)
    found = {"model.embed_tokens.weight": some(words, hidden), "model.norm.weight": norm, "lm_head.weight": head}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        found |= {
            f"{name}.self_attn.q_proj.weight": some(queries, hidden),
            f"{name}.self_attn.k_proj.weight": some(keys, hidden),
            f"{name}.self_attn.v_proj.weight": some(keys, hidden),
            f"{name}.self_attn.o_proj.weight": some(hidden, queries),
            f"{name}.mlp.gate_proj.weight": some(inner, hidden),
            f"{name}.mlp.up_proj.weight": some(inner, hidden),
            f"{name}.mlp.down_proj.weight": some(hidden, inner),
            f"{name}.input_layernorm.weight": norm,
            f"{name}.post_attention_layernorm.weight": norm,
        }
    return found


def byte_chars() -> list[str]:
    """The characters that stand for the bytes 0 to 255 in byte-level tokenizers."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
