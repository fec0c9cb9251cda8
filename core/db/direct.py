"""Statements that are written once and run without the ORM, which costs more than most of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from sqlalchemy import Delete, Insert, Row, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine import Dialect, result_tuple
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Core = Select[*tuple[Any, ...]] | Insert | Update | Delete
AnyRow = Row[*tuple[Any, ...]]
InsertInto = Callable[[Any], sqlite.Insert]
"""`insert` of the database that is used; PostgreSQL's has the same methods."""

_SQLITE: Final[Dialect] = pysqlite.dialect()


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement did."""

    rows: Sequence[AnyRow]
    count: int
    """Rows that it changed."""

    @property
    def first(self) -> AnyRow | None:
        return self.rows[0] if self.rows else None


def postgres_insert() -> InsertInto:
    """PostgreSQL's own; late: with it come its dialects, a twentieth of what all commands import."""
    from sqlalchemy.dialects import postgresql

    return postgresql.insert  # type: ignore[return-value]  # see InsertInto


class Statement:
    """A statement of SQLAlchemy Core; calling it gives a step of a transaction, for `Database.run` or `.fetch`.

    Its values come with the call: those of its `bindparam`s, and for an INSERT without values those of the columns; a
    column that is not given gets its default. Where it needs ON CONFLICT it is a function of the `insert` to use.
    """

    def __init__(self, text: Core | Callable[[InsertInto], Core]) -> None:
        self._text = text

    def __call__(self, **values: Any) -> Step:
        """Raises TypeError where a value is missing or has no place."""
        self.on_sqlite.check(values)
        return Step(self, values)

    @cached_property
    def on_postgres(self) -> Core:
        return self._text if isinstance(self._text, Core) else self._text(postgres_insert())

    @cached_property
    def on_sqlite(self) -> Translated:
        return Translated(self._text if isinstance(self._text, Core) else self._text(sqlite.insert))


@dataclass(frozen=True, slots=True)
class Step:
    """A statement with its values."""

    statement: Statement
    values: dict[str, Any]

    def bound(self) -> tuple[Translated, tuple[Any, ...]]:
        """For SQLite: the statement, and its values as the driver takes them."""
        translated = self.statement.on_sqlite
        return translated, translated.bound(self.values)


class Translated:
    """A statement in SQLite's words; values go in and come out as they do with the ORM."""

    def __init__(self, statement: Core) -> None:
        compiled = statement.compile(dialect=_SQLITE)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what statements are compiled to
        if any(bind.required and bind.expanding for bind in compiled.binds.values()):
            raise TypeError("a list has no fixed number of places; use one step for each of its values")
        given = {name: None for name, bind in compiled.binds.items() if bind.required}
        state = compiled.construct_expanded_state(given)
        defaults = _defaults(statement, compiled)
        self.sql = state.statement
        self._names = given.keys()
        self._required = given.keys() - defaults.keys()
        self._slots: list[tuple[str, Callable[[], Any], Callable[[Any], Any] | None]] = []
        """For each `?`: a name, what makes its value where none is given, and what makes the driver's of it."""
        for name in state.positiontup or ():
            bind = compiled.binds.get(name)
            process = _binds(bind.type) if bind is not None else state.processors.get(name)
            make = defaults.get(name) or partial(_same, state.parameters[name])
            self._slots.append((name, make, process))
        columns = statement.exported_columns
        self._row = result_tuple([*columns.keys()])
        self._columns = [_gives(column.type) for column in columns]

    def check(self, values: Mapping[str, Any]) -> None:
        if not (self._required <= values.keys() <= self._names):
            wrong = sorted((self._required - values.keys()) | (values.keys() - self._names))
            raise TypeError(f"missing or unknown: {', '.join(wrong)}")

    def bound(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        found = []
        for name, make, process in self._slots:
            value = values[name] if name in values else make()
            found.append(process(value) if process else value)
        return tuple(found)

    def bound_many(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """As `bound`, for rows of the same names: name by name, in half the time."""
        columns: list[list[Any]] = []
        for name, make, process in self._slots:
            values = [row[name] for row in rows] if name in rows[0] else [make() for _ in rows]
            if process and all(value is values[0] for value in values):  # one moment for all of them
                values = [process(values[0])] * len(values)
            elif process:
                values = [*map(process, values)]
            columns.append(values)
        return list(zip(*columns, strict=True))

    def run(self, cursor: sqlite3.Cursor, parameters: tuple[Any, ...]) -> Result:
        cursor.execute(self.sql, parameters)
        if not self._columns:
            return Result((), cursor.rowcount)
        found = cursor.fetchall()
        if any(self._columns):
            found = [
                [process(value) if process else value for process, value in zip(self._columns, row, strict=True)]
                for row in found
            ]
        return Result([*map(self._row, found)], cursor.rowcount)


async def run_on(connection: AsyncConnection, steps: Sequence[Step]) -> Sequence[Result]:
    """The same on PostgreSQL, in the connection's transaction."""
    results = []
    for step in steps:
        done = await connection.execute(step.statement.on_postgres, step.values)
        results.append(Result(done.all() if done.returns_rows else (), done.rowcount))
    return results


async def run_many(session: AsyncSession, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> None:
    """The statement once for each row of values, all of the same names, as a part of the session's transaction."""
    if not rows:
        return
    connection = await session.connection()
    if connection.dialect.name == "sqlite":
        translated = statement.on_sqlite
        translated.check(rows[0])
        await connection.exec_driver_sql(translated.sql, translated.bound_many(rows))
    else:
        await connection.execute(statement.on_postgres, rows)


def _defaults(statement: Core, compiled: SQLCompiler) -> dict[str, Callable[[], Any]]:
    """What makes the values of columns that are not given, by name."""
    found: dict[str, Callable[[], Any]] = {}
    if isinstance(statement, Insert):
        for column in statement.table.c:
            if column.key in compiled.binds and compiled.binds[column.key].required:
                if column.default is not None:
                    found[column.key] = _maker(column.default)
                elif column.nullable:
                    found[column.key] = _nothing
    found |= {column.key: _maker(column.default) for column in compiled.insert_prefetch}
    return found | {column.key: _maker(column.onupdate) for column in compiled.update_prefetch}


def _maker(default: Any) -> Callable[[], Any]:
    given = default.arg  # SQLAlchemy gives functions an argument, which ours do not use
    return (lambda: given(None)) if default.is_callable else (lambda: given)


def _binds(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    return kind.dialect_impl(_SQLITE).bind_processor(_SQLITE)


def _gives(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    return kind.dialect_impl(_SQLITE).result_processor(_SQLITE, None)


def _same(value: Any) -> Any:
    return value


def _nothing() -> None:
    return None
