"""From messages to token ids by a model's chat template, so that no text of a message is ever a control token.

Templates come with models, and are no more trusted than these: they run in Jinja's sandbox, within bounds.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.serving.driver import Refused, Tokenizer

DEFAULT: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For models with ChatML's control tokens and no template."""
PLAIN: Final = (
    "{{ bos_token }}{% for message in messages %}{{ names[message['role']] + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
"""For models with neither."""
_NAMES: Final = {"system": "", "user": "Question: ", "assistant": "Answer: "}
_LONGEST: Final = 1 << 20
"""Characters of the template's own text."""
_LARGEST_TEMPLATE: Final = 256 << 10
_RANGE: Final = 10_000
_POWER: Final = 16
_GENERATION: Final = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")
_NEVER: Final = frozenset({"format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs"})
"""Methods of strings that make much of little."""


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    """`system`, `user` or `assistant`."""
    content: str


class Templates:
    """A model's chat template, read once. Raises Refused where it is none."""

    def __init__(self, tokenizer: Tokenizer, *, seconds: float = 2.0) -> None:
        self._tokenizer = tokenizer
        self._seconds = seconds
        self._specials = dict(tokenizer.specials)
        has_chatml = {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.controls)
        source = tokenizer.template or (DEFAULT if has_chatml else PLAIN)
        if len(source) > _LARGEST_TEMPLATE:
            raise Refused("The model's chat template is too long.", code="bad_request")
        self._environment = _Environment()
        try:
            self._template = self._environment.from_string(_GENERATION.sub(r"{#\1 \2#}", source))
        except TemplateError as error:
            raise Refused(f"The model's chat template cannot be read: {error}.", code="bad_request") from error
        self._controls = _control_ids(tokenizer)
        bos = tokenizer.encode(self._specials.get("bos_token") or "", special=True)
        self._bos = bos[0] if len(bos) == 1 else None

    def tokens(self, messages: Sequence[Message], options: Mapping[str, Any] | None = None) -> list[int]:
        """The ids of the prompt that lets the model answer. Raises Refused."""
        try:
            parts = self._rendered(messages, options or {})
        except _Raised as error:
            folded = _folded(messages)
            if folded == list(messages):
                raise Refused(f"The model's chat template refuses this: {error}", code="bad_request") from error
            try:
                parts = self._rendered(folded, options or {})
            except _Raised as again:
                raise Refused(f"The model's chat template refuses this: {again}", code="bad_request") from again
        return self._once(_encoded(self._tokenizer, parts, self._controls))

    def completion(self, text: str, *, special: bool) -> list[int]:
        """The ids of a text to go on with, after the sign of a beginning where the model has one."""
        ids = self._tokenizer.encode(text, special=special)
        return self._once(ids if self._bos is None else [self._bos, *ids])

    def _rendered(self, messages: Sequence[Message], options: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """The prompt in parts, each with whether it is a message's text."""
        mark = secrets.token_hex(8)
        marks = {f"\ue000{mark}{place}\ue001": message.content.strip() for place, message in enumerate(messages)}
        turns = [{"role": one.role, "content": sign} for one, sign in zip(messages, marks, strict=True)]
        values = {
            **options,
            **self._specials,
            "messages": turns,
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            "names": _NAMES,
            "strftime_now": _strftime_now,
            "raise_exception": _raise,
        }
        text = self._run(values)
        parts = re.split(f"(\ue000{mark}[0-9]+\ue001)", text)
        if turns and turns[-1]["content"] not in parts:
            raise Refused("The model's chat template leaves the question out, or changes it.", code="bad_request")
        return [(marks.get(part, part), part in marks) for part in parts if part]

    def _run(self, values: Mapping[str, Any]) -> str:
        self._environment.due = time.monotonic() + self._seconds
        found, size = [], 0
        try:
            for piece in self._template.generate(values):
                found.append(piece)
                size += len(piece)
                if size > _LONGEST:
                    raise Refused("The model's chat template makes too much text.", code="bad_request")
                self._environment.check_time()
        except _Raised:
            raise
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise Refused(f"The model's chat template fails: {error}.", code="bad_request") from error
        except (RecursionError, MemoryError) as error:
            raise Refused("The model's chat template does not come to an end.", code="bad_request") from error
        return "".join(found)

    def _once(self, ids: list[int]) -> list[int]:
        """With one sign of a beginning, where there are several."""
        while len(ids) > 1 and ids[0] == ids[1] == self._bos:
            del ids[0]
        return ids


class _Raised(TemplateError):
    """The template says by itself that it does not take these messages."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # what comes out are tokens, not a page
            extensions=["jinja2.ext.loopcontrols"],
            optimized=False,  # else constants are computed while the template is read, out of all bounds
        )
        self.due = 0.0
        self.globals = {"range": _range, "namespace": self.globals["namespace"], "dict": dict}
        self.filters["tojson"] = _to_json
        for name in ("center", "format", "indent", "wordwrap", "xmlattr", "urlize", "pprint"):
            del self.filters[name]

    def check_time(self) -> None:
        if time.monotonic() > self.due:
            raise Refused("The model's chat template takes too long.", code="bad_request")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.check_time()
        found = super().call(context, obj, *args, **kwargs)
        if isinstance(found, str) and len(found) > _LONGEST:
            raise Refused("The model's chat template makes too much text.", code="bad_request")
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if not numbers or abs(right) > (_POWER if operator == "**" else _RANGE):
            raise SecurityError(f"«{operator}» is for numbers")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> None:
        """`format` is no attribute like the others of strings to the sandbox, and to us none at all."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NEVER and super().is_safe_attribute(obj, attr, value)


def _encoded(tokenizer: Tokenizer, parts: Sequence[tuple[str, bool]], controls: frozenset[int]) -> list[int]:
    """Messages as plain characters, the template's own text with its control tokens.

    Encoded in one go where that comes to the same control tokens: words at the seams are then as in training.
    """
    apart: list[int] = []
    is_plain = True
    for text, is_content in parts:
        ids = tokenizer.encode(text, special=not is_content)
        is_plain = is_plain and (not is_content or tokenizer.encode(text, special=True) == ids)
        apart += ids
    if not is_plain:
        return apart
    together = tokenizer.encode("".join(text for text, _ in parts), special=True)
    same = [one for one in together if one in controls] == [one for one in apart if one in controls]
    return together if same else apart


def _control_ids(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(one for text in tokenizer.controls for one in tokenizer.encode(text, special=True))


def _folded(messages: Sequence[Message]) -> list[Message]:
    """For templates that know no instructions, or want the roles in turn: the same in fewer messages."""
    found: list[Message] = []
    for one in messages:
        role = "user" if one.role == "system" else one.role
        if found and found[-1].role == role:
            found[-1] = Message(role, f"{found[-1].content}\n\n{one.content}")
        else:
            found.append(Message(role, one.content))
    return found[1:] if len(found) > 1 and found[0].role == "assistant" else found


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > _RANGE:
        raise SecurityError("a range is too long")
    return found


def _raise(sentence: str) -> None:
    raise _Raised(str(sentence)[:200])


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(str(form)[:100])


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
