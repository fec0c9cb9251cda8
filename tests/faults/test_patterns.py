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

GLANCE, SIZE = 1_000, 4_000
LONG = 0.0004
"""Seconds of CPU; what takes less for `GLANCE` characters is not looked at with `SIZE` of them, and twice as many."""
NOTHING = 0.01
"""Seconds; what takes the square takes more for the longest text."""
AGAIN = 4
"""Times; neighbours only ever make a text take longer."""

UNITS = [
    *("a", "A", "1", " ", "\t", "\n", "\r\n", ".", "-", "_", "=", "*", "#", "/", "\\", "`", "~", "|", "[", "](", "<"),
    *("a ", " a", "1.", "1,", "1-", "a.", "a\n", " \n", "\n ", "- ", "| a ", "[a](", "![", "<a ", "</", "<!--", "``"),
    *("http://", "https://a.", "//", "www.", "@a", "a@", "%", "{", "{a}", "{{", "}", '"', "'", "“", "(", "((", "&"),
    *("中", "中。", "。", "，", "と", "\u0301", "\u200b", "\ufeff", "\x00", "é", "🦄", "[1]", "[1, ", "A.B."),
    *("|-", "\n\n", "{\\", ":a:`", "`a <", "0", "00:", "1:00:00,0 --> ", ".. ", "microsoft word - ", ".docx"),
    *("heading", "charset="),
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
        if self.everywhere:
            deque(self.pattern.finditer(data), maxlen=0)
        else:
            self.pattern.match(data)
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


def _called(node: ast.AST) -> str:
    """What of `re` is called there with a pattern."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return node.func.attr if isinstance(node.func.value, ast.Name) and node.func.value.id == "re" else ""
    return ""


def _inline(tree: ast.Module) -> Iterator[Used]:
    """Patterns that stand in a call, as in `re.sub(r"…", …)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := _called(node)) not in ("", "compile"):
            with contextlib.suppress(ValueError):  # put together elsewhere; its module's constants are looked at
                yield Used(re.compile(ast.literal_eval(node.args[0])), called not in ("match", "fullmatch"))


def _constant(name: str, pattern: re.Pattern[Any]) -> Used:
    uses = _uses().get(name)
    return Used(pattern, not uses or bool(uses - {"match", "fullmatch"}))


def _compiled(tree: ast.Module) -> list[Used]:
    """Patterns in `re.compile(…)`. Raises NameError where one is put together from what is named elsewhere."""
    names = {
        id(node.value): ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == "compile"]
    return [_constant(names.get(id(node), ""), eval(ast.unparse(node), {"re": re})) for node in found]


@cache
def _patterns(module: str) -> list[Used]:
    tree = ast.parse(SOURCES[module])
    try:
        return [*_inline(tree), *_compiled(tree)]
    except NameError:
        constants = vars(importlib.import_module(module))
    return [*_inline(tree), *(_constant(key, one) for key, one in constants.items() if isinstance(one, re.Pattern))]


def _hostile(unit: str, size: int) -> tuple[str, str]:
    run = unit * (size // len(unit))
    return run, f"x{run}\x01"  # the latter where nothing that matches can end


def test_there_are_patterns() -> None:
    assert sum(len(_patterns(module)) for module in MODULES) > 60


def _times(used: Used, unit: str) -> Iterator[tuple[float, float]]:
    """Of what takes long: seconds for a text, and for one twice as long."""
    for glance, text, twice in zip(*(_hostile(unit, size) for size in (GLANCE, SIZE, 2 * SIZE)), strict=True):
        if used.seconds(glance) > LONG:
            took, longer = used.seconds(text), used.seconds(twice)
            for _ in range(AGAIN):
                if longer < max(3 * took, NOTHING):
                    break
                longer = min(longer, used.seconds(twice))
            yield took, longer


@pytest.mark.parametrize("module", MODULES)
def test_a_pattern_takes_time_in_proportion(module: str) -> None:
    for used in _patterns(module):
        for unit in UNITS:
            for took, longer in _times(used, unit):
                assert longer < max(3 * took, NOTHING), (
                    f"{used.pattern.pattern!r:.70} {unit!r}: {took:.3f} s, and {longer:.3f} s for twice the length"
                )


def test_the_test_finds_what_it_looks_for() -> None:
    took, longer = next(_times(Used(re.compile(r"\w+://"), everywhere=True), "a"))
    assert longer > max(3 * took, NOTHING)  # four times, were there no noise
