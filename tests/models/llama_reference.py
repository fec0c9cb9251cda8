"""What the tiny Llama says, by numpy in float32: whoever runs it has to say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models.llama_dir import CONFIG

Numbers = NDArray[np.float32]


class Reference:
    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = {**CONFIG, **json.loads((folder / "config.json").read_bytes())}
        data = (folder / "model.safetensors").read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begin])
        header.pop("__metadata__", None)
        self.weights: dict[str, Numbers] = {
            name: np.frombuffer(data, np.float16, one["data_offsets"][1] // 2 - one["data_offsets"][0] // 2,
                                begin + one["data_offsets"][0]).reshape(one["shape"]).astype(np.float32)
            for name, one in header.items()
        }  # fmt: skip

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The likeliest tokens, one after the other."""
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(np.argmax(self.logits(ids))))
        return ids[len(prompt) :]

    def logits(self, ids: list[int]) -> Numbers:
        """Of the token that follows."""
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = x + self._attention(name, self._norm(x, f"{name}.input_layernorm.weight"))
            y = self._norm(x, f"{name}.post_attention_layernorm.weight")
            gate, up = (y @ self.weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{name}.mlp.down_proj.weight"].T
        last: Numbers = self._norm(x[-1:], "model.norm.weight") @ self.weights["lm_head.weight"].T
        found: Numbers = last[0]
        return found

    def _attention(self, name: str, x: Numbers) -> Numbers:
        width = self.config["head_dim"]
        queries, keys, values = (
            (x @ self.weights[f"{name}.self_attn.{part}_proj.weight"].T).reshape(len(x), -1, width).transpose(1, 0, 2)
            for part in "qkv"
        )
        queries, keys = self._turned(queries), self._turned(keys)
        keys, values = (np.repeat(one, len(queries) // len(one), axis=0) for one in (keys, values))
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(width)
        scores = np.where(np.tril(np.ones((len(x), len(x)), bool)), scores, -np.inf)
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        found = (chances / chances.sum(-1, keepdims=True)) @ values
        out: Numbers = found.transpose(1, 0, 2).reshape(len(x), -1) @ self.weights[f"{name}.self_attn.o_proj.weight"].T
        return out

    def _turned(self, x: Numbers) -> Numbers:
        """RoPE, the halves of a head as pairs."""
        half = x.shape[-1] // 2
        speeds = 1 / self.config["rope_theta"] ** (np.arange(half) / half)
        angles = (np.arange(x.shape[1])[:, None] * speeds).astype(np.float32)
        sin, cos = np.sin(angles), np.cos(angles)
        first, second = x[..., :half], x[..., half:]
        return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)

    def _norm(self, x: Numbers, name: str) -> Numbers:
        found: Numbers = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self.weights[name]
        return found
