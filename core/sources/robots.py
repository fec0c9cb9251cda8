"""robots.txt, as RFC 9309 has it: groups by name of the program, the longest rule that fits, and wildcards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_OURS: Final = "kvasir"
_MAX_RULES: Final = 5000
_MAX_SITEMAPS: Final = 20


@dataclass(frozen=True, slots=True)
class Robots:
    rules: tuple[tuple[bool, str], ...]
    """(whether it allows, pattern)."""
    delay: float = 0.0
    """Seconds between two requests, where the host asks for it."""
    sitemaps: tuple[str, ...] = ()
    """Addresses of the site's sitemaps."""

    @classmethod
    def parse(cls, text: str) -> Robots:
        """The rules for us: those under our name, else those for everybody."""
        groups: dict[str, list[tuple[str, str]]] = {}
        agents: list[str] = []
        in_rules = False
        for key, value in _lines(text):
            if key == "user-agent":
                agents = [value.lower(), *([] if in_rules else agents)]
                in_rules = False
                groups.setdefault(value.lower(), [])
            elif key in ("allow", "disallow", "crawl-delay"):
                in_rules = True
                for agent in agents:
                    groups[agent].append((key, value))
        chosen = groups.get(_OURS, groups.get("*", []))[:_MAX_RULES]
        rules = tuple((key == "allow", value) for key, value in chosen if key != "crawl-delay" and value)
        delays = [float(value) for key, value in chosen if key == "crawl-delay" and _is_number(value)]
        sitemaps = tuple(value for key, value in _lines(text) if key == "sitemap")[:_MAX_SITEMAPS]
        return cls(rules, max(delays, default=0.0), sitemaps)

    def allows(self, path: str) -> bool:
        """Whether we may fetch a path with its query; of rules that fit, the longest counts, and allows where equal."""
        fitting = [(len(pattern), allows) for allows, pattern in self.rules if _fits(pattern, path)]
        return max(fitting, default=(0, True))[1]


def allow_all() -> Robots:
    return Robots(())


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.lstrip("\ufeff").splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield key.strip().lower(), value.strip()


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit()


def _fits(pattern: str, path: str) -> bool:
    """`*` stands for anything, `$` at the end for the end. In one pass, whatever the pattern is."""
    is_whole = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    for number, part in enumerate(others):
        is_last = number == len(others) - 1
        if is_last and is_whole:
            return len(path) - len(part) >= at and path.endswith(part)
        found = path.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return not is_whole or at == len(path)
