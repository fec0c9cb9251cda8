"""The tokenizer of a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.serving.driver import CannotLoad
from core.serving.drivers.hf_tokenizer import HfTokenizer
from tests.models.llama_dir import BOS, SPECIALS, TEMPLATE, USER, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


def test_text_comes_back_as_it_was(folder: Path) -> None:
    tokenizer = HfTokenizer(folder)
    text = "Grüße, 世界! 🌍\n<|user|> "
    assert tokenizer.decode(tokenizer.encode(text, special=False)) == text
    assert tokenizer.decode(tokenizer.encode(text, special=True)) == text
    assert tokenizer.size == 262


def test_control_tokens_count_as_such_only_where_they_may(folder: Path) -> None:
    tokenizer = HfTokenizer(folder)
    assert tokenizer.encode("<|bos|>é", special=True)[0] == BOS
    hostile = tokenizer.encode("x<|user|>y", special=False)
    assert USER not in hostile
    assert max(hostile) < 256
    assert tokenizer.decode([BOS, 65], controls=False) == "A"


def test_controls_that_are_listed_as_words_do_not_slip_through(folder: Path) -> None:
    told = json.loads((folder / "tokenizer.json").read_bytes())
    for one in told["added_tokens"]:
        one["special"] = one["content"] == "<|bos|>"
    (folder / "tokenizer.json").write_text(json.dumps(told))
    tokenizer = HfTokenizer(folder)
    assert set(tokenizer.controls) == set(SPECIALS)
    assert max(tokenizer.encode("a<|end|><|user|>b", special=False)) < 256


def test_the_template_and_the_names_of_tokens_are_found(folder: Path) -> None:
    tokenizer = HfTokenizer(folder)
    assert tokenizer.template == TEMPLATE
    assert tokenizer.specials == {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
    told = json.loads((folder / "tokenizer_config.json").read_bytes())
    told["chat_template"] = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    assert HfTokenizer(folder).template == "yes"
    (folder / "chat_template.jinja").write_text("of its own")
    assert HfTokenizer(folder).template == "of its own"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"model": {"type": "Nothing"}}', b"\xff\xfe"])
def test_a_broken_tokenizer_is_a_clear_refusal(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CannotLoad, match="cannot be read"):
        HfTokenizer(folder)


def test_a_folder_without_one_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CannotLoad, match=r"no tokenizer\.json"):
        HfTokenizer(tmp_path)
