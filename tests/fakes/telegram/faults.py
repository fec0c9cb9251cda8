"""What goes wrong between a bot and Telegram."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_HTML = "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"


@dataclass(frozen=True)
class Fault:
    """What a request meets instead of its answer."""

    status: int = 0
    """0: no answer of its own."""
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    """Seconds before anything happens."""
    performs: bool = False
    """What was asked for is done, all the same."""
    holds: bool = False
    """The connection stays open and silent."""


def error(code: int, description: str, **parameters: int) -> Fault:
    """The Bot API's own way to refuse."""
    told = {"ok": False, "error_code": code, "description": description}
    return Fault(code, json.dumps({**told, "parameters": parameters} if parameters else told))


def flood(seconds: int, form: Literal["parameters", "description", "bare", "header"] = "parameters") -> Fault:
    """429 in the forms that were seen: with `retry_after`, in words alone, with no time at all, or from a proxy."""
    if form == "parameters":
        return error(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
    if form == "description":
        return error(429, f"Too Many Requests: retry after {seconds}")
    if form == "bare":
        return error(429, "Too Many Requests")
    return Fault(429, _HTML.format("429 Too Many Requests"), {"Retry-After": str(seconds)})


def bad_gateway(code: int = 502, title: str = "Bad Gateway") -> Fault:
    """A proxy's page in front of the Bot API."""
    return Fault(code, _HTML.format(f"{code} {title}"))


def bad_json(body: str = '{"ok":true,"result":') -> Fault:
    return Fault(200, body)


def half_open() -> Fault:
    """Accepts the request and never answers."""
    return Fault(holds=True)


def lost(status: int = 502) -> Fault:
    """Does what is asked, and the answer is lost on the way back."""
    return Fault(status, _HTML.format("Bad Gateway"), performs=True)


def slow(seconds: float) -> Fault:
    return Fault(wait=seconds, performs=True)
