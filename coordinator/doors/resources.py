"""The REST door's paths, as the table declares them: which procedure answers which method of which path.

Everything a path could get wrong is found out at start, when the routes are made, and not by whoever calls it: two procedures
behind one method and path, a `{parameter}` that the input does not have, a first segment that belongs to another door.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import inspect

from coordinator.procedures.table import TABLE, Procedure

Verb = Literal["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE"]
PREFIX = "/api"
METHODS: list[Verb] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE"]
"""What a route of a door takes: all there are, because the framework would answer for the rest without saying what is allowed."""
RESERVED = {"trpc", "docs", "webhooks"}
"""First segments below `/api` of other doors. Procedures and documents have a dot in theirs, paths of resources have none."""
_PATH = re.compile(r"(?:/(?:[a-z][a-z0-9-]*|\{[a-z][A-Za-z0-9]*\}))+")
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Resource:
    """`path` without the prefix. `parameters`: the input's fields that the path gives, in wire names."""

    path: str
    parameters: tuple[str, ...]
    procedure: Procedure

    @property
    def place(self) -> tuple[str, str]:
        """What must be unique: `/a/{x}` and `/a/{y}` are one path."""
        return self.procedure.method, _PARAMETER.sub("{}", self.path)


def resources(table: Iterable[Procedure] = ()) -> list[Resource]:
    """In the table's order; a procedure with several paths is there once for each."""
    found: dict[tuple[str, str], Resource] = {}
    for procedure in table or TABLE.values():
        for path in (procedure.rest, *procedure.also):
            one = _resource(procedure, path)
            taken = found.setdefault(one.place, one)
            assert taken is one, f"{procedure.name} and {taken.procedure.name} are both {procedure.method} {path}"
    return list(found.values())


def allow(methods: Iterable[str]) -> str:
    """The value of the header `Allow`."""
    known = set(methods)
    return ", ".join(sorted(known | {"OPTIONS"} | ({"HEAD"} if "GET" in known else set())))


def allow_of(procedure: Procedure) -> str:
    """On the procedure door, where POST always works."""
    return allow({procedure.method, "POST"})


def allowed_at(url_path: str) -> str | None:
    """`Allow` of whatever is served there by the doors that are made from the table; None where they serve nothing."""
    path = url_path.removeprefix(PREFIX)
    if (procedure := TABLE.get(path.removeprefix("/"))) is not None:
        return allow_of(procedure)
    methods = {one.procedure.method for one in resources() if _matches(one.path, path)}
    return allow(methods) if methods else None


def _matches(template: str, path: str) -> bool:
    wanted, given = template.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        part == value or (part.startswith("{") and value) for part, value in zip(wanted, given, strict=True)
    )


def _resource(procedure: Procedure, path: str) -> Resource:
    where = f"{procedure.name}: the REST path {path}"
    assert _PATH.fullmatch(path), f"{where} is not one of lower-case words and {{parameters}}"
    assert path.split("/")[1] not in RESERVED, f"{where} begins with what belongs to another door"
    parameters = tuple(_PARAMETER.findall(path))
    fields = {one.encode_name: one for one in msgspec.structs.fields(procedure.input)}
    for parameter in parameters:
        assert parameter in fields, f"{where} has a parameter that the input has not"
        assert _is_text(fields[parameter].type), f"{where}: {parameter} is not text, which is all that a path can give"
    return Resource(path, parameters, procedure)


def _is_text(kind: object) -> bool:
    found = inspect.type_info(kind)
    parts = found.types if isinstance(found, inspect.UnionType) else (found,)
    bare = [part.type if isinstance(part, inspect.Metadata) else part for part in parts]
    return all(isinstance(one, inspect.StrType | inspect.NoneType | inspect.LiteralType) for one in bare)
