"""Filters for a Weaviate server: what can be filtered by is written into each chunk as labels, made of hex digits only.

So no character that a person wrote has a meaning to the server, texts and numbers sort as they do in the `local` store,
and one index answers for every field. Texts longer than 400 bytes are told apart by their digest, and `lt`, `le`, `gt`
and `ge` look at the first 32 bytes of the text that is compared with.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from core.errors import UserError
from core.texts import tell
from core.types import All, Compare, Filter, IndexedDocument, Not, Some

if TYPE_CHECKING:
    from weaviate.collections.classes.filters import _Filters

_MAX_DEPTH: Final = 16
_MAX_VALUES: Final = 5000
_KEPT: Final = 400
_COMPARED: Final = 32
_DIGITS: Final = "0123456789abcdef"
_META: Final = "meta."
_DOCUMENT, _FOLDER, _TEXT, _NUMBER = "d", "f", "s", "n"
_HUGE: Final = 1 << 63
_NEVER: Final = "-"
"""A label that no document has."""


def labels(document: IndexedDocument) -> list[str]:
    """Everything that the document can be found by in a filter."""
    parts = document.name.split("/")[:-1]
    folders = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    found = [_DOCUMENT + _text(document.name), *(_folder(path) for path in folders)]
    return found + [_key(key) + _value(value) for key, value in document.metadata.items()]


def condition(filter: Filter) -> _Filters | None:
    """For the labels of a chunk; None: every one passes. Raises UserError."""
    if sum(_sizes(filter, 0)) > _MAX_VALUES:
        raise UserError(tell("filter_too_big"))
    try:
        return _condition(filter)
    except (UnicodeEncodeError, OverflowError) as error:
        raise UserError(tell("store_bad_value")) from error


def _sizes(filter: Filter, depth: int) -> Iterator[int]:
    if depth > _MAX_DEPTH:
        raise UserError(tell("filter_too_big"))
    match filter:
        case Compare(value=tuple() as values):
            yield len(values)
        case Compare():
            yield 1
        case Not(part):
            yield from _sizes(part, depth + 1)
        case All(parts) | Some(parts):
            for part in parts:
                yield from _sizes(part, depth + 1)


def _condition(filter: Filter) -> _Filters | None:
    from weaviate.classes.query import Filter as Where

    match filter:
        case Compare():
            return _compare(filter)
        case All(parts):
            conditions = [found for part in parts if (found := _condition(part)) is not None]
            return Where.all_of(conditions) if conditions else None
        case Some(parts):
            some = [_condition(part) for part in parts]
            wanted = [found for found in some if found is not None]
            if len(wanted) < len(some):
                return None
            return Where.any_of(wanted) if wanted else _any_label(())
        case Not(part):
            found = _condition(part)
            return _any_label(()) if found is None else Where.not_(found)


def _compare(compare: Compare) -> _Filters | None:
    if compare.op == "ne":
        return _condition(Not(Compare(compare.field, "eq", compare.value)))
    if compare.field == "document":
        return _field(_DOCUMENT, compare, is_text=True)
    if compare.field == "folder":
        return _in_folder(compare)
    if compare.field.startswith(_META) and len(compare.field) > len(_META):
        return _field(_key(compare.field[len(_META) :]), compare, is_text=False)
    raise UserError(tell("filter_unknown_field", field=compare.field))


def _field(head: str, compare: Compare, *, is_text: bool) -> _Filters:
    """Texts compare with texts and numbers with numbers only; a document's name is a text without a sign for it."""
    value = compare.value
    if compare.op == "in":
        values = value if isinstance(value, tuple) else (value,)
        return _any_label([head + (_text(str(one)) if is_text else _value(one)) for one in values])
    if isinstance(value, tuple):
        raise UserError(tell("filter_one_value", op=compare.op))
    if compare.op == "eq":
        return _any_label([head + (_text(str(value)) if is_text else _value(value))])
    if compare.op == "prefix":
        return _beginning(head if is_text else head + _TEXT, str(value))
    if isinstance(value, str):
        return _ordered(head if is_text else head + _TEXT, value.encode()[:_COMPARED].hex(), compare.op)
    return _any_label(()) if is_text else _ordered(head + _NUMBER, _sortable(value), compare.op)


def _in_folder(compare: Compare) -> _Filters | None:
    """In one of the folders or anywhere below."""
    if compare.op not in ("eq", "in", "prefix"):
        raise UserError(tell("filter_folder_op", op=compare.op))
    folders = compare.value if isinstance(compare.value, tuple) else (compare.value,)
    paths = [str(folder).strip("/") for folder in folders]
    return None if "" in paths else _any_label([_folder(path) for path in paths])


def _any_label(wanted: Sequence[str]) -> _Filters:
    from weaviate.classes.query import Filter as Where

    return Where.by_property("labels").contains_any(list(dict.fromkeys(wanted)) or [_NEVER])


def _beginning(head: str, text: str) -> _Filters:
    from weaviate.classes.query import Filter as Where

    if len(text.encode()) > _KEPT:
        return _any_label([head + _text(text)])
    return Where.by_property("labels").like(f"{head}{text.encode().hex()}*")


def _ordered(head: str, digits: str, op: str) -> _Filters:
    """`lt`, `le`, `gt` or `ge`: the labels that leave the path of these digits upwards or downwards."""
    from weaviate.classes.query import Filter as Where

    is_less = op in ("lt", "le")
    beginnings = [
        head + digits[:place] + other
        for place, digit in enumerate(digits)
        for other in _DIGITS
        if (other < digit if is_less else other > digit)
    ]
    parts = [Where.by_property("labels").like(f"{one}*") for one in beginnings]
    equal = [head + digits] if op in ("le", "ge") else []
    if is_less:  # what has ended before comes first
        parts.append(_any_label([*equal, *(head + digits[:place] for place in range(0, len(digits), 2))]))
    else:
        parts.append(Where.by_property("labels").like(f"{head}{digits}?*"))
        if equal:
            parts.append(_any_label(equal))
    return Where.any_of(parts)


def _key(name: str) -> str:
    return "m" + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def _folder(path: str) -> str:
    return _FOLDER + hashlib.blake2b(path.encode(), digest_size=16).hexdigest()


def _value(value: str | float) -> str:
    return _TEXT + _text(value) if isinstance(value, str) else _NUMBER + _sortable(value)


def _text(text: str) -> str:
    raw = text.encode()
    if len(raw) <= _KEPT:
        return raw.hex()
    return f"{raw[:_KEPT].hex()}z{hashlib.blake2b(raw, digest_size=16).hexdigest()}"


def _sortable(number: float) -> str:
    """Sixteen digits that sort as the numbers do."""
    if math.isnan(number) or (isinstance(number, int) and not -_HUGE <= number < _HUGE):
        raise OverflowError
    (bits,) = struct.unpack(">Q", struct.pack(">d", float(number) + 0.0))
    return f"{(~bits if bits >> 63 else bits | _HUGE) & (2 * _HUGE - 1):016x}"
