"""The options of a chat platform, as its section of the settings has them; which are secret, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import SecretStr

from core.errors import NotAccepted
from core.settings import PREFIX, Section
from core.texts import tell

Kind = Literal["secret", "text", "number", "switch", "list"]
Origin = Literal["", "console", "settings"]
ADDRESSES: Final = frozenset({"base_url", "api_base", "proxy"})
"""Fields that say where the tokens are sent."""
_HIDDEN: Final = frozenset({"proxy"})
"""Fields that may hold a password, besides those that are secrets."""
_LONGEST_VALUE: Final = 4000
_MOST_IN_LIST: Final = 1000


@dataclass(frozen=True, slots=True)
class Field:
    """One option of a platform, as it holds now."""

    name: str
    kind: Kind
    description: str
    default: Any
    value: Any
    """None where it is a secret, and where nothing is set."""
    origin: Origin
    """Where it is set; empty: nowhere."""
    variable: str
    """The environment variable that goes before what is set here."""


def kind_of(section: type[Section], name: str) -> Kind:
    if is_hidden(section, name):
        return "secret"
    annotation = section.model_fields[name].annotation
    kinds: dict[Any, Kind] = {bool: "switch", int: "number", float: "number", list[str]: "list"}
    return kinds.get(annotation, "text")


def is_secret(section: type[Section], name: str) -> bool:
    return "SecretStr" in str(section.model_fields[name].annotation)


def is_hidden(section: type[Section], name: str) -> bool:
    return name in _HIDDEN or is_secret(section, name)


def says(value: Any) -> bool:
    return bool(value.get_secret_value().strip()) if isinstance(value, SecretStr) else value not in (None, "")


def variable(platform: str, name: str) -> str:
    return f"{PREFIX}{platform}__{name}".upper()


def cleaned(name: str, value: Any) -> Any:
    """The value as it is kept; None sets the field back. Raises NotAccepted."""
    match value:
        case str():
            text = "".join(char for char in value if char.isprintable()).strip()
            if len(text) > _LONGEST_VALUE:
                says = tell("connection_too_long", most=_LONGEST_VALUE)
                raise NotAccepted(says, {name: says})
            return text or None
        case list() | tuple():
            if len(value) > _MOST_IN_LIST or not all(isinstance(one, str) and len(one) < 256 for one in value):
                says = tell("connection_too_long", most=_MOST_IN_LIST)
                raise NotAccepted(says, {name: says})
            return [text for one in value if (text := cleaned(name, one))] or None
        case bool() | int() | float() | None:
            return value
    says = tell("connection_bad_value")
    raise NotAccepted(says, {name: says})
