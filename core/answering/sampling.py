"""Answer presets: how the language model draws its words for a knowledge base, whatever a program asks for, or unless.

A preset is a list of rules: `temperature=0.2` holds unless whoever asks wants it otherwise, `temperature=0.2!` always,
and `stop+=END` is added to what they want.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from core.errors import UserError
from core.texts import tell
from core.types import Sampling

NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "max_tokens": (16, 131_072),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1000),
    "min_p": (0, 1),
    "repetition_penalty": (0.5, 2),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "seed": (0, (1 << 31) - 1),
}
"""Sampler → its least and greatest value."""
_WHOLE: Final = frozenset({"max_tokens", "top_k", "seed"})
NAMES: Final = (*NUMBERS, "stop")
MOST_RULES: Final = 16
_MOST_STOPS: Final = 4
_LONGEST_STOP: Final = 100


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    value: Any
    is_forced: bool = False
    """It goes before what is asked for."""
    is_added: bool = False
    """It is added to what is asked for; of `stop` alone."""


def normal(rules: Sequence[str]) -> list[str]:
    """The same rules as they are kept, the last of each name. Raises UserError with the first that is none."""
    found: dict[tuple[str, Any], str] = {}
    for text in rules:
        rule = parsed(text)
        found[rule.name, rule.value if rule.is_added else ""] = _written(rule)
    if len(found) > MOST_RULES or sum(name == "stop" for name, _ in found) > _MOST_STOPS:
        raise UserError(tell("preset_long", most=MOST_RULES, stops=_MOST_STOPS))
    return list(found.values())


def parsed(text: str) -> Rule:
    """Raises UserError."""
    before, sign, given = text.partition("=")
    is_added = before.endswith("+")
    name = before.removesuffix("+").strip()
    if not sign or name not in NAMES or (is_added and name != "stop"):
        raise UserError(tell("preset_no_rule", rule=text[:80], names=", ".join(NAMES)))
    if is_added:
        return Rule(name, _stop(given), is_added=True)
    is_forced = given.endswith("!")
    given = given[:-1] if is_forced else given
    return Rule(name, _stop(given) if name == "stop" else _number(name, given.strip()), is_forced)


def resolved(rules: Sequence[str], usual: Sampling, asked: Mapping[str, Any]) -> Sampling:
    """What holds in the end: forced rules before what is asked for, this before the other rules and what is `usual`.

    `asked` are fields of `Sampling`.
    """
    values: dict[str, Any] = {}
    forced: dict[str, Any] = {}
    added: list[str] = []
    for rule in map(parsed, rules):
        if rule.is_added:
            added.append(rule.value)
        else:
            (forced if rule.is_forced else values)[rule.name] = (rule.value,) if rule.name == "stop" else rule.value
    values |= {**asked, **forced}
    if added:
        values["stop"] = tuple(dict.fromkeys((*values.get("stop", usual.stop), *added)))
    return replace(usual, **values)


def _number(name: str, given: str) -> float:
    lowest, highest = NUMBERS[name]
    try:
        value = int(given) if name in _WHOLE else float(given)
    except ValueError:
        value = None
    if value is None or not lowest <= value <= highest:
        raise UserError(tell("bad_kb_number", name=name, lowest=lowest, highest=highest))
    return value


def _stop(given: str) -> str:
    given = given.strip()
    if not given or len(given) > _LONGEST_STOP or not given.isprintable():
        raise UserError(tell("preset_bad_stop", most=_LONGEST_STOP))
    return given


def _written(rule: Rule) -> str:
    value = rule.value if isinstance(rule.value, str) else f"{rule.value:g}" if rule.name not in _WHOLE else rule.value
    return f"{rule.name}{'+=' if rule.is_added else '='}{value}{'!' if rule.is_forced else ''}"
