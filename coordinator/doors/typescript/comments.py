"""What a type or a field has to say about itself, as doc comments: editors show them where a call is written."""

import inspect as python
import json

from msgspec import inspect


def comment(text: str, indent: str = "") -> str:
    """As a doc comment above what it is about; empty for no text."""
    if not text:
        return ""
    lines = text.replace("*/", "*\\/").splitlines()
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"


def of_class(cls: type) -> str:
    return python.cleandoc(cls.__doc__ or "")


def of_field(field: inspect.Field) -> str:
    """Description, range and default, as far as there are any."""
    kind, said = field.type, ""
    if isinstance(kind, inspect.Metadata):
        said = (kind.extra_json_schema or {}).get("description", "")
        kind = kind.type
    said = said.rstrip(".")
    facts = [fact for fact in (_range(kind), _default(field)) if fact]
    return ". ".join(part[:1].upper() + part[1:] for part in (said, ", ".join(facts)) if part)


def _range(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return next((text for text in map(_range, kind.types) if text), "")
    match kind:
        case inspect.Metadata():
            return _range(kind.type)
        case inspect.IntType() | inspect.FloatType():
            return _between(kind.ge, kind.le, "")
        case inspect.StrType():
            return _between(kind.min_length, kind.max_length, " characters")
        case inspect.ListType() | inspect.DictType():
            return _between(kind.min_length, kind.max_length, " entries")
        case _:
            return ""


def _between(least: float | None, most: float | None, unit: str) -> str:
    match least, most:
        case None, None:
            return ""
        case None, _:
            return f"at most {most}{unit}"
        case _, None:
            return f"at least {least}{unit}"
        case _:
            return f"{least} to {most}{unit}"


def _default(field: inspect.Field) -> str:
    if field.required or not isinstance(field.default, str | int | float) or field.default == "":
        return ""
    return f"by default {json.dumps(field.default)}"
