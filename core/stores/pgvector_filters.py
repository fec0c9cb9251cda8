"""Filters as SQL over the documents of the `pgvector` store; whatever a person wrote goes in as a parameter only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from core.errors import UserError
from core.stores.pgvector_tables import kept
from core.texts import tell
from core.types import All, Compare, Filter, Not, Some

Value = str | int | float | bool

_MAX_DEPTH: Final = 16
_MAX_VALUES: Final = 5000
_ORDER: Final = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_META: Final = "meta."
_LARGEST: Final = 1 << 63


class Parameters(list[Any]):
    """The values of a statement; each is named as it is added."""

    def add(self, value: object, kind: str) -> str:
        self.append(value)
        return f"${len(self)}::{kind}"


def condition(filter: Filter, parameters: Parameters, schema: str) -> str:
    """SQL that holds for the rows `d` of documents that the filter lets pass. Raises UserError."""
    if _values(filter, 0) > _MAX_VALUES:
        raise UserError(tell("filter_too_big"))
    return _condition(filter, parameters, schema)


def _values(filter: Filter, depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise UserError(tell("filter_too_big"))
    match filter:
        case Compare():
            return len(filter.value) if isinstance(filter.value, tuple) else 1
        case All(parts) | Some(parts):
            return sum(_values(part, depth + 1) for part in parts)
        case Not(part):
            return _values(part, depth + 1)


def _condition(filter: Filter, parameters: Parameters, schema: str) -> str:
    match filter:
        case Compare():
            return _compare(filter, parameters, schema)
        case All(parts):
            return " AND ".join(f"({_condition(part, parameters, schema)})" for part in parts) or "true"
        case Some(parts):
            return " OR ".join(f"({_condition(part, parameters, schema)})" for part in parts) or "false"
        case Not(part):
            return f"NOT ({_condition(part, parameters, schema)})"


def _compare(compare: Compare, parameters: Parameters, schema: str) -> str:
    if compare.op == "ne":
        return f"NOT ({_compare(Compare(compare.field, 'eq', compare.value), parameters, schema)})"
    if compare.field == "document":
        return _text("d.name", compare, parameters)
    if compare.field == "folder":
        return _folder(compare, parameters)
    if compare.field.startswith(_META) and len(compare.field) > len(_META):
        key = parameters.add(_checked(compare.field[len(_META) :]), "text")
        texts, numbers = _text("m.text", compare, parameters), _number("m.number", compare, parameters)
        # `texts` and `numbers` are some of the few shapes below; every value is a parameter.
        return (
            f"EXISTS (SELECT 1 FROM {schema}.metadata m WHERE m.document = d.number AND m.key = {key}"  # noqa: S608
            f" AND coalesce(({texts}) OR ({numbers}), false))"
        )
    raise UserError(tell("filter_unknown_field", field=compare.field))


def _text(column: str, compare: Compare, parameters: Parameters) -> str:
    """Texts compare with texts only."""
    values = [_checked(value) for value in _all(compare) if isinstance(value, str)]
    if compare.op == "in":
        return f"{column} = ANY({parameters.add(values, 'text[]')})"
    if not values:
        if compare.op != "prefix":
            return "false"
        values = [str(compare.value)]
    if compare.op == "eq":
        return f"{column} = {parameters.add(values[0], 'text')}"
    value = parameters.add(values[0], "text")
    if compare.op == "prefix":
        return f"starts_with({column}, {value})"
    return f"{column} {_ORDER[compare.op]} {value}"


def _number(column: str, compare: Compare, parameters: Parameters) -> str:
    """Numbers compare with numbers only; true is 1."""
    values = [_float(value) for value in _all(compare) if not isinstance(value, str)]
    if compare.op == "in":
        return f"{column} = ANY({parameters.add(values, 'float8[]')})"
    if not values or compare.op == "prefix":
        return "false"
    sign = "=" if compare.op == "eq" else _ORDER[compare.op]
    return f"{column} {sign} {parameters.add(values[0], 'float8')}"


def _all(compare: Compare) -> Sequence[Value]:
    if not isinstance(compare.value, tuple):
        return (compare.value,)
    if compare.op != "in":
        raise UserError(tell("filter_one_value", op=compare.op))
    return compare.value


def _float(value: Value) -> float:
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise UserError(tell("store_bad_value"))
    number = float(value)
    if math.isnan(number):
        raise UserError(tell("store_bad_value"))
    return number


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(tell("store_bad_value")) from error
    return kept(text)


def _folder(compare: Compare, parameters: Parameters) -> str:
    """In one of the folders or anywhere below."""
    if compare.op not in ("eq", "in", "prefix"):
        raise UserError(tell("filter_folder_op", op=compare.op))
    folders = compare.value if isinstance(compare.value, tuple) else (compare.value,)
    found = []
    for folder in folders:
        path = str(folder).strip("/")
        found.append(_text("d.name", Compare("document", "prefix", f"{path}/" if path else ""), parameters))
    return " OR ".join(found) or "false"
