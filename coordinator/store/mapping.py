"""Between rows and records: one table, one frozen Struct with fields named as the columns.

Columns that hold JSON are recognised by the record's annotation, so a repository names a column's type once. Records are plain
values: they outlive their connection and may cross into any loop.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, Select, Table, bindparam, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

R = TypeVar("R", bound=msgspec.Struct)
_PLAIN = (str, int, float, bool, bytes, type(None))
_encoder = msgspec.json.Encoder()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What repositories return."""


class Mapper(Generic[R]):
    def __init__(self, record: type[R], table: Table) -> None:
        self._record = record
        self.table = table
        self._names = record.__struct_fields__
        hints = get_type_hints(record)
        self._decoders = {name: _decoder(hints[name]) for name in self._names}
        self._json = {name for name in self._names if not _is_plain(hints[name])}
        self.columns = [table.c[name] for name in self._names]
        self._select = select(*self.columns)

    def select(self, *where: ColumnElement[bool]) -> Select[Any]:
        return self._select.where(*where)

    def by(self, column: ColumnElement[Any], *where: ColumnElement[bool], order: ColumnElement[Any]) -> "Lookup[R]":
        """The rows with one of some values in `column`, for queries that run all the time."""
        return Lookup(self, column, where, order)

    def load(self, row: Sequence[Any]) -> R:
        """The record of a row that begins with `columns`."""
        values = {}
        for name, value in zip(self._names, row, strict=False):
            decode = self._decoders[name]
            values[name] = value if decode is None or value is None else decode(value)
        return self._record(**values)

    def dump(self, record: R) -> dict[str, Any]:
        return self.values(**{name: getattr(record, name) for name in self._names})

    def values(self, **changes: Any) -> dict[str, Any]:
        """Column values for an UPDATE: structured ones as JSON, plain ones as they are."""
        return {
            name: value if value is None or name not in self._json else _encoder.encode(value).decode()
            for name, value in changes.items()
        }

    async def one(self, conn: AsyncConnection, *where: ColumnElement[bool]) -> R | None:
        row = (await conn.execute(self.select(*where))).first()
        return None if row is None else self.load(row)

    async def many(self, conn: AsyncConnection, statement: Select[Any]) -> list[R]:
        return [self.load(row) for row in await conn.execute(statement)]

    async def insert(self, conn: AsyncConnection, records: Iterable[R]) -> None:
        rows = [self.dump(record) for record in records]
        if rows:
            await conn.execute(insert(self.table), rows)


class Lookup(Generic[R]):
    """A query made once: building a statement and its cache key costs several times what SQLite needs to run it. A single value is
    the usual case, and compared as one: an IN list is expanded anew each time."""

    def __init__(
        self,
        mapper: Mapper[R],
        column: ColumnElement[Any],
        where: Sequence[ColumnElement[bool]],
        order: ColumnElement[Any],
    ) -> None:
        self._mapper = mapper
        self._single = mapper.select(column == bindparam("value"), *where).order_by(order)
        self._several = mapper.select(column.in_(bindparam("values", expanding=True)), *where).order_by(order)

    async def one(self, conn: AsyncConnection, value: str) -> R | None:
        """The first, for columns that are unique."""
        row = (await conn.execute(self._single, {"value": value})).first()
        return None if row is None else self._mapper.load(row)

    async def many(self, conn: AsyncConnection, values: Iterable[str]) -> list[R]:
        wanted = list(values)
        match wanted:
            case []:
                return []
            case [value]:
                result = await conn.execute(self._single, {"value": value})
            case _:
                result = await conn.execute(self._several, {"values": wanted})
        return [self._mapper.load(row) for row in result]


async def count_by(conn: AsyncConnection, column: ColumnElement[Any], keys: Sequence[str]) -> dict[str, int]:
    """How many rows have each of `keys` in `column`; those that none has are absent."""
    result = await conn.execute(select(column, func.count()).where(column.in_(keys)).group_by(column))
    return {row[0]: row[1] for row in result}


def _is_plain(hint: Any) -> bool:
    return all(
        option in _PLAIN or (isinstance(option, type) and issubclass(option, IntEnum)) for option in _options(hint)
    )


def _options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; a Literal of words is a str, and an alias of one too."""
    if get_origin(hint) is Literal:
        return (str,)
    arguments = get_args(hint) if type(None) in get_args(hint) else ()
    return tuple(option for argument in arguments for option in _options(argument)) or (hint,)


def _decoder(hint: Any) -> Callable[[Any], Any] | None:
    if _is_plain(hint):
        enums = [option for option in _options(hint) if isinstance(option, type) and issubclass(option, IntEnum)]
        return enums[0] if enums else None
    return msgspec.json.Decoder(hint).decode
