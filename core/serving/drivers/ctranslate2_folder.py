"""A model folder as CTranslate2 has it: what it is, and what lies beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.serving.driver import CannotLoad
from core.serving.drivers.hf_tokenizer import HfTokenizer

WEIGHTS: Final = "model.bin"
ORIGIN: Final = "kvasir.json"
"""What `kvasir model convert` writes down of the model that was converted."""
_WITHIN_REASON: Final = 4096
"""The library reads a prompt at once, with memory for each pair of its tokens."""
_UNTOLD: Final = 2048
_FLOAT: Final = 4
"""Bytes of a number in the cache on a CPU."""
_TURN_ENDS: Final = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|eos|>")
_COMPARED: Final = 200


@dataclass(frozen=True, slots=True)
class Folder:
    tokenizer: HfTokenizer
    words: Sequence[str]
    """The library's own word for each token id; it takes prompts as words."""
    ends: tuple[int, ...]
    """Tokens that end a text."""
    context_size: int
    """What the model was made for."""
    details: Mapping[str, str]


def read_folder(folder: Path) -> Folder:
    """Raises CannotLoad with what to do where it is no such model."""
    _check(folder)
    tokenizer = HfTokenizer(folder)
    words = _words(folder)
    _check_words(folder, tokenizer, words)
    origin = _object(folder / ORIGIN)
    own = _object(folder / "config.json")
    return Folder(
        tokenizer=tokenizer,
        words=words,
        ends=_ends(folder, tokenizer, own, words),
        context_size=_context(folder, origin),
        details={
            name: str(origin[name])
            for name in ("architecture", "quantization")
            if isinstance(origin.get(name), str) and origin[name]
        },
    )


def context_size(asked: int, of_model: int) -> int:
    """Tokens of prompt and answer. Raises CannotLoad where more is asked for than the model was made for."""
    if asked > of_model:
        raise CannotLoad(f"context_size is {asked}, and the model was made for {of_model} tokens; set it to less.")
    return asked or min(of_model, _WITHIN_REASON)


def memory_bytes(folder: Path, context: int, parallel: int) -> int:
    """Of weights and full caches together, as far as is known; a long prompt takes more for a moment."""
    try:
        origin = _object(folder / ORIGIN)
        weights = (folder / WEIGHTS).stat().st_size
    except (OSError, CannotLoad):
        return 0
    cell, made_for = origin.get("cell"), origin.get("context_size")
    if not isinstance(cell, int) or not isinstance(made_for, int):
        return weights
    return weights + parallel * (context or min(made_for or _UNTOLD, _WITHIN_REASON)) * cell * _FLOAT


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise CannotLoad(f"model_path must be a folder with a converted model; {folder} is none.")
    if (folder / WEIGHTS).is_file():
        if not any((folder / f"vocabulary.{suffix}").is_file() for suffix in ("json", "txt")):
            raise CannotLoad(f"{folder} has no vocabulary.json: it is no model that writes text.")
        return
    if any(folder.glob("*.safetensors")):
        raise CannotLoad(
            f"{folder} is a model as it was published, and has to be converted once: kvasir model convert {folder} "
            f"{folder}-ct2"
        )
    if any(folder.glob("*.gguf")):
        raise CannotLoad(f"{folder} has GGUF files, which the engine «llamacpp» runs.")
    raise CannotLoad(f"{folder} has no model.bin: it is no model of CTranslate2.")


def _words(folder: Path) -> list[str]:
    file = folder / "vocabulary.json"
    try:
        if file.is_file():
            found = json.loads(file.read_bytes())
        else:
            file = folder / "vocabulary.txt"
            found = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(f"{file} cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise CannotLoad(f"{file} is no list of words.")
    return found


def _check_words(folder: Path, tokenizer: HfTokenizer, words: Sequence[str]) -> None:
    """Another model's tokenizer beside it would make nonsense of every prompt."""
    size = min(len(words), tokenizer.size)
    looked_at = range(0, size, max(1, size // _COMPARED))
    strange = sum(tokenizer.id_of(words[number]) != number for number in looked_at)
    if tokenizer.size > len(words) or strange * 10 > len(looked_at):
        raise CannotLoad(
            f"tokenizer.json and vocabulary in {folder} are not of the same model; convert it again with «kvasir model "
            "convert»."
        )


def _ends(folder: Path, tokenizer: HfTokenizer, own: Mapping[str, Any], words: Sequence[str]) -> tuple[int, ...]:
    """All that the model's files name; some name one in this file, and another in that."""
    told = _object(folder / "generation_config.json").get("eos_token_id")
    found = {one for one in (told if isinstance(told, list) else [told]) if isinstance(one, int)}
    turns = (name for name in _TURN_ENDS if name in tokenizer.controls and name in tokenizer.template)
    for name in (own.get("eos_token"), tokenizer.specials.get("eos_token"), *turns):
        number = tokenizer.id_of(name) if isinstance(name, str) else None
        found |= set() if number is None else {number}
    return tuple(sorted(one for one in found if 0 <= one < len(words)))


def _context(folder: Path, origin: Mapping[str, Any]) -> int:
    told = [origin.get("context_size"), _object(folder / "tokenizer_config.json").get("model_max_length")]
    return next((one for one in told if isinstance(one, int) and 0 < one < 10_000_000), _UNTOLD)


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(f"{file} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
