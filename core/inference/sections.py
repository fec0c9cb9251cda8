"""The settings of a model: which fields its adapter has, for forms, and the settings it is opened with.

An engine's fields are those of the section of the settings that bears its adapter's name. Embedders share the section
`embedder`, and rerankers `reranker`, where each field says in `of` which adapters read it.
"""

from __future__ import annotations

import ipaddress
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from core.errors import UserError
from core.settings import Section, Settings
from core.texts import tell

Kind: TypeAlias = Literal["engine", "embedder", "reranker"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FieldKind: TypeAlias = Literal["text", "secret", "number", "checkbox", "select", "list", "pairs"]

_SHARED: Final[Mapping[Kind, str]] = {"embedder": "embedder", "reranker": "reranker"}
_LONGEST: Final = 4000
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MOST: Final = 50


class BadField(UserError):
    """What was given for a field cannot be."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True, slots=True)
class FormField:
    """A field as a form draws it."""

    name: str
    kind: FieldKind
    description: str
    default: Any
    """None where there is none, and for secrets."""
    is_needed: bool
    is_secret: bool
    is_common: bool
    """Most people set it; the others can stay out of sight."""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Preset:
    """A well-known server, ready to be filled into a form."""

    name: str
    title: str
    """Empty: the adapter's own, since nothing is filled in."""
    values: Mapping[str, Any]
    needs_key: bool = True
    models: tuple[str, ...] = ()
    """Some that it has, as examples."""


def section_of(kind: Kind, adapter: str) -> str | None:
    """Name of the section that an adapter reads; None where it has no settings."""
    name = _SHARED.get(kind, adapter)
    field = Settings.model_fields.get(name)
    is_section = field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    return name if is_section else None


def fields_of(kind: Kind, adapter: str, choices: Mapping[str, tuple[str, ...]] | None = None) -> list[FormField]:
    """The fields of an adapter, in the order of its section; `choices` narrow those down that are plain text."""
    section = section_of(kind, adapter)
    if section is None:
        return []
    found = [
        _form_field(name, field, adapter, choices or {}) for name, field in _fields(section, kind, adapter).items()
    ]
    return sorted(found, key=lambda field: not field.is_common)


def settings_with(settings: Settings, kind: Kind, adapter: str, values: Mapping[str, Any]) -> Settings:
    """The settings with the adapter's section made of `values` and its defaults alone. Raises BadField.

    Nothing of the house's own section gets in, so that a key never goes to another server than it was given for.
    """
    section = section_of(kind, adapter)
    if section is None:
        if values:
            raise BadField(next(iter(values)), tell("model_no_settings", adapter=adapter))
        return settings
    made = _validated(section, kind, adapter, values)
    for name, field in _fields(section, kind, adapter).items():
        if _is_missing(field, name, made, adapter):
            raise BadField(name, tell("model_field_needed", field=name))
        _check(name, field, plain(getattr(made, name)))
    return settings.model_copy(update={section: made})


def settings_of(settings: Settings, kind: Kind, adapter: str) -> Settings:
    """The settings for an adapter that is used by its own name, as the settings themselves say."""
    if kind == "embedder" and settings.embedder.kind != adapter:
        return settings.model_copy(update={"embedder": settings.embedder.model_copy(update={"kind": adapter})})
    return settings


def is_set_up(settings: Settings, kind: Kind, adapter: str) -> bool:
    """Whether the settings themselves give the adapter all that it needs."""
    section = section_of(kind, adapter)
    if section is None:
        return True
    values = getattr(settings, section)
    return not any(_is_missing(field, name, values, adapter) for name, field in _fields(section, kind, adapter).items())


def values_of(settings: Settings, kind: Kind, adapter: str) -> dict[str, Any]:
    """What the adapter's fields are set to, without secrets; only what is not a default."""
    section = section_of(kind, adapter)
    if section is None:
        return {}
    values = getattr(settings, section)
    return {
        name: plain(getattr(values, name))
        for name, field in _fields(section, kind, adapter).items()
        if not _is_secret(field) and getattr(values, name) != field.default
    }


def value_of(settings: Settings, kind: Kind, adapter: str, name: str) -> Any:
    """One of them; None where the adapter has no such field."""
    section = section_of(kind, adapter)
    return getattr(getattr(settings, section), name, None) if section else None


def paths_of(settings: Settings, kind: Kind, adapter: str) -> list[Path]:
    """The files and folders that the adapter is told to read."""
    section = section_of(kind, adapter)
    values = getattr(settings, section) if section else None
    names = _fields(section, kind, adapter) if section else ()
    return [value for name in names if isinstance(value := getattr(values, name), Path)]


def secrets_of(settings: Settings, kind: Kind, adapter: str) -> list[str]:
    """The secrets themselves, to be taken out of whatever is shown."""
    section = section_of(kind, adapter)
    found: list[str] = []
    for name, field in _fields(section, kind, adapter).items() if section else ():
        value = plain(getattr(getattr(settings, section or ""), name))
        if _is_secret(field) and value:
            found += value.values() if isinstance(value, dict) else [str(value)]
    return found


def origin_of(values: Mapping[str, Any]) -> str:
    """The server that the values lead to; empty where they lead to none."""
    address = urlsplit(str(values.get("base_url") or ""))
    return f"{address.scheme}://{address.netloc}".lower() if address.netloc else ""


def _fields(section: str, kind: Kind, adapter: str) -> dict[str, FieldInfo]:
    annotation: Any = Settings.model_fields[section].annotation
    fields: dict[str, FieldInfo] = annotation.model_fields
    if kind not in _SHARED:
        return fields
    return {name: field for name, field in fields.items() if adapter in _extra(field).get("of", ())}


def _form_field(name: str, field: FieldInfo, adapter: str, choices: Mapping[str, tuple[str, ...]]) -> FormField:
    extra, annotation = _extra(field), _bare(field.annotation)
    secret = _is_secret(field)
    default = None if secret or field.default is PydanticUndefined else plain(field.default)
    options = choices.get(name) or (get_args(annotation) if get_origin(annotation) is Literal else ())
    return FormField(
        name=name,
        kind=_kind(annotation, bool(options)),
        description=field.description or "",
        default=default,
        is_needed=_is_needed(field, adapter),
        is_secret=secret,
        is_common=bool(_is_needed(field, adapter) or extra.get("common") or annotation is SecretStr),
        choices=tuple(options),
        least=_bound(field, "ge", "gt"),
        most=_bound(field, "le", "lt"),
        is_whole=annotation is int,
    )


def _kind(annotation: Any, has_choices: bool) -> FieldKind:
    if has_choices:
        return "select"
    kinds: dict[Any, FieldKind] = {SecretStr: "secret", bool: "checkbox", int: "number", float: "number"}
    origins: dict[Any, FieldKind] = {list: "list", dict: "pairs"}
    return kinds.get(annotation) or origins.get(get_origin(annotation)) or "text"


def _bare(annotation: Any) -> Any:
    """Without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _bound(field: FieldInfo, *names: str) -> float | None:
    for rule in field.metadata:
        for name in names:
            if (value := getattr(rule, name, None)) is not None:
                return float(value)
    return None


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _is_secret(field: FieldInfo) -> bool:
    return _bare(field.annotation) is SecretStr or bool(_extra(field).get("secret"))


def plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def _validated(section: str, kind: Kind, adapter: str, values: Mapping[str, Any]) -> Any:
    known = _fields(section, kind, adapter)
    for name, value in values.items():
        if name not in known:
            raise BadField(name, tell("model_no_field", field=name, adapter=adapter))
        _check_size(name, value)
    annotation: Any = Settings.model_fields[section].annotation
    chosen = {"kind": adapter} if "kind" in annotation.model_fields else {}
    try:
        return annotation.model_validate({**values, **chosen})
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        raise BadField(field, tell("model_bad_field", field=field, reason=first["msg"])) from error


def _check_size(name: str, value: Any) -> None:
    parts = [value]
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        parts = value
    if len(parts) > 2 * _MOST or any(len(str(part)) > _LONGEST for part in parts):
        raise BadField(name, tell("model_field_long", field=name, most=_LONGEST))
    if any(isinstance(part, str) and _UNSEEN.search(part) for part in parts):
        raise BadField(name, tell("model_field_controls", field=name))
    if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
        raise BadField(name, tell("model_bad_field", field=name, reason=str(value)))


def _is_missing(field: FieldInfo, name: str, values: Any, adapter: str) -> bool:
    """Whether it is empty and must not be; `needed_or` names other fields that can stand in for it.

    Where adapters share a section, `needed` is a list of them, and `needed_or` a table by their names.
    """
    instead = _extra(field).get("needed_or")
    names = instead.get(adapter) if isinstance(instead, dict) else instead
    others = [names] if isinstance(names, str) else names
    is_needed = _is_needed(field, adapter)
    if not is_needed and others:
        is_needed = not any(plain(getattr(values, other)) for other in others)
    return is_needed and not plain(getattr(values, name))


def _is_needed(field: FieldInfo, adapter: str) -> bool:
    needed = _extra(field).get("needed")
    return adapter in needed if isinstance(needed, list) else bool(needed)


def _check(name: str, field: FieldInfo, value: Any) -> None:
    if _extra(field).get("address") and value:
        _check_address(name, str(value))
    if _is_secret(field) and value and not _fits_a_header(value):
        raise BadField(name, tell("model_bad_secret", field=name))


def _fits_a_header(value: Any) -> bool:
    """Keys go into a request's headers, which hold no others."""
    if isinstance(value, dict):
        return all(_HEADER.fullmatch(key) and _fits_a_header(text) for key, text in value.items())
    return str(value).isascii() and str(value).isprintable() and str(value) == str(value).strip()


def _check_address(name: str, url: str) -> None:
    """Local servers are what many models run on; the addresses where clouds keep their machines' keys are none."""
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError as error:
        raise BadField(name, tell("model_bad_address", field=name)) from error
    if address.scheme not in ("http", "https") or not host or port == 0 or address.username or address.query:
        raise BadField(name, tell("model_bad_address", field=name))
    try:
        is_link_local = ipaddress.ip_address(host).is_link_local
    except ValueError:
        is_link_local = False
    if is_link_local:
        raise BadField(name, tell("model_bad_address", field=name))
