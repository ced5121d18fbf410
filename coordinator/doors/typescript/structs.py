"""msgspec's types as TypeScript's. A struct becomes a named, exported type, everything else an expression where it stands.

The same struct may look different from both sides: a field with a default may be left out by who sends it and is always there for
who reads it, unless the struct omits defaults. Only then it gets two names, the one for sending with `Input` behind it. Types are
aliases and not interfaces, because only aliases count as plain JSON for tRPC's own type of an answer.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import inspect

from coordinator.doors.typescript.comments import comment, of_class, of_field

Side = Literal["input", "output"]
_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PLAIN: dict[type[inspect.Type], str] = {
    inspect.AnyType: "unknown",
    inspect.RawType: "unknown",
    inspect.NoneType: "null",
    inspect.BoolType: "boolean",
    inspect.IntType: "number",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.BytesType: "string",
    inspect.DateTimeType: "string",
    inspect.DecimalType: "string",
    inspect.UUIDType: "string",
}


class Types:
    """All types the given roots need. `roots`: as (type, side it is seen from)."""

    def __init__(self, roots: Iterable[tuple[Any, Side]]) -> None:
        self._used: dict[Side, dict[type, inspect.StructType]] = {"input": {}, "output": {}}
        for root, side in roots:
            _collect(inspect.type_info(root), self._used[side])
        self._names = _names({**self._used["input"], **self._used["output"]})

    def expression(self, kind: Any, side: Side) -> str:
        return self._render(inspect.type_info(kind), side)

    def declarations(self) -> Iterator[str]:
        """Every named type once, by name."""
        rendered = {
            self._name(one, side): self._declaration(one, side)
            for side in ("output", "input")
            for one in self._used[side].values()
        }
        return (rendered[name] for name in sorted(rendered))

    def _declaration(self, one: inspect.StructType, side: Side) -> str:
        assert not one.array_like, f"{one.cls}: what the API says has names for its fields"
        lines = [] if one.tag_field is None else [f"  {_key(one.tag_field)}: {json.dumps(one.tag)};\n"]
        for field in one.fields:
            mark = "?" if _is_optional(one, field, side) else ""
            about = comment(of_field(field), "  ")
            lines.append(f"{about}  {_key(field.encode_name)}{mark}: {self._render(field.type, side)};\n")
        body = "{\n" + "".join(lines) + "}" if lines else "Record<string, never>"
        return f"{comment(of_class(one.cls))}export type {self._name(one, side)} = {body};\n"

    def _render(self, kind: inspect.Type, side: Side) -> str:
        match kind:
            case inspect.StructType():
                return self._name(kind, side)
            case inspect.LiteralType():
                return " | ".join(json.dumps(value) for value in kind.values)
            case inspect.EnumType():
                return " | ".join(json.dumps(member.value) for member in kind.cls)
            case inspect.DictType():
                return f"Record<string, {self._render(kind.value_type, side)}>"
            case inspect.CustomType() if kind.cls is object:
                return "unknown"
        inside = [self._render(one, side) for one in _inside(kind)]
        match kind:
            case inspect.Metadata() | inspect.UnionType():
                return " | ".join(dict.fromkeys(inside))
            case inspect.TupleType():
                return f"[{', '.join(inside)}]"
            case _:
                return f"Array<{inside[0]}>" if inside else _PLAIN[type(kind)]

    def _name(self, one: inspect.StructType, side: Side) -> str:
        both = one.cls in self._used["input"] and one.cls in self._used["output"]
        return self._names[one.cls] + ("Input" if both and side == "input" and _has_two_sides(one, set()) else "")


def _collect(kind: inspect.Type, into: dict[type, inspect.StructType]) -> None:
    if isinstance(kind, inspect.StructType):
        if kind.cls in into:
            return
        into[kind.cls] = kind
    for inner in _inside(kind):
        _collect(inner, into)


def _inside(kind: inspect.Type) -> list[inspect.Type]:
    match kind:
        case inspect.Metadata():
            return [kind.type]
        case inspect.StructType():
            return [field.type for field in kind.fields]
        case inspect.UnionType():
            return list(kind.types)
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            return [kind.item_type]
        case inspect.TupleType():
            return list(kind.item_types)
        case inspect.DictType():
            return [kind.key_type, kind.value_type]
        case _:
            return []


def _names(used: dict[type, inspect.StructType]) -> dict[type, str]:
    """Classes of one name in different modules are told apart by these."""
    times = Counter(cls.__name__ for cls in used)
    names = {cls: cls.__name__ if times[cls.__name__] == 1 else _qualified(cls) for cls in used}
    assert len(set(names.values())) == len(names), f"two types of one name: {sorted(names.values())}"
    return names


def _qualified(cls: type) -> str:
    module = cls.__module__.rpartition(".")[2]
    return "".join(word.capitalize() for word in module.split("_")) + cls.__name__


def _has_two_sides(one: inspect.StructType, seen: set[type]) -> bool:
    if one.cls in seen:
        return False
    seen.add(one.cls)
    if any(_is_optional(one, field, "input") != _is_optional(one, field, "output") for field in one.fields):
        return True
    return any(_holds_two_sides(field.type, seen) for field in one.fields)


def _holds_two_sides(kind: inspect.Type, seen: set[type]) -> bool:
    if isinstance(kind, inspect.StructType):
        return _has_two_sides(kind, seen)
    return any(_holds_two_sides(inner, seen) for inner in _inside(kind))


def _is_optional(one: inspect.StructType, field: inspect.Field, side: Side) -> bool:
    if field.required:
        return False
    is_unset = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
    return side == "input" or is_unset or bool(one.cls.__struct_config__.omit_defaults)


def _key(name: str) -> str:
    return name if _WORD.fullmatch(name) else json.dumps(name)
