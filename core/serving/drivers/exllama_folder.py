"""The folder of an ExLlama model: what it holds, whether it may be loaded, and how much memory it takes.

Nothing of it is run: weights are read from safetensors alone, and neither library is imported to find that out.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from core.serving.driver import CannotLoad

Library: TypeAlias = Literal["exllamav2", "exllamav3"]

PAGE: Final = 256
"""Tokens of a page of the cache; its size is a multiple of it."""
_MAX_HEADER: Final = 100_000_000
_MAX_JSON: Final = 64_000_000
_TAKES: Final[Mapping[Library, Mapping[str, str]]] = {
    "exllamav2": {"exl2": "EXL2", "gptq": "GPTQ with 4 bits", "plain": "FP16"},
    "exllamav3": {"exl3": "EXL3", "plain": "FP16", "fp8": "FP8"},
}
_ELSEWHERE: Final[Mapping[str, str]] = {
    "exl2": "The engine exllamav2 takes it.",
    "gptq": "The engine exllamav2 takes it where it has 4 bits.",
    "exl3": "The engine exllamav3 takes it.",
    "awq": "A vLLM of yours takes it, by the engine openai.",
    "gguf": "The engine llamacpp takes it.",
    "ctranslate2": "The engine ctranslate2 takes it.",
}
_OTHERWISE: Final = "A server of yours that takes it can be used by the engine openai."
_WIDTHS: Final[Mapping[str, float]] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_SCALE: Final = 2 / 32
"""Bytes of an element of a quantized cache for the scale that 32 of them share."""
_CACHE: Final = re.compile(r"q([2-8])|([2-8]),([2-8])")
_BESIDE: Final = 768 * 1024**2
"""CUDA's own memory on a card, and that of the library's kernels."""


# ---------------------------------------------------------------- what a folder holds
@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that may be loaded."""

    path: Path
    config: Mapping[str, Any]
    """`config.json` in the words that both libraries read."""
    format: str
    """`exl2`, `exl3`, `gptq`, `fp8` or `plain`."""
    bits: float
    """Of a weight, as the quantization says; 16 where there is none."""
    weights: tuple[str, ...]
    """Names of the files that are read."""
    weight_bytes: int
    """Bytes of the weights on the cards."""
    widest: int
    """Numbers in the largest matrix; it is unpacked for long prompts."""

    @property
    def architecture(self) -> str:
        return str(self.config["architectures"][0])

    @property
    def context_size(self) -> int:
        """Tokens the model was made for."""
        names = ("max_sequence_length", "model_max_length", "max_position_embeddings", "max_seq_len", "n_positions")
        return next((int(value) for name in names if (value := self.text(name))), 2048)

    @property
    def quantization(self) -> str:
        if self.format == "plain":
            return "FP16"
        return f"{self.format.upper()} {self.bits:g} bits" if self.bits else self.format.upper()

    @property
    def stops(self) -> tuple[int, ...]:
        """All ids that end an answer: those of the configuration and those for generating, which often differ."""
        told = read_object(self.path / "generation_config.json", missing_ok=True)
        found = [*_ids(told.get("eos_token_id")), *_ids(self.config.get("eos_token_id"))]
        return tuple(dict.fromkeys([*found, *_ids(self._inner.get("eos_token_id"))]))

    @property
    def layers(self) -> int:
        return int(self.text("num_hidden_layers", "n_layers", "n_layer") or 0)

    @property
    def kv_width(self) -> int:
        """Numbers in the keys of a token, in one layer."""
        heads = int(self.text("num_attention_heads", "n_heads", "n_head") or 1)
        hidden = int(self.text("hidden_size", "d_model", "n_embd") or 0)
        return int(self.text("num_key_value_heads") or heads) * self.head_dim(hidden, heads)

    def head_dim(self, hidden: int = 0, heads: int = 0) -> int:
        heads = heads or int(self.text("num_attention_heads", "n_heads", "n_head") or 1)
        hidden = hidden or int(self.text("hidden_size", "d_model", "n_embd") or 0)
        return int(self.text("head_dim") or hidden // max(heads, 1))

    def text(self, *names: str) -> Any:
        """The first of these that is set; models with eyes keep them one level down."""
        places = (self.config, self._inner)
        return next((place[name] for place in places for name in names if place.get(name) is not None), None)

    @property
    def _inner(self) -> Mapping[str, Any]:
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else {}


def read_folder(path: Path, library: Library) -> ModelFolder:
    """The model in the folder. Raises CannotLoad with a sentence that says which engine takes it, or why none does."""
    _refuse_other_files(path, library)
    told = read_object(path / "config.json")
    _refuse_code(path, told)
    architectures = told.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        raise CannotLoad(f"{path.name}: config.json names no architecture, or several; a language model has one.")
    format_, bits = _format_of(path, told, library)
    weights = _weights_of(path)
    size, widest = _measure(path, weights, format_)
    return ModelFolder(path, normalised(told), format_, bits, weights, size, widest)


def check_architecture(folder: ModelFolder, library: Library) -> None:
    """Raises CannotLoad where the library does not know the model's architecture.

    ExLlamaV2 would load it as a Llama all the same, and write nonsense.
    """
    known = architectures_of(library)
    if known and folder.architecture not in known:
        raise CannotLoad(
            f"{folder.path.name} is a {folder.architecture}, which {library} does not know. "
            f"It knows: {', '.join(sorted(known))}."
        )


def architectures_of(library: Library) -> frozenset[str]:
    """Those that the installed library names in its own source; importing it would build its extension first."""
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        return frozenset()
    package = Path(found.origin).parent
    if library == "exllamav2":
        return frozenset({"LlamaForCausalLM", *_compared(package / "architecture.py", "arch_string")})
    files = sorted((package / "architecture").glob("*.py"))
    return frozenset(name for file in files for name in _assigned(file, "arch_string"))


def cache_bits(cache: str, library: Library) -> tuple[int, int]:
    """Bits of an element of keys and of values; 16 for `fp16`. Raises CannotLoad where there is no such cache."""
    if cache == "fp16":
        return 16, 16
    found = _CACHE.fullmatch(cache)
    if library == "exllamav2":
        own = {"q8": (8, 8), "q6": (8, 4), "q4": (4, 4)}
        if cache not in own:
            raise CannotLoad(f"exllamav2 has no cache «{cache}»; it has fp16, {', '.join(own)}.")
        return own[cache]
    if found is None:
        raise CannotLoad(
            f"exllamav3 has no cache «{cache}»; it has fp16, q2 to q8, and bits of keys and values as 8,4."
        )
    return (int(found[1]), int(found[1])) if found[1] else (int(found[2]), int(found[3]))


def cache_bytes(folder: ModelFolder, tokens: int, cache: str, library: Library) -> int:
    """Bytes of a cache for so many tokens."""
    keys, values = (bits / 8 + (0 if bits == 16 else _SCALE) for bits in cache_bits(cache, library))
    elements = rounded(tokens) * folder.kv_width
    unpacked = 2 * 2 * elements if library == "exllamav2" and cache != "fp16" else 0  # one layer's, as FP16
    return int(elements * folder.layers * (keys + values)) + unpacked


def memory_bytes(folder: ModelFolder, library: Library, *, tokens: int, cache: str, chunk: int, cards: int = 1) -> int:
    """Bytes that the loaded model takes on its cards together; an estimate on the high side."""
    hidden = int(folder.text("hidden_size", "d_model", "n_embd") or 0)
    inner = int(folder.text("intermediate_size", "n_inner") or 4 * hidden)
    vocabulary = int(folder.text("vocab_size") or 0)
    passing = chunk * (6 * hidden + 3 * inner) * 2 + vocabulary * 64 * 4
    unpacked = 0 if folder.format == "plain" else folder.widest * 2
    return folder.weight_bytes + cache_bytes(folder, tokens, cache, library) + passing + unpacked + cards * _BESIDE


def rounded(tokens: int) -> int:
    """Up to whole pages."""
    return -(-tokens // PAGE) * PAGE


# ---------------------------------------------------------------- the words of the configuration
def normalised(told: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` as ExLlamaV2 reads it: newer transformers write RoPE in another form, which it overlooks."""
    found = _with_rope(dict(told))
    if isinstance(found.get("text_config"), dict):
        found["text_config"] = _with_rope(dict(found["text_config"]))
    return found


def _with_rope(told: dict[str, Any]) -> dict[str, Any]:
    rope = told.get("rope_parameters")
    if isinstance(rope, dict):
        layered = rope.get("full_attention")
        sliding = rope.get("sliding_attention")
        rope = dict(layered if isinstance(layered, dict) else rope)
        if isinstance(sliding, dict) and sliding.get("rope_theta") is not None:
            told.setdefault("rope_local_base_freq", sliding["rope_theta"])
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
            if rope.get(name) is not None and (name == "rope_theta" or told.get(name) is None):
                told[name] = rope[name]
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind != "default" and not told.get("rope_scaling"):
            told["rope_scaling"] = {
                key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")
            }
    scaling = told.get("rope_scaling")
    if isinstance(scaling, dict) and scaling.get("rope_type") and "type" in scaling:
        told["rope_scaling"] = {key: value for key, value in scaling.items() if key != "type"}
    return told


# ---------------------------------------------------------------- what is refused
def _refuse_other_files(path: Path, library: Library) -> None:
    if path.is_file():
        kind = "gguf" if path.suffix.lower() == ".gguf" else ""
        raise CannotLoad(f"{path.name} is a file; {library} takes a folder. {_elsewhere(kind)}")
    if not path.is_dir():
        raise CannotLoad(f"There is no folder {path}.")
    names = {one.name for one in path.iterdir()}
    if any(name.endswith(".safetensors") for name in names):
        return
    if any(name.lower().endswith(".gguf") for name in names):
        raise CannotLoad(f"{path.name} holds a GGUF model. {_elsewhere('gguf')}")
    if "model.bin" in names and not any(name.endswith("tokenizer_config.json") for name in names - {"config.json"}):
        raise CannotLoad(f"{path.name} looks like a model for CTranslate2. {_elsewhere('ctranslate2')}")
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if pickles:
        raise CannotLoad(
            f"{path.name} has its weights only as {pickles[0]}, which can run code of whoever made it; "
            "only safetensors are loaded."
        )
    raise CannotLoad(f"{path.name} has no weights: there is no file that ends in .safetensors.")


def _refuse_code(path: Path, told: Mapping[str, Any]) -> None:
    """Its own code is never run; a model that needs it has no architecture that a library knows."""
    if told.get("auto_map") and any(path.glob("*.py")) and not told.get("architectures"):
        raise CannotLoad(f"{path.name} runs only with code of its own, which Kvasir never does.")


def _format_of(path: Path, told: Mapping[str, Any], library: Library) -> tuple[str, float]:
    quantization = told.get("quantization_config") or {}
    method = str(quantization.get("quant_method") or ("plain" if not quantization else "unknown")).lower()
    bits = quantization.get("bits")
    number = float(bits) if isinstance(bits, int | float) else (16.0 if method == "plain" else 0.0)
    takes = _TAKES[library]
    if method not in takes:
        word = {"plain": "FP16"}.get(method, method.upper())
        raise CannotLoad(f"{path.name} is {word}; {library} takes {', '.join(takes.values())}. {_elsewhere(method)}")
    if method == "gptq" and number != 4:
        raise CannotLoad(f"{path.name} is GPTQ with {number:g} bits; exllamav2 takes 4. {_elsewhere('')}")
    return method, number


def _elsewhere(kind: str) -> str:
    return _ELSEWHERE.get(kind, _OTHERWISE)


# ---------------------------------------------------------------- files
def read_object(file: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """The JSON object in the file. Raises CannotLoad where it is none."""
    try:
        if file.stat().st_size > _MAX_JSON:
            raise CannotLoad(f"{file} is too large.")
        found = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        if missing_ok:
            return {}
        raise CannotLoad(f"{file.parent.name} has no {file.name}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CannotLoad(f"{file} holds no JSON object.")
    return found


def _weights_of(path: Path) -> tuple[str, ...]:
    """The files that the index names, or all; adapters, and the second copy that some makers add, are none."""
    index = read_object(path / "model.safetensors.index.json", missing_ok=True).get("weight_map")
    if isinstance(index, dict) and index:
        named = sorted({str(name) for name in index.values()})
        for name in named:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise CannotLoad(f"{path.name}: its index names the file {name!r}, which is none of its own.")
            if not (path / name).is_file():
                raise CannotLoad(f"{path.name}: {name} is missing; the index names it.")
        return tuple(named)
    found = sorted(
        one.name for one in path.glob("*.safetensors") if not one.name.startswith(("adapter", "consolidated"))
    )
    return tuple(found) or tuple(sorted(one.name for one in path.glob("consolidated*.safetensors")))


def _measure(path: Path, weights: Iterable[str], format_: str) -> tuple[int, int]:
    """(bytes on the cards, numbers in the largest matrix). Embeddings stay in main memory, unless they are the head."""
    total, widest, embeddings, has_head = 0, 0, 0, False
    for name in weights:
        for key, dtype, shape, size in _tensors(path / name):
            count = math.prod(shape)
            if dtype in _WIDTHS and format_ in ("plain", "exl2", "gptq", "exl3"):
                size = count * 2
            if re.search(r"(embed_tokens|wte|tok_embeddings)\.weight$", key):
                embeddings += size
                continue
            has_head = has_head or bool(re.search(r"(lm_head|output)\.", key))
            widest = max(widest, count * (1 if dtype in _WIDTHS else 8))
            total += size
    return total + (0 if has_head else embeddings), widest


def _tensors(file: Path) -> Iterable[tuple[str, str, list[int], int]]:
    """(name, type, shape, bytes) of each. Raises CannotLoad for a file that breaks the format."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 2 <= length <= min(file.stat().st_size - 8, _MAX_HEADER):
                raise CannotLoad(f"{file} is no safetensors file, or was cut off.")
            header = json.loads(opened.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                yield name, str(entry["dtype"]), [int(one) for one in entry["shape"]], int(end) - int(begin)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CannotLoad(f"{file} cannot be read: {error}") from error


def _ids(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, int) and not isinstance(one, bool) and one >= 0]


# ---------------------------------------------------------------- what a library says in its source
def _compared(file: Path, name: str) -> set[str]:
    """The texts that a variable of that name is compared with."""
    found: set[str] = set()
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == name:
            found |= {
                one.value for one in node.comparators if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
    return found


def _assigned(file: Path, name: str) -> set[str]:
    """The texts that a variable of that name is set to."""
    found: set[str] = set()
    for node in ast.walk(_parsed(file)):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        is_it = any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        if is_it and isinstance(node.value.value, str):
            found.add(node.value.value)
    return found


def _parsed(file: Path) -> ast.AST:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise CannotLoad(f"{file} of the library cannot be read: {error}") from error
