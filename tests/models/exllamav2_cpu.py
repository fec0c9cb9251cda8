"""ExLlamaV2 on a machine without a card: its own Python, with the few CUDA kernels that an FP16 model needs in torch.

Only for tests. What is replaced: `exllamav2_ext`, flash-attn's attention, and the places where the library names a
card. Configuration, tokenizer, model, caches, page table, generator, jobs and sampling settings are the library's own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="torch is not installed here: make test-models")


# ---------------------------------------------------------------- kernels
def _stloader_read(filename: str, offset: int, size: int, target: Any) -> None:
    found = np.fromfile(filename, dtype=np.uint8, count=size, offset=offset)
    target.copy_(torch.from_numpy(found).view(target.dtype).view(target.shape))


def _rms_norm(x: Any, weight: Any, target: Any, epsilon: float) -> None:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    target.copy_((wide * weight.float()).to(target.dtype))


def _rope(x: Any, sin: Any, cos: Any, past: int, heads: int, width: int, offsets: Any, neox: bool) -> None:
    assert neox
    states = x.view(x.shape[0], -1, heads, width)
    positions = torch.arange(states.shape[1])[None, :] + past
    if not offsets.is_meta:
        positions = positions + offsets.view(-1, 1).long()
    sin, cos = (table[0, 0][positions].unsqueeze(2).float() for table in (sin, cos))
    wide = states.float()
    half = width // 2
    turned = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    states.copy_((wide * cos + turned * sin).half())


def _apply_rep_penalty(
    ids: Any, penalty: float, sustain: int, decay: int, frequency: float, presence: float, logits: Any
) -> None:
    assert (sustain, decay) == (-1, 0)
    for token, count in zip(*(one.tolist() for one in ids[0].unique(return_counts=True)), strict=True):
        value = logits[0, 0, token]
        value = value / penalty if value > 0 else value * penalty
        logits[0, 0, token] = value - presence - frequency * count


def _sample_basic(logits: Any, temperature: float, top_k: int, top_p: float, *rest: Any) -> list[float]:
    top_a, min_p, tfs, typical, random, tokens, probabilities = rest[:7]
    others = dict(zip(("mirostat", "xtc", "smoothing", "skew"), (rest[10], rest[16], rest[21], rest[22]), strict=True))
    assert not any((top_a, tfs, typical, *others.values())), "a sampler is on that nobody asked for"
    wide = logits[0, 0].double() / max(temperature, 1e-9)
    order = torch.argsort(wide, descending=True, stable=True)
    chances = torch.softmax(wide[order], -1)
    keep = torch.ones_like(chances, dtype=torch.bool)
    if top_k > 0:
        keep[top_k:] = False
    if 0 < top_p < 1:
        keep &= torch.cumsum(chances, -1) - chances < top_p
    if min_p > 0:
        keep &= chances >= min_p * chances[0]
    chances = torch.where(keep, chances, torch.zeros_like(chances))
    number = int(torch.searchsorted(torch.cumsum(chances, -1) / chances.sum(), random).clamp(max=len(order) - 1))
    tokens[0, 0], probabilities[0, 0] = order[number], chances[number]
    return []


def _count_match(first: Any, second: Any, most: int) -> int:
    size = min(first.shape[-1], second.shape[-1], most)
    same: list[bool] = (first[0, :size] == second[0, :size]).tolist()
    return int(size) if all(same) else same.index(False)


def _partial_strings_match(text: Any, offsets: Any, strings: Any) -> int:
    said = bytes(text).decode("utf-32-le")
    places = np.frombuffer(bytes(offsets), np.int32)
    for begin, end in pairwise(places):
        stop = bytes(strings)[begin:end].decode("utf-32-le")
        if (found := said.find(stop)) >= 0:
            return found
        if any(said.endswith(stop[:size]) for size in range(1, len(stop))):
            return -2
    return -1


_exact: dict[int, tuple[Any, Any]] = {}
"""Whole layers of quantized caches, kept as they were: only the way to them is tried here, not how exact they are."""


def _to_q(keys: Any, kept: Any, _scales: Any, values: Any, *_: Any) -> None:
    _exact[kept.data_ptr()] = (keys.clone(), values.clone())


def _from_q(kept: Any, keys: Any, _scales: Any, _kept: Any, values: Any, *_: Any) -> None:
    for target, source in zip((keys, values), _exact.get(kept.data_ptr(), ()), strict=False):
        target.copy_(source)


def _cache_rotate(cache: Any, order: Any, _buffer: Any) -> None:
    """Page by page: the first goes aside, each next one takes the place before it."""
    places = order.tolist()
    kept = cache[places[0]].clone()
    for target, source in pairwise(places):
        cache[target] = cache[source]
    cache[places[-1]] = kept


def _attended(queries: Any, keys: Any, values: Any, scale: float) -> Any:
    """Causal attention of the last positions: (rows, heads, width) each."""
    repeat = queries.shape[1] // keys.shape[1]
    keys, values = (one.float().transpose(0, 1).repeat_interleave(repeat, 0) for one in (keys, values))
    scores = queries.float().transpose(0, 1) @ keys.transpose(1, 2) * scale
    allowed = torch.ones(len(queries), keys.shape[1], dtype=torch.bool).tril(keys.shape[1] - len(queries))
    found = torch.softmax(scores.masked_fill(~allowed, float("-inf")), -1) @ values
    return found.transpose(0, 1).half()


def _flash_attn(
    q: Any, k: Any, v: Any, *, causal: bool, softmax_scale: float, window_size: Any = (-1, -1), softcap: float = 0.0
) -> Any:
    assert causal
    assert not softcap
    assert max(window_size) <= 0
    return torch.stack([_attended(*rows, softmax_scale) for rows in zip(q, k, v, strict=True)])


def _with_kvcache(
    *, q: Any, k: Any, v: Any, k_cache: Any, v_cache: Any, cache_seqlens: Any, block_table: Any, causal: bool,
    softmax_scale: float, **_: Any,
) -> Any:  # fmt: skip
    """flash-attn's paged attention, row by row."""
    assert causal
    page, out = k_cache.shape[1], torch.empty_like(q)
    for row in range(q.shape[0]):
        length, pages = int(cache_seqlens[row]), block_table[row].tolist()
        if k is not None:
            for number in range(q.shape[1]):
                place = length + number
                k_cache[pages[place // page], place % page] = k[row, number]
                v_cache[pages[place // page], place % page] = v[row, number]
            length += q.shape[1]
        count = math.ceil(length / page)
        keys, values = (cache[pages[:count]].reshape(-1, *cache.shape[2:])[:length] for cache in (k_cache, v_cache))
        out[row] = _attended(q[row], keys, values, softmax_scale)
    return out


_KERNELS = {
    "stloader_read": _stloader_read, "rms_norm": _rms_norm, "rope_": _rope, "apply_rep_penalty": _apply_rep_penalty,
    "sample_basic": _sample_basic, "count_match": _count_match, "partial_strings_match": _partial_strings_match,
    "cache_rotate": _cache_rotate, "fp16_to_q_kv": _to_q, "q_to_fp16_kv": _from_q,
}  # fmt: skip


# ---------------------------------------------------------------- the library
@contextmanager
def on_cpu(*, flash: bool) -> Iterator[tuple[Any, Any]]:
    """(exllamav2, exllamav2.generator), imported afresh, with or without flash-attn."""
    former = {name: module for name, module in sys.modules.items() if _is_theirs(name)}
    for name in former:
        del sys.modules[name]
    patch = pytest.MonkeyPatch()
    threads = torch.get_num_threads()
    try:
        _pretend(patch, flash=flash)
        library, generator = import_module("exllamav2"), import_module("exllamav2.generator")
        for module in [module for name, module in sys.modules.items() if name.startswith("exllamav2.")]:
            for name, value in {"_torch_device": _on_cpu, "safe_move_tensor": _stays}.items():
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield library, generator
    finally:
        patch.undo()
        _exact.clear()
        for name in [name for name in sys.modules if _is_theirs(name)]:
            del sys.modules[name]
        sys.modules.update(former)
        torch.set_num_threads(threads)


def _on_cpu(_index: int) -> str:
    return "cpu"


def _stays(tensor: Any, *_: Any, **__: Any) -> Any:
    return tensor


def _is_theirs(name: str) -> bool:
    return name.partition(".")[0] in ("exllamav2", "exllamav2_ext", "flash_attn", "flash_attn_2_cuda")


def _pretend(patch: pytest.MonkeyPatch, *, flash: bool) -> None:
    extension = ModuleType("exllamav2_ext")
    vars(extension).update(_KERNELS)
    patch.setitem(sys.modules, "exllamav2_ext", extension)
    if flash:
        attention = ModuleType("flash_attn")
        vars(attention).update(
            __version__="2.8.3", flash_attn_func=_flash_attn,
            flash_attn_varlen_func=None, flash_attn_with_kvcache=_with_kvcache,
        )  # fmt: skip
        patch.setitem(sys.modules, "flash_attn", attention)
        patch.setitem(sys.modules, "flash_attn_2_cuda", ModuleType("flash_attn_2_cuda"))
    patch.setenv("EXLLAMA_NO_XFORMERS", "1")
    card = SimpleNamespace(major=9, minor=0)
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda _number=0: "no card",
        "get_device_capability": lambda _number=0: (9, 0),
        "get_device_properties": lambda _number=0: card,
        "memory_reserved": lambda _number=0: 0,
        "memory_allocated": lambda _number=0: 0,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "Stream": lambda *_: None,
        "set_stream": lambda _stream: None,
        "set_device": lambda _device: None,
        "device": lambda _device: nullcontext(),
    }.items():
        patch.setattr(torch.cuda, name, value)
