"""What is asked of a worker, read from the JSON of OpenAI's dialect and checked. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.serving.templates import Message

DEFAULT_TOKENS: Final = 512
"""Of an answer whose length was not asked for: a job's tokens are reserved when it begins."""
_TEMPERATURE: Final = 0.7
_MOST_MESSAGES: Final = 500
_MOST_STOPS: Final = 16
_LONGEST_STOP: Final = 200
_LONGEST_RULE: Final = 64 << 10
_MOST_TEXTS: Final = 2048
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_NOT_DONE: Final = (
    "tools",
    "functions",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "audio",
    "echo",
    "suffix",
    "best_of",
)
"""What changes an answer, and what no driver of ours does: better refused than left out in silence."""


class BadRequest(Exception):
    """`str(error)` is the sentence; `param` the field that is wrong."""

    def __init__(self, sentence: str, param: str = "", *, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(sentence)
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Drawing:
    """How an answer is drawn."""

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int | None
    stop: tuple[str, ...]
    json_schema: Mapping[str, Any] | None
    regex: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat or a text to go on with."""

    drawing: Drawing
    model: str
    user: str
    is_stream: bool
    counts: bool
    """Usage is told at the end of a stream."""
    messages: tuple[Message, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values for the chat template."""
    prompt: str | tuple[int, ...] = ""
    special: bool = False
    """Control tokens in `prompt` count as such."""


@dataclass(frozen=True, slots=True)
class AskedVectors:
    texts: tuple[str, ...]
    model: str
    user: str
    is_query: bool = False
    is_base64: bool = False
    query: str = ""
    top_n: int = 0


def document(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises BadRequest."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The request is no JSON.") from error
    if not isinstance(found, dict):
        raise BadRequest("The request must be a JSON object.")
    return found


def chat(body: Mapping[str, Any]) -> Asked:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or len(messages) > _MOST_MESSAGES:
        raise BadRequest(f"`messages` must be a list of 1 to {_MOST_MESSAGES} messages.", "messages")
    options = body.get("chat_template_kwargs") or {}
    if not isinstance(options, dict) or any(not isinstance(one, (str, int, float, bool)) for one in options.values()):
        raise BadRequest("`chat_template_kwargs` must be an object of plain values.", "chat_template_kwargs")
    found = tuple(_message(one, place) for place, one in enumerate(messages))
    return _asked(body, messages=found, options=options)


def completion(body: Mapping[str, Any]) -> Asked:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, list) and prompt and all(type(one) is int and one >= 0 for one in prompt):
        return _asked(body, prompt=tuple(prompt))
    if not isinstance(prompt, str) or not prompt:
        raise BadRequest("`prompt` must be one text, or the token ids of one.", "prompt")
    return _asked(body, prompt=_whole(prompt), special=_flag(body, "parse_special"))


def embedding(body: Mapping[str, Any]) -> AskedVectors:
    kind, form = body.get("input_type"), body.get("encoding_format")
    if kind not in (None, "query", "document"):
        raise BadRequest("`input_type` must be `query` or `document`.", "input_type")
    if form not in (None, "float", "base64"):
        raise BadRequest("`encoding_format` must be `float` or `base64`.", "encoding_format")
    given = body.get("input")
    texts = _texts([given] if isinstance(given, str) else given, "input")
    return AskedVectors(texts, _text(body, "model"), _text(body, "user"), kind == "query", form == "base64")


def reranking(body: Mapping[str, Any]) -> AskedVectors:
    query = body.get("query")
    if not isinstance(query, str) or not query:
        raise BadRequest("`query` must be a text.", "query")
    documents = body.get("documents")
    if isinstance(documents, list):
        documents = [one.get("text") if isinstance(one, dict) else one for one in documents]
    top = body.get("top_n")
    if top is not None and (type(top) is not int or top < 1):
        raise BadRequest("`top_n` must be a number from 1.", "top_n")
    texts = _texts(documents, "documents")
    return AskedVectors(texts, _text(body, "model"), _text(body, "user"), query=query, top_n=top or len(texts))


def messages_or_text(body: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Of a request to count tokens: messages, or a text."""
    if "messages" in body:
        return chat(body).messages, ""
    text = body.get("content", body.get("text"))
    if not isinstance(text, str):
        raise BadRequest("Give `content`, a text, or `messages`.", "content")
    return (), _whole(text)


# ---------------------------------------------------------------- parts
def _asked(body: Mapping[str, Any], **parts: Any) -> Asked:
    for name in _NOT_DONE:
        if body.get(name):
            raise BadRequest(f"`{name}` is not supported.", name, code="unsupported")
    if body.get("n") not in (None, 1):
        raise BadRequest("`n` can only be 1.", "n", code="unsupported")
    options = body.get("stream_options") or {}
    is_stream = _flag(body, "stream")
    return Asked(
        drawing=_drawing(body),
        model=_text(body, "model"),
        user=_text(body, "user"),
        is_stream=is_stream,
        counts=isinstance(options, dict) and bool(options.get("include_usage")),
        **parts,
    )


def _drawing(body: Mapping[str, Any]) -> Drawing:
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    if most is not None and (type(most) is not int or most < 1):
        raise BadRequest("`max_tokens` must be a whole number from 1.", "max_tokens")
    seed = body.get("seed")
    if seed is not None and type(seed) is not int:
        raise BadRequest("`seed` must be a whole number.", "seed")
    schema, regex = _grammar(body)
    return Drawing(
        max_tokens=most,
        temperature=_number(body, "temperature", 0, 5, _TEMPERATURE),
        top_p=_number(body, "top_p", 0, 1, 1.0),
        top_k=max(0, int(_number(body, "top_k", -1, 1_000_000, 0))),
        min_p=_number(body, "min_p", 0, 1, 0.0),
        repetition_penalty=_number(body, "repetition_penalty", 0.1, 5, 1.0),
        frequency_penalty=_number(body, "frequency_penalty", -2, 2, 0.0),
        presence_penalty=_number(body, "presence_penalty", -2, 2, 0.0),
        seed=seed,
        stop=_stops(body.get("stop")),
        json_schema=schema,
        regex=regex,
    )


def _grammar(body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The JSON schema, or else the regular expression, that the answer must keep to."""
    regex = _text(body, "guided_regex", _LONGEST_RULE)
    schema = body.get("guided_json")
    form = body.get("response_format")
    if isinstance(form, dict):
        if form.get("type") == "json_object":
            schema = {"type": "object"}
        elif form.get("type") == "json_schema":
            inner = form.get("json_schema")
            schema = inner.get("schema") if isinstance(inner, dict) else form.get("schema")
        elif form.get("type") not in (None, "text"):
            raise BadRequest("`response_format` must be `text`, `json_object` or `json_schema`.", "response_format")
        if form.get("type") == "json_schema" and not isinstance(schema, dict):
            raise BadRequest("`response_format` lacks its schema.", "response_format")
    elif form is not None:
        raise BadRequest("`response_format` must be an object.", "response_format")
    if schema is None:
        return None, regex
    if not isinstance(schema, dict) or len(json.dumps(schema)) > _LONGEST_RULE:
        raise BadRequest("The JSON schema must be an object of moderate size.", "response_format")
    if regex:
        raise BadRequest("Give a JSON schema or a regular expression, not both.", "guided_regex")
    return schema, ""


def _message(given: Any, place: int) -> Message:
    role = _ROLES.get(str(given.get("role"))) if isinstance(given, dict) else None
    if role is None:
        raise BadRequest(
            f"Message {place + 1} must have the role system, developer, user or assistant.", f"messages[{place}]"
        )
    content = given.get("content")
    if isinstance(content, list):
        parts = [str(one["text"]) for one in content if isinstance(one, dict) and isinstance(one.get("text"), str)]
        content = "\n".join(parts) if len(parts) == len(content) else 0  # a picture, say
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise BadRequest(f"Message {place + 1} must have a text as its content.", f"messages[{place}].content")
    return Message(role, _whole(content))


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else given or []
    fits = isinstance(stops, list) and len(stops) <= _MOST_STOPS
    if not fits or any(not isinstance(one, str) or not 0 < len(one) <= _LONGEST_STOP for one in stops):
        raise BadRequest(f"`stop` must be up to {_MOST_STOPS} short texts.", "stop")
    return tuple(stops)


def _texts(given: Any, name: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not 0 < len(given) <= _MOST_TEXTS or not _all_text(given):
        raise BadRequest(f"`{name}` must be 1 to {_MOST_TEXTS} texts.", name)
    return tuple(map(_whole, given))


def _all_text(given: Sequence[Any]) -> bool:
    return all(isinstance(one, str) for one in given)


def _whole(text: str) -> str:
    """Without halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _text(body: Mapping[str, Any], name: str, longest: int = 500) -> str:
    found = body.get(name)
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > longest:
        raise BadRequest(f"`{name}` must be a text of at most {longest} characters.", name)
    return found


def _flag(body: Mapping[str, Any], name: str) -> bool:
    found = body.get(name)
    if found not in (None, True, False):
        raise BadRequest(f"`{name}` must be true or false.", name)
    return bool(found)


def _number(body: Mapping[str, Any], name: str, least: float, most: float, otherwise: float) -> float:
    found = body.get(name)
    if found is None:
        return otherwise
    if type(found) not in (int, float) or not math.isfinite(found) or not least <= found <= most:
        raise BadRequest(f"`{name}` must be a number from {least} to {most}.", name)
    return float(found)
