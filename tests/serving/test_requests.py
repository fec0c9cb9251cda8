"""What is asked of a worker: whatever comes, it is understood or refused by a sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from core.serving import requests
from core.serving.memory import cache_bytes, lacking
from core.serving.plan import Plan
from core.serving.requests import BadRequest

ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    *("messages", "model", "prompt", "input", "query", "documents", "stream", "stream_options", "max_tokens"),
    *("temperature", "top_p", "top_k", "seed", "stop", "response_format", "guided_json", "guided_regex", "user", "n"),
    *("top_n", "encoding_format", "input_type", "chat_template_kwargs", "text", "content"),
]
READERS = (requests.chat, requests.completion, requests.embedding, requests.reranking, requests.messages_or_text)
MESSAGE = {"role": "user", "content": "a"}


@given(some.dictionaries(some.sampled_from(FIELDS), ANYTHING, max_size=5), some.booleans())
def test_whatever_comes_is_understood_or_refused(body: dict[str, Any], is_chat: bool) -> None:
    for read in READERS:
        with suppress(BadRequest):
            read({**body, "messages": [MESSAGE]} if is_chat else body)


def test_what_was_said_is_what_is_meant() -> None:
    asked = requests.chat(
        {
            "messages": [MESSAGE, {"role": "developer", "content": [{"type": "text", "text": "b"}]}],
            "max_completion_tokens": 7,
            "temperature": 0,
            "top_k": -1,
            "stop": "x",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}},
        }
    )
    assert [(one.role, one.content) for one in asked.messages] == [("user", "a"), ("system", "b")]
    drawing = asked.drawing
    assert (drawing.max_tokens, drawing.temperature, drawing.top_k, drawing.stop) == (7, 0.0, 0, ("x",))
    assert drawing.json_schema == {"type": "array"}
    assert requests.completion({"prompt": [1, 2]}).prompt == (1, 2)


def test_the_cache_is_counted_by_the_models_own_config(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cache_bytes(tmp_path, 8192) == 1 << 30  # of Llama 3 8B, as is known
    assert cache_bytes(tmp_path, 8192, bits=4) == 1 << 28
    (tmp_path / "config.json").write_text('{"num_hidden_layers": "many"}')
    assert cache_bytes(tmp_path, 8192) == 0


@pytest.mark.anyio
async def test_what_fits_is_not_said_to_lack_room(tmp_path: Path) -> None:
    assert await lacking(Plan("scripted", {}, tmp_path, memory=1 << 20)) is None
    assert await lacking(Plan("scripted", {}, tmp_path, memory=1 << 60)) is not None
