"""A tiny INSTRUCTOR with random weights, as its authors would publish it: a T5 encoder, mean pooling, a dense layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.fakes.weights import write_safetensors

WIDTH, HEADS, INNER, LAYERS, BUCKETS, DIMENSION = 32, 4, 64, 2, 32, 48


def write_instructor(folder: Path, *, seed: int = 7) -> Path:
    """Write the model into the folder."""
    for part in ("1_Pooling", "2_Dense"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    words = _tokenizer(folder)
    write_safetensors(folder / "model.safetensors", _tensors(words, seed))
    write_safetensors(folder / "2_Dense" / "model.safetensors", {"linear.weight": dense(seed)})
    config = {
        "architectures": ["T5EncoderModel"], "model_type": "t5", "vocab_size": words, "d_model": WIDTH,
        "d_kv": WIDTH // HEADS, "d_ff": INNER, "num_layers": LAYERS, "num_decoder_layers": LAYERS, "num_heads": HEADS,
        "relative_attention_num_buckets": BUCKETS, "feed_forward_proj": "relu", "layer_norm_epsilon": 1e-6,
        "dropout_rate": 0.1, "is_encoder_decoder": True, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 0, "tie_word_embeddings": True,
    }  # fmt: skip
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes}
    activation = "torch.nn.modules.linear.Identity"
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    modules = [
        {
            "idx": at,
            "name": str(at),
            "path": f"{at}_{kind}" if at else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for at, kind in enumerate(kinds)
    ]
    for name, value in (
        ("config.json", config),
        ("modules.json", modules),
        ("sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False}),
        ("1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **pooling}),
        (
            "2_Dense/config.json",
            {"in_features": WIDTH, "out_features": DIMENSION, "bias": False, "activation_function": activation},
        ),
    ):
        (folder / name).write_text(json.dumps(value, indent=1))
    (folder / "3_Normalize").mkdir(exist_ok=True)
    return folder


def dense(seed: int = 7) -> NDArray[np.float32]:
    """The weight of its dense layer."""
    rng = np.random.default_rng(seed + 1)
    return rng.normal(0, 0.3, (DIMENSION, WIDTH)).astype(np.float32)


def _tensors(words: int, seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int, scale: float = 0.3) -> NDArray[np.float32]:
        return rng.normal(0, scale, shape).astype(np.float32)

    found = {"shared.weight": drawn(words, WIDTH, scale=1.0), "encoder.final_layer_norm.weight": 1 + drawn(WIDTH)}
    for layer in range(LAYERS):
        block = f"encoder.block.{layer}.layer"
        for name in "qkvo":
            found[f"{block}.0.SelfAttention.{name}.weight"] = drawn(WIDTH, WIDTH)
        found[f"{block}.0.layer_norm.weight"] = 1 + drawn(WIDTH)
        found[f"{block}.1.DenseReluDense.wi.weight"] = drawn(INNER, WIDTH)
        found[f"{block}.1.DenseReluDense.wo.weight"] = drawn(WIDTH, INNER)
        found[f"{block}.1.layer_norm.weight"] = 1 + drawn(WIDTH)
    found["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = drawn(BUCKETS, HEADS)
    return found


def _tokenizer(folder: Path) -> int:
    """Write a tokenizer that treats blanks as that of T5 does; the number of its words."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["▁", *letters, "▁the", "▁question", "▁document", "▁for", "retriev", "ing", "▁Represent", "▁re", "tion"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -8.0 + 1.5 * len(piece)) for piece in pieces]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
        "model_max_length": 512, "model_input_names": ["input_ids", "attention_mask"],
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(made.get_vocab_size())
