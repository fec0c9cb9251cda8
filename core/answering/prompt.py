"""Builds what a language model reads, and understands what it writes: its citations, and where it only repeats itself.

Pure.
What documents, people and earlier answers say goes in as data: each passage stands between marks that no text of a
document can imitate, and the control tokens of chat templates lose their power (`disarmed`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.texts import place_of
from core.types import Language, Passage, PastTurn, Prompt, Turn

REFUSAL_MARK: Final = "NO_ANSWER"
"""What the model is told to write where the passages hold no answer."""

_MARGIN_TOKENS: Final = 64
"""Left free for the chat template around the messages."""
_HISTORY_SHARE: Final = 4
"""Earlier turns get at most one part in so many of the room."""
_LEAST_SHARE: Final = 120
"""Tokens that a document gets at least; where room is short, the worst documents get none."""
_SHORTEST_CUT: Final = 80
"""Characters of a passage below which a cut piece is worth nothing."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much an engine can read."""

    context_size: int
    answer_tokens: int
    """Kept free for the answer."""
    count: Callable[[str], int]
    """Tokens of a text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the prompt needs it."""

    text: str
    standalone: str
    kbs: tuple[str, ...]
    language: Language
    history: tuple[PastTurn, ...] = ()
    terms: Mapping[str, float] = field(default_factory=dict)


def build(asked: Asked, passages: Sequence[Passage], instructions: str, room: Room) -> Prompt:
    """The prompt with as many passages as there is room for; `Prompt.passages` are those that are in it, in order."""
    names = {"kbs": named(asked.kbs, asked.language), "refusal_mark": REFUSAL_MARK}
    system = Turn("system", filled(instructions, names).strip())
    free = room.context_size - room.answer_tokens - _MARGIN_TOKENS - room.count(system.text)
    question = cut(_question(asked), free // 2, room.count)
    free -= room.count(question)
    history = _history(asked.history, max(0, free // _HISTORY_SHARE), room.count)
    free -= sum(room.count(turn.text) for turn in history)
    kept, blocks = _fitting(passages, free, asked.language, room.count)
    user = Turn("user", "\n\n".join([*blocks, question]))
    return Prompt((system, *history, user), asked.standalone, kept, asked.language, asked.terms)


def filled(template: str, values: Mapping[str, str]) -> str:
    """`template` with each `{name}` of `values` put in, once and literally; every other brace stays as it is."""
    return re.sub(r"\{([a-z_]+)\}", lambda found: values.get(found[1], found[0]), template)


def named(kbs: Sequence[str], language: Language) -> str:
    """Knowledge bases as one writes them in a sentence."""
    if language == "zh":
        return "、".join(f"“{kb}”" for kb in kbs)
    return ", ".join(f"«{kb}»" for kb in kbs)


# ---------------------------------------------------------------- data stays data
# Control tokens of the usual chat templates: ChatML, Llama 2/3, Mistral, Gemma, Phi, Zephyr, GLM, DeepSeek (with its
# full-width bars), tool calls and thoughts. Their first sign is replaced by one that looks alike and means nothing.
_CONTROL: Final = re.compile(
    r"<(?=[|｜])"
    r"|<(?=<\s*/?\s*SYS\s*>>)"
    r"|<(?=\s*/?\s*(?:s|unk|pad|bos|eos|cls|sep|mask|sop|eop|start_of_turn|end_of_turn|end_of_utterance|system|user"
    r"|assistant|human|tool_call|tool_response|tools|think|thinking|answer|im_start|im_end|extra_id_\d+"
    r"|reserved_\d+|unused\d+|passages?|question)\b[^<>\n]{0,200}>)"
    r"|\[(?=\s*/?\s*(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT|gMASK|sMASK|MASK|CLS|SEP|PAD|UNK)"
    r"\s*\])"
    r"|<(?=\s*/?\s*passage)",
    re.IGNORECASE,
)
_INVISIBLE: Final = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def disarmed(text: str) -> str:
    """The text without invisible characters, and with the control tokens of chat templates made harmless."""
    visible = _INVISIBLE.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub(lambda found: "‹" if found[0] == "<" else "⟦", visible)


def _block(number: int, passage: Passage, text: str, language: Language) -> str:
    place = place_of(passage.locator, passage.headings, language)
    attributes = [f'n="{number}"', f'document="{_attribute(passage.document)}"']
    if passage.title and passage.title != passage.document:
        attributes.append(f'title="{_attribute(passage.title)}"')
    if place:
        attributes.append(f'place="{_attribute(place)}"')
    return f"<passage {' '.join(attributes)}>\n{text}\n</passage>"


def _attribute(text: str) -> str:
    clean = " ".join(disarmed(text).split())
    return clean.replace('"', "'").replace("<", "‹").replace(">", "›")[:200]


def _question(asked: Asked) -> str:
    text = disarmed(asked.text).strip()
    label = "问题：" if asked.language == "zh" else "Question: "
    if asked.standalone.strip() == asked.text.strip():
        return label + text
    full = "完整的问题：" if asked.language == "zh" else "In full: "
    return f"{label}{text}\n{full}{disarmed(asked.standalone).strip()}"


# ---------------------------------------------------------------- room
def _history(history: Sequence[PastTurn], room: int, count: Callable[[str], int]) -> list[Turn]:
    """The newest answered turns that fit, oldest first, without citations, whose numbers mean other passages now."""
    turns: list[Turn] = []
    for past in reversed(history):
        if not past.answered:
            continue
        question, answer = disarmed(past.question), disarmed(without_citations(past.answer))
        cost = count(question) + count(answer)
        if cost > room:
            break
        room -= cost
        turns[:0] = [Turn("user", question), Turn("assistant", answer)]
    return turns


def _fitting(
    passages: Sequence[Passage], room: int, language: Language, count: Callable[[str], int]
) -> tuple[tuple[Passage, ...], list[str]]:
    """The passages that fit, best first, no document taking more than an equal share of the room; with their blocks."""
    documents = list(dict.fromkeys(passage.document_id for passage in passages))
    documents = documents[: max(1, room // _LEAST_SHARE)]
    share = dict.fromkeys(documents, room // max(1, len(documents)))
    kept: list[Passage] = []
    blocks: list[str] = []
    for passage in passages:
        number = len(kept) + 1
        frame = count(_block(number, passage, "", language))
        text = cut(disarmed(passage.text), share.get(passage.document_id, 0) - frame, count)
        if not text:
            continue
        block = _block(number, passage, text, language)
        share[passage.document_id] -= count(block)
        kept.append(passage)
        blocks.append(block)
    return tuple(kept), blocks


def cut(text: str, tokens: int, count: Callable[[str], int]) -> str:
    """`text` if it has no more than `tokens`; else its beginning up to a sentence's or word's end, with «…»; or ''."""
    if count(text) <= tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(text[:middle]) < tokens:
            low = middle
        else:
            high = middle - 1
    if low < min(_SHORTEST_CUT, len(text)):
        return ""
    piece = text[:low]
    ends = [piece.rfind(sign) for sign in ("。", "！", "？", ". ", "! ", "? ", "\n")]
    if max(ends) >= low // 2:
        return piece[: max(ends) + 1].rstrip() + " …"
    blank = piece.rfind(" ")
    return (piece[:blank] if blank >= low // 2 else piece).rstrip() + "…"


# ---------------------------------------------------------------- citations
_CITATION: Final = re.compile(
    r"[\[【]\s*\^?(\d{1,3}(?:\s*[,，、;；–-]\s*\^?\d{1,3}){0,30})\s*(?:†[^\]】\n]{0,60})?[\]】]"
)
_CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def cited(text: str, count: int) -> tuple[int, ...]:
    """The numbers that `text` cites and that exist (1…`count`), ascending; `[1]`, `[1, 2]`, `[1-3]`, `【1】`."""
    found: set[int] = set()
    for citation in _CITATION.finditer(_CODE.sub(" ", text)):
        found |= _numbers(citation[1])
    return tuple(sorted(number for number in found if 1 <= number <= count))


def without_citations(text: str) -> str:
    return _CITATION.sub("", text)


def _numbers(listed: str) -> set[int]:
    numbers: set[int] = set()
    for part in re.split(r"[,，、;；]", listed):
        ends = [int(digits) for digits in re.findall(r"\d+", part)]
        if len(ends) == 2:
            numbers |= set(range(ends[0], min(ends[1], ends[0] + 50) + 1))
        else:
            numbers |= set(ends)
    return numbers


# ---------------------------------------------------------------- a model that is stuck
_REPEATED_CHARACTERS: Final = 240
_LONGEST_PERIOD: Final = 200
_LEAST_REPEATS: Final = 6


def before_repetition(text: str) -> int | None:
    """Where to cut a text that ends in the same words again and again (they are left once); None where it does not."""
    tail = text[_LONGEST_PERIOD - _REPEATED_CHARACTERS :]
    if text.rfind(tail, -_REPEATED_CHARACTERS, -1) < 0:  # it would be there twice
        return None
    for period in range(1, min(_LONGEST_PERIOD, len(text) // _LEAST_REPEATS) + 1):
        unit = text[-period:]
        if unit != text[-2 * period : -period]:
            continue
        times = max(_LEAST_REPEATS, -(-_REPEATED_CHARACTERS // period))
        if unit.strip("-=_*.· \n|") and text.endswith(unit * times):
            at = len(text)
            while at >= 2 * period and text[at - 2 * period : at - period] == unit:
                at -= period
            return at
    return None


def quoting(asked: Asked, passages: Sequence[Passage]) -> Prompt:
    """The prompt of an engine that only quotes: no turns."""
    return Prompt((), asked.standalone, tuple(passages), asked.language, asked.terms)
