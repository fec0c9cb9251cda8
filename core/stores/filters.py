"""Filters as SQL over the `local` store's documents; whatever a person wrote goes in as a parameter only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from core.errors import UserError
from core.texts import tell
from core.types import All, Compare, Filter, Not, Some

Value = str | int | float | bool
Condition = tuple[str, list[Value]]

_MAX_DEPTH: Final = 16
_MAX_VALUES: Final = 5000
_ORDER: Final = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_META: Final = "meta."


def condition(filter: Filter) -> Condition:
    """SQL that holds for the rows `d` of documents that the filter lets pass, with its parameters. Raises UserError."""
    sql, values = _condition(filter, 0)
    if len(values) > _MAX_VALUES:
        raise UserError(tell("filter_too_big"))
    return sql, values


def _condition(filter: Filter, depth: int) -> Condition:
    if depth > _MAX_DEPTH:
        raise UserError(tell("filter_too_big"))
    match filter:
        case Compare():
            return _compare(filter)
        case All(parts):
            return _joined(parts, " AND ", "1", depth)
        case Some(parts):
            return _joined(parts, " OR ", "0", depth)
        case Not(part):
            sql, values = _condition(part, depth + 1)
            return f"NOT ({sql})", values


def _joined(parts: Sequence[Filter], word: str, empty: str, depth: int) -> Condition:
    conditions = [_condition(part, depth + 1) for part in parts]
    values = [value for _, own in conditions for value in own]
    return word.join(f"({sql})" for sql, _ in conditions) or empty, values


def _compare(compare: Compare) -> Condition:
    if compare.op == "ne":
        sql, values = _compare(Compare(compare.field, "eq", compare.value))
        return f"NOT ({sql})", values
    if compare.field == "document":
        return _column("d.name", compare)
    if compare.field == "folder":
        return _folder(compare)
    if compare.field.startswith(_META) and len(compare.field) > len(_META):
        sql, values = _column("m.value", compare)
        # `sql` is one of the few shapes below; every value is a parameter.
        inner = f"SELECT 1 FROM metadata m WHERE m.document = d.id AND m.key = ? AND ({sql})"  # noqa: S608
        return f"EXISTS ({inner})", [compare.field[len(_META) :], *values]
    raise UserError(tell("filter_unknown_field", field=compare.field))


def _column(column: str, compare: Compare) -> Condition:
    """Texts compare with texts and numbers with numbers only."""
    value = compare.value
    if compare.op == "in":
        values = list(value) if isinstance(value, tuple) else [value]
        return f"{column} IN ({', '.join('?' * len(values))})", values
    if isinstance(value, tuple):
        raise UserError(tell("filter_one_value", op=compare.op))
    if compare.op == "eq":
        return f"{column} = ?", [value]
    kinds = "('text')" if isinstance(value, str) else "('integer', 'real')"
    if compare.op == "prefix":
        text = str(value)
        return f"typeof({column}) = 'text' AND substr({column}, 1, ?) = ?", [len(text), text]
    return f"typeof({column}) IN {kinds} AND {column} {_ORDER[compare.op]} ?", [value]


def _folder(compare: Compare) -> Condition:
    """In one of the folders or anywhere below."""
    if compare.op not in ("eq", "in", "prefix"):
        raise UserError(tell("filter_folder_op", op=compare.op))
    folders = compare.value if isinstance(compare.value, tuple) else (compare.value,)
    parts: list[Filter] = []
    for folder in folders:
        path = str(folder).strip("/")
        parts.append(Compare("document", "prefix", f"{path}/" if path else ""))
    return _joined(parts, " OR ", "0", 0)
