"""ExLlamaV3 on a machine without a card: its own generator over a Llama of torch's making.

Only for tests. Configuration, tokenizer, model tree, cache geometry, page table, generator, jobs, filters and samplers
are the library's own; what the model computes, how its cache is stored, and a handful of kernels are done here.
"""

from __future__ import annotations

import importlib.machinery
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed here: make test-models")

PAGE = 256


# ---------------------------------------------------------------- what the model computes
class Llama:
    """The weights of a tiny Llama, and keys and values by page, for each cache."""

    def __init__(self, folder: Path, cache_tokens: int) -> None:
        told = json.loads((folder / "config.json").read_bytes())
        self.heads, self.kv_heads, self.width = (
            told[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
        )
        self.base, self.epsilon, self.layers = told["rope_theta"], told["rms_norm_eps"], told["num_hidden_layers"]
        load_file = import_module("safetensors.torch").load_file
        self.weights = {name: one.float() for name, one in load_file(folder / "model.safetensors").items()}
        shape = (cache_tokens // PAGE, PAGE, self.kv_heads, self.width)
        self.kept = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self.layers)]

    def forward(self, ids: Any, blocks: Any, past: list[int]) -> Any:
        rows = [self._row(ids[row], blocks[row].tolist(), past[row]) for row in range(ids.shape[0])]
        return torch.stack(rows).half()

    def _row(self, ids: Any, pages: list[int], past: int) -> Any:
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            y = self._norm(x, f"{name}.input_layernorm.weight")
            queries, keys, values = (
                (y @ self.weights[f"{name}.self_attn.{part}_proj.weight"].T).view(len(ids), -1, self.width)
                for part in "qkv"
            )
            found = self._attended(self._turned(queries, past), self._turned(keys, past), values, layer, pages, past)
            x = x + found.reshape(len(ids), -1) @ self.weights[f"{name}.self_attn.o_proj.weight"].T
            y = self._norm(x, f"{name}.post_attention_layernorm.weight")
            gate, up = (y @ self.weights[f"{name}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
            x = x + (torch.nn.functional.silu(gate) * up) @ self.weights[f"{name}.mlp.down_proj.weight"].T
        return self._norm(x, "model.norm.weight") @ self.weights["lm_head.weight"].T

    def _attended(self, queries: Any, keys: Any, values: Any, layer: int, pages: list[int], past: int) -> Any:
        length = past + len(queries)
        for kept, new in zip(self.kept[layer], (keys, values), strict=True):
            for number in range(len(queries)):
                place = past + number
                kept[pages[place // PAGE], place % PAGE] = new[number]
        used = pages[: -(-length // PAGE)]
        keys, values = (kept[used].reshape(-1, self.kv_heads, self.width)[:length] for kept in self.kept[layer])
        keys, values = (one.transpose(0, 1).repeat_interleave(self.heads // self.kv_heads, 0) for one in (keys, values))
        scores = queries.transpose(0, 1) @ keys.transpose(1, 2) * self.width**-0.5
        allowed = torch.ones(len(queries), length, dtype=torch.bool).tril(past)
        return (torch.softmax(scores.masked_fill(~allowed, float("-inf")), -1) @ values).transpose(0, 1)

    def _turned(self, x: Any, past: int) -> Any:
        half = self.width // 2
        speeds = 1 / self.base ** (torch.arange(half) / half)
        angles = (torch.arange(len(x))[:, None] + past) * speeds
        sin, cos = angles.sin()[:, None], angles.cos()[:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    def _norm(self, x: Any, name: str) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weights[name]


# ---------------------------------------------------------------- kernels
def _stage_decode(
    arena: Any, width: int, blocks: Any, places: Any, ropes: Any, batch: Any, ids: Any, pages: Any, offsets: Any
) -> None:
    assert not ropes
    rows = len(blocks)
    table, lengths = arena[: rows * width].view(rows, width), arena[rows * width :]
    for row in range(rows):
        table[row] = 0
        size = min(blocks[row].numel(), width)
        table[row, :size] = blocks[row][:size]
        lengths[row] = places[row]
        if len(ids):
            batch[row, 0] = pages[row][0, offsets[row]] = ids[row][0, places[row]]


def _bitmask(logits: Any, target: Any, mask: Any) -> None:
    allowed = np.unpackbits(mask.numpy().view(np.uint8).reshape(-1), bitorder="little").astype(bool)
    target.copy_(logits)
    size = min(len(allowed), target.shape[-1])
    target[:, :size][:, torch.from_numpy(~allowed[:size])] = float("-inf")
    target[:, size:] = float("-inf")


def _rep_pens(logits: Any, target: Any, past: Any, penalty: float, sustain: int, decay: int) -> None:
    assert sustain > past.shape[-1]
    assert decay == 0
    target.copy_(logits)
    tokens = past[0].unique()
    kept = target[0, tokens]
    target[0, tokens] = torch.where(kept > 0, kept / penalty, kept * penalty)


def _pres_freq_pens(
    logits: Any, target: Any, past: Any, presence: float, frequency: float, sustain: int, decay: int
) -> None:
    assert sustain > past.shape[-1]
    assert decay == 0
    target.copy_(logits)
    tokens, counts = past[0].unique(return_counts=True)
    target[0, tokens] -= presence + frequency * counts


def _gumbel(is_log: bool) -> Callable[[Any, Any, int], None]:
    def add(source: Any, target: Any, seed: int) -> None:
        numbers = np.random.default_rng(seed).gumbel(size=tuple(source.shape)).astype(np.float32)
        target.copy_((source.float().log() if is_log else source.float()) + torch.from_numpy(numbers))

    return add


def _rotate(cache: Any, order: Any, _buffer: Any) -> None:
    pairs, aside = order.view(-1, 2).tolist(), None
    for target, source in pairs:
        if target < 0:
            aside = cache[source].clone()
        else:
            cache[target] = aside if source < 0 else cache[source]


def _extension() -> ModuleType:
    from tests.models.exllamav2_cpu import _count_match, _partial_strings_match

    class Extension(ModuleType):
        def __getattr__(self, name: str) -> Any:
            """The library names many kernels when it is imported; those that it then calls are below."""
            if name.startswith("__"):
                raise AttributeError(name)
            if name.isupper():
                return 1

            def missing(*_: Any, **__: Any) -> Any:
                raise NotImplementedError(f"the kernel {name} is not done here")

            return missing

    made = Extension("exllamav3_ext")
    vars(made).update(
        generator_stage_decode=_stage_decode, apply_logit_bitmask=_bitmask, apply_rep_pens=_rep_pens,
        apply_pres_freq_pens=_pres_freq_pens, gumbel_noise_f16=_gumbel(False), gumbel_noise_f32=_gumbel(False),
        gumbel_noise_log=_gumbel(True), cache_rotate=_rotate, count_match_tensor=_count_match,
        partial_strings_match=_partial_strings_match,
    )  # fmt: skip
    place = f"/nowhere/exllamav3_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    made.__spec__ = importlib.machinery.ModuleSpec("exllamav3_ext", SimpleNamespace(), origin=place)  # type: ignore[arg-type]
    return made


# ---------------------------------------------------------------- the library
@contextmanager
def on_cpu() -> Iterator[Any]:
    """exllamav3, imported afresh."""
    former = {name: module for name, module in sys.modules.items() if _is_theirs(name)}
    for name in former:
        del sys.modules[name]
    patch = pytest.MonkeyPatch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _pretend(patch)
        library = import_module("exllamav3")
        _put_in(patch, library)
        yield library
    finally:
        patch.undo()
        for name in [name for name in sys.modules if _is_theirs(name)]:
            del sys.modules[name]
        sys.modules.update(former)
        torch.set_num_threads(threads)


def _is_theirs(name: str) -> bool:
    return name.partition(".")[0] in ("exllamav3", "exllamav3_ext")


def _places(params: dict[str, Any]) -> tuple[Any, list[int]]:
    """Pages of each row, and how much of it is known; a rehearsal's rows lie one behind the other."""
    blocks = params.get("block_table")
    if blocks is None:
        return torch.arange(params["batch_shape"][1] // PAGE)[None], [params["past_len"]]
    return (blocks if blocks.dim() == 2 else blocks[None]), params["cache_seqlens"].tolist()


def _put_in(patch: pytest.MonkeyPatch, library: Any) -> None:
    """Our Llama in the place of what the model computes."""
    models: dict[int, Llama] = {}

    def load(self: Any, *, callback: Any, **_: Any) -> None:
        for ref in self.cache_weakrefs.values():
            cache = ref()
            models[id(cache)] = Llama(Path(self.config.directory), cache.max_num_tokens)
            cache.initialized = True
        for done in range(len(self.modules) + 1):
            callback(done, len(self.modules))
        self.output_device = torch.device("cpu")

    def forward(_self: Any, input_ids: Any, params: dict[str, Any]) -> Any:
        logits = models[id(params["cache"])].forward(input_ids, *_places(params))
        return logits[:, -params["last_tokens_only"] :] if params.get("last_tokens_only") else logits

    def copy_page(self: Any, target: Any, source_page: int, target_page: int, tokens: int) -> None:
        for mine, theirs in zip(models[id(self)].kept, models[id(target)].kept, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                other[target_page, :tokens] = one[source_page, :tokens]

    def all_tensors(self: Any) -> list[Any]:
        return [one for pair in models[id(self)].kept for one in pair]

    for name, value in {"load": load, "forward": forward, "prefill": forward, "unload": lambda _self: None}.items():
        patch.setattr(library.Model, name, value)
    patch.setattr(library.Model, "warmup", lambda *_, callback, **__: callback(1, 1) or [])
    patch.setattr(import_module("exllamav3.util.misc"), "_has_primary_context", lambda _number: False)
    patch.setattr(library.Cache, "copy_page", copy_page)
    patch.setattr(library.Cache, "get_all_tensors", all_tensors)


def _pretend(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "exllamav3_ext", _extension())
    patch.setenv("EXL3_FUSED_SAMPLER", "0")
    for name in ("empty", "zeros"):
        patch.setattr(torch, name, _unpinned(getattr(torch, name)))
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda _number=0: "no card",
        "get_device_capability": lambda _number=0: (9, 0),
        "memory_reserved": lambda _number=0: 0,
        "memory_allocated": lambda _number=0: 0,
        "synchronize": lambda *_: None,
        "device": lambda _device: nullcontext(),
    }.items():
        patch.setattr(torch.cuda, name, value)


def _unpinned(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*sizes: Any, pin_memory: bool = False, **values: Any) -> Any:
        return make(*sizes, **values)

    return made
