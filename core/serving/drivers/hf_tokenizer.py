"""The tokenizer of a model folder in Hugging Face's form: `tokenizer.json`, and what lies beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer as Library

from core.serving.driver import CannotLoad

FILE: Final = "tokenizer.json"
_NAMES: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_SPECIAL_WORD: Final = re.compile(r"<[|/]?[\w|.:/ ▁-]+[|]?>|\[/?[A-Z_]+\]|<<?/?SYS>>|<[|｜].+[|｜]>")
"""What controls look like; some models list theirs as common words."""


class HfTokenizer:
    """Text to token ids and back; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises CannotLoad where the folder has no tokenizer that can be read without running its code."""
        file = folder / FILE
        if not file.is_file():
            raise CannotLoad(
                f"{folder.name} has no tokenizer.json. A model with only a tokenizer.model (SentencePiece) is to be "
                "saved once with a newer transformers, which writes the file."
            )
        try:
            told = json.loads(file.read_bytes())
            self._marked = _library(told)
            self._controls = _controls(told)
            self._plain = _library(_all_special(told, self._controls))
        except Exception as error:  # the library raises nothing more exact for a broken file
            raise CannotLoad(f"{file} cannot be read: {error}") from error
        self._plain.encode_special_tokens = True
        config = _object(folder / "tokenizer_config.json")
        self._template = _template(folder, config)
        self._specials = _specials(config, _object(folder / "special_tokens_map.json"))

    @property
    def template(self) -> str:
        """The model's own chat template (Jinja); empty where it has none."""
        return self._template

    @property
    def specials(self) -> Mapping[str, str]:
        return self._specials

    @property
    def controls(self) -> Sequence[str]:
        return self._controls

    @property
    def size(self) -> int:
        """Number of token ids, those that were added among them."""
        return int(self._marked.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool) -> list[int]:
        library = self._marked if special else self._plain
        return list(library.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, controls: bool = True) -> str:
        """The text; `controls`: with control tokens as they are written."""
        return str(self._marked.decode(list(ids), skip_special_tokens=not controls))

    def id_of(self, token: str) -> int | None:
        """The token's id; None where the model has none."""
        found = self._marked.token_to_id(token)
        return None if found is None else int(found)

    def as_json(self) -> str:
        """The tokenizer itself, for libraries that build their own from it."""
        return str(self._marked.to_str())


def _library(told: Mapping[str, Any]) -> Library:
    made = Library.from_str(json.dumps(told))
    made.no_truncation()
    made.no_padding()
    return made


def _controls(told: Mapping[str, Any]) -> tuple[str, ...]:
    added = told.get("added_tokens") or []
    return tuple(one["content"] for one in added if one.get("special") or _SPECIAL_WORD.fullmatch(one["content"]))


def _all_special(told: Mapping[str, Any], controls: Sequence[str]) -> dict[str, Any]:
    """The same with every control marked as special: only those can be read as plain characters."""
    added = [{**one, "special": one["content"] in controls} for one in told.get("added_tokens") or []]
    return {**told, "added_tokens": added}


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(f"{file} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _template(folder: Path, config: Mapping[str, Any]) -> str:
    """A file of its own goes before what the configuration says, as in transformers."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise CannotLoad(f"{folder / 'chat_template.jinja'} cannot be read: {error}") from error
    found = _object(folder / "chat_template.json").get("chat_template") or config.get("chat_template") or ""
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default") or next((text for text in named.values() if text), "")
    return found if isinstance(found, str) else ""


def _specials(*sources: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in sources:
        for name in _NAMES:
            value = source.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str) and text:
                found.setdefault(name, text)
    return found
