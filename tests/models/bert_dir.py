"""Tiny BERTs with random weights as transformers and sentence-transformers write them: an encoder, and a reranker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fakes.model import tiny_cross_encoder, tiny_model


def write_encoder(folder: Path, pooling: str = "mean") -> Path:
    """Write one of 32 numbers into the folder; it reads 64 tokens."""
    tiny_model(folder, pooling=pooling)
    _tokenizer(folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def write_reranker(folder: Path) -> Path:
    """Write one with a classification head of one output."""
    tiny_cross_encoder(folder)
    _tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _tokenizer(folder: Path) -> None:
    names: dict[str, Any] = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **names}
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
