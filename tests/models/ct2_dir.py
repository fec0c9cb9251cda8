"""The same tiny Llama as CTranslate2 has it, made by the library's own specification; needs no torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.models.llama_dir import BOS, CONFIG, SPECIALS, byte_chars, tensors, write_llama

BESIDE: Final = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
WORDS: Final = CONFIG["vocab_size"]


def write_ct2(folder: Path, *, seed: int = 0, quantization: str = "int8") -> Path:
    """The folder with the model in it, its tokenizer beside it."""
    from ctranslate2.specs import common_spec, transformer_spec

    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        CONFIG["num_hidden_layers"],
        CONFIG["num_attention_heads"],
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        num_heads_kv=CONFIG["num_key_value_heads"],
    )
    found = tensors(CONFIG, seed)
    _fill(spec.decoder, found)
    spec.register_vocabulary(_words())
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = SPECIALS[0], SPECIALS[1], SPECIALS[2]
    spec.config.layer_norm_epsilon = CONFIG["rms_norm_eps"]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    with tempfile.TemporaryDirectory() as source:
        write_llama(Path(source), seed=seed)
        for name in BESIDE:
            shutil.copy(Path(source) / name, folder / name)
    assert json.loads((folder / "vocabulary.json").read_text())[BOS] == SPECIALS[0]
    return folder


def _fill(decoder: Any, found: dict[str, NDArray[np.float32]]) -> None:
    decoder.scale_embeddings = False
    decoder.embeddings.weight = found["model.embed_tokens.weight"]
    decoder.layer_norm.gamma = found["model.norm.weight"]
    decoder.projection.weight = found["lm_head.weight"]
    for number, layer in enumerate(decoder.layer):
        weight = {
            key.removeprefix(f"model.layers.{number}."): value
            for key, value in found.items()
            if key.startswith(f"model.layers.{number}.")
        }
        layer.self_attention.layer_norm.gamma = weight["input_layernorm.weight"]
        layer.ffn.layer_norm.gamma = weight["post_attention_layernorm.weight"]
        layer.self_attention.linear[0].weight = np.concatenate(
            [weight[f"self_attn.{part}_proj.weight"] for part in ("q", "k", "v")]
        )
        layer.self_attention.linear[1].weight = weight["self_attn.o_proj.weight"]
        layer.ffn.linear_0.weight = weight["mlp.gate_proj.weight"]
        layer.ffn.linear_0_noact.weight = weight["mlp.up_proj.weight"]
        layer.ffn.linear_1.weight = weight["mlp.down_proj.weight"]


def _words() -> list[str]:
    """All words by their ids, the unused ones at the end made up, as the library's converter does."""
    known = [*byte_chars(), *SPECIALS]
    return [*known, *(f"madeupword{number:04d}" for number in range(WORDS - len(known)))]
