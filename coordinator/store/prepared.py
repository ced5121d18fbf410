"""Statements made once and run all the time.

To SQLAlchemy a statement is a tree: it is hashed, looked up, and given an execution context and a cursor object each time, which
costs twenty times what SQLite needs to run it. So what lies on the way from "declared" to "runs" is compiled once here, and on
SQLite goes to the driver as text; PostgreSQL, where a statement is a journey anyway, gets it through SQLAlchemy as it is. Both
answer with plain rows, in the order of the columns.

`values` are those of the statement's `bindparam`s, by name, as the columns store them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Delete, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler

from coordinator.store.inline import InlineConnection, inline

Values = Mapping[str, Any]
Row = Sequence[Any]
_NOTHING: Values = {}
_dialect = sqlite.dialect()


class Prepared:
    """No parameter may be a list to expand: its text would not be the same each time."""

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement

    async def all(self, conn: AsyncConnection, values: Values = _NOTHING) -> Sequence[Row]:
        driver = inline(conn)
        if driver is None:
            return (await conn.execute(self._statement, values)).all()
        return self._text.query(driver, values)

    async def first(self, conn: AsyncConnection, values: Values = _NOTHING) -> Row | None:
        rows = await self.all(conn, values)
        return rows[0] if rows else None

    async def change(self, conn: AsyncConnection, values: Values = _NOTHING) -> int:
        """How many rows it changed."""
        driver = inline(conn)
        if driver is None:
            return (await conn.execute(self._statement, values)).rowcount
        return driver.change(self._text.text, self._text.parameters(values))

    async def change_each(self, conn: AsyncConnection, values: Sequence[Values]) -> None:
        """Once for each of `values`, which are not empty."""
        driver = inline(conn)
        if driver is None:
            await conn.execute(self._statement, values)
        else:
            driver.change_each(self._text.text, [self._text.parameters(each) for each in values])

    @cached_property
    def _text(self) -> "_Text":
        return _Text(self._statement)


class _Text:
    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        compiled = statement.compile(dialect=_dialect)
        assert isinstance(compiled, SQLCompiler)
        assert not compiled.prefetch, "what SQLAlchemy would compute for each row is not in the text"
        assert not compiled.post_compile_params, "a list makes another text each time"
        self.text = compiled.string
        self._names = list(compiled.positiontup or ())
        self._fixed = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        self._readers: dict[int, Callable[[Any], Any]] = {}
        for place, column in enumerate(statement.exported_columns):
            reader = column.type.dialect_impl(_dialect).result_processor(_dialect, None)
            if reader is not None:
                self._readers[place] = reader

    def parameters(self, values: Values) -> list[Any]:
        fixed = self._fixed
        return [values[name] if name in values else fixed[name] for name in self._names]

    def query(self, driver: InlineConnection, values: Values) -> Sequence[Row]:
        rows: Sequence[Row] = driver.query(self.text, self.parameters(values))
        return [self._read(row) for row in rows] if self._readers else rows

    def _read(self, row: Row) -> Row:
        read = list(row)
        for place, reader in self._readers.items():
            read[place] = reader(read[place])
        return tuple(read)
