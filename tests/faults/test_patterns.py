"""No regular expression of ours can be made to take the square of its input (fault 67)."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import admin
import bots
import core

SIZE = 4_000
LONG = 0.015
"""Seconds of CPU; what takes less for `SIZE` characters needs no second look."""

UNITS = [
    *("a", "A", "1", " ", "\t", "\n", "\r\n", ".", "-", "_", "=", "*", "#", "/", "\\", "`", "~", "|", "[", "](", "<"),
    *("a ", " a", "1.", "1,", "1-", "a.", "a\n", " \n", "\n ", "- ", "| a ", "[a](", "![", "<a ", "</", "<!--", "``"),
    *("http://", "https://a.", "//", "www.", "@a", "a@", "%", "{", "{a}", "{{", "}", '"', "'", "“", "(", "((", "&"),
    *("中", "中。", "。", "，", "と", "\u0301", "\u200b", "\ufeff", "\x00", "é", "🦄", "[1]", "[1, ", "A.B."),
]  # fmt: skip


@dataclass(frozen=True)
class Used:
    """A pattern, and whether it looks for matches everywhere or at one place only."""

    pattern: re.Pattern[Any]
    everywhere: bool

    def seconds(self, text: str) -> float:
        data = text if isinstance(self.pattern.pattern, str) else text.encode("utf-8", "replace")
        started = time.thread_time()
        self.pattern.fullmatch(data)
        self.pattern.match(data)
        if self.everywhere:
            deque(self.pattern.finditer(data), maxlen=0)
        return time.thread_time() - started


def _sources() -> dict[str, str]:
    """Our modules with their text; none is imported for it, so that the tests are found quickly."""
    found = {}
    for package in (core, bots, admin):
        root = Path(str(package.__file__)).parent
        for file in sorted(root.rglob("*.py")):
            if "migrations" not in file.parts:
                name = ".".join((package.__name__, *file.relative_to(root).with_suffix("").parts))
                found[name.removesuffix(".__init__")] = file.read_text("utf-8")
    return found


SOURCES = _sources()
MODULES = [name for name, source in SOURCES.items() if re.search(r"\bimport re\b|\bfrom re import\b", source)]


@cache
def _uses() -> dict[str, set[str]]:
    """What is called of each name anywhere in our modules."""
    found: dict[str, set[str]] = {}
    for name, used in re.findall(r"\b(\w+)\.(\w+)", "\n".join(SOURCES.values())):
        found.setdefault(name, set()).add(used)
    return found


def _inline(source: str) -> Iterator[Used]:
    """Patterns that stand in a call, as in `re.sub(r"…", …)`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.func.attr != "compile":
            with contextlib.suppress(ValueError):  # put together elsewhere; its module's constants are looked at
                yield Used(re.compile(ast.literal_eval(node.args[0])), node.func.attr not in ("match", "fullmatch"))


def _constants(name: str) -> Iterator[Used]:
    for key, value in vars(importlib.import_module(name)).items():
        if isinstance(value, re.Pattern):
            uses = _uses().get(key)
            yield Used(value, not uses or bool(uses - {"match", "fullmatch"}))


def _patterns(module: str) -> list[Used]:
    return [*_constants(module), *_inline(SOURCES[module])]


def _hostile(unit: str, size: int) -> tuple[str, str]:
    run = unit * (size // len(unit))
    return run, f"x{run}\x01"  # the latter where nothing that matches can end


def test_there_are_patterns() -> None:
    assert sum(len(_patterns(module)) for module in MODULES) > 60


@pytest.mark.parametrize("module", MODULES)
def test_a_pattern_takes_time_in_proportion(module: str) -> None:
    for used in _patterns(module):
        for unit in UNITS:
            for text, twice in zip(_hostile(unit, SIZE), _hostile(unit, 2 * SIZE), strict=True):
                took = used.seconds(text)
                if took > LONG:
                    longer = min(used.seconds(twice) for _ in range(2))
                    assert longer < 3 * took, (
                        f"{used.pattern.pattern!r:.70} {unit!r}: {took:.3f} s, and {longer:.3f} s for twice the length"
                    )


def test_the_test_finds_what_it_looks_for() -> None:
    used = Used(re.compile(r"\w+://"), everywhere=True)
    took = used.seconds("a" * SIZE)
    assert took > LONG
    assert used.seconds("a" * 4 * SIZE) > 6 * took  # sixteen times, were there no noise
