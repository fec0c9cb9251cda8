"""The smallest tokenizer there is: a token for each byte, and six control tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

CONTROLS: Final = ("<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_BYTES: Final = 256
_CONTROL: Final = re.compile("(" + "|".join(map(re.escape, CONTROLS)) + ")")
_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class LetterTokenizer:
    template: str = _TEMPLATE
    specials: Mapping[str, str] = {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}
    controls: Sequence[str] = CONTROLS

    def encode(self, text: str, *, special: bool) -> list[int]:
        if not special:
            return list(text.encode())
        ids: list[int] = []
        for part in _CONTROL.split(text):
            ids += [_BYTES + CONTROLS.index(part)] if part in CONTROLS else part.encode()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Control tokens are left out."""
        return bytes(token for token in ids if token < _BYTES).decode("utf-8", "replace")


def control(name: str) -> int:
    """The id of a control token, e.g. `user`."""
    return _BYTES + CONTROLS.index(f"<|{name}|>")
