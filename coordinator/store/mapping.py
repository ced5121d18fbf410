"""Between rows and records: one table, one frozen Struct with fields named as the columns.

Columns that hold JSON are recognised by the record's annotation, so a repository names a column's type once. Records are plain
values: they outlive their connection and may cross into any loop.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from sqlalchemy import Column, ColumnElement, Select, Table, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from coordinator.store.prepared import Prepared, Row

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
        self._insert = Prepared(insert(table))
        # Of columns that the record leaves out.
        self._defaults = {c.name: _default(c) for c in table.columns if c.name not in self._names}

    def select(self, *where: ColumnElement[bool]) -> Select[Any]:
        return self._select.where(*where)

    def by(self, column: ColumnElement[Any], *where: ColumnElement[bool], order: ColumnElement[Any]) -> "Lookup[R]":
        """The rows with one of some values in `column`, for queries that run all the time."""
        return Lookup(self, column, where, order)

    def edit(self, *where: ColumnElement[bool], returning: Sequence[ColumnElement[Any]] = ()) -> "Edit":
        """The change of some columns in the rows that `where` finds, by `bindparam`s of its own."""
        return Edit(self, where, returning)

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
        rows = [self._defaults | self.dump(record) for record in records]
        match rows:
            case []:
                pass
            case [row]:
                await self._insert.change(conn, row)
            case _:
                await self._insert.change_each(conn, rows)


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
        self._single = Prepared(mapper.select(column == bindparam("value"), *where).order_by(order))
        self._several = mapper.select(column.in_(bindparam("values", expanding=True)), *where).order_by(order)

    async def one(self, conn: AsyncConnection, value: str) -> R | None:
        """The first, for columns that are unique."""
        row = await self._single.first(conn, {"value": value})
        return None if row is None else self._mapper.load(row)

    async def many(self, conn: AsyncConnection, values: Iterable[str]) -> list[R]:
        wanted = list(values)
        match wanted:
            case []:
                return []
            case [value]:
                rows = await self._single.all(conn, {"value": value})
            case _:
                rows = (await conn.execute(self._several, {"values": wanted})).all()
        return [self._mapper.load(row) for row in rows]


class Edit:
    """An UPDATE made once for every set of columns it is used with. A `version` column counts its changes."""

    def __init__(
        self, mapper: Mapper[Any], where: Sequence[ColumnElement[bool]], returning: Sequence[ColumnElement[Any]]
    ) -> None:
        self._mapper = mapper
        self._update = update(mapper.table).where(*where)
        self._returning = returning
        self._made: dict[tuple[str, ...], Prepared] = {}

    async def run(self, conn: AsyncConnection, changes: Mapping[str, Any], **where: Any) -> int:
        """How many rows it changed."""
        return await self._prepared(changes).change(conn, self._values(changes, where))

    async def returned(self, conn: AsyncConnection, changes: Mapping[str, Any], **where: Any) -> Sequence[Row]:
        return await self._prepared(changes).all(conn, self._values(changes, where))

    def _values(self, changes: Mapping[str, Any], where: Mapping[str, Any]) -> dict[str, Any]:
        return {f"new_{name}": value for name, value in self._mapper.values(**changes).items()} | {**where}

    def _prepared(self, changes: Mapping[str, Any]) -> Prepared:
        names = tuple(sorted(changes))
        made = self._made.get(names)
        if made is None:
            columns = self._mapper.table.c
            values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=columns[name].type) for name in names}
            if "version" in columns:
                values["version"] = columns.version + 1
            statement = self._update.values(values)
            made = Prepared(statement.returning(*self._returning) if self._returning else statement)
            self._made[names] = made
        return made


async def count_by(conn: AsyncConnection, column: ColumnElement[Any], keys: Sequence[str]) -> dict[str, int]:
    """How many rows have each of `keys` in `column`; those that none has are absent."""
    result = await conn.execute(select(column, func.count()).where(column.in_(keys)).group_by(column))
    return {row[0]: row[1] for row in result}


def _default(column: Column[Any]) -> Any:
    default = column.default
    assert default is None or isinstance(default, ScalarElementColumnDefault), "a default is a value"
    return None if default is None else default.arg


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
