"""JSON Schemas of what procedures take and give, as components that operations refer to.

msgspec makes them from the very types that inputs are decoded into and answers encoded from, so they cannot say anything else. Here
they are only made good to read: a struct's docstring that explains fields ("`tail`: last lines …") is taken apart into descriptions
of these fields, and what is peculiar to Python's regular expressions is taken out of patterns.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec

from coordinator.procedures.table import Nothing, Procedure

Schema = dict[str, Any]

_EMPTY: Schema = {"properties": {}, "required": []}
REF = "#/components/schemas/"
_ABOUT_FIELDS = re.compile(r"((?:`\w+`(?:, | and )?)+): ")
_NAME = re.compile(r"`(\w+)`")
_INNER = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")
_LAST_LINE = "(?!\\n)"
"""Behind `$`, which in Python also stands before a final line feed; elsewhere it means the end anyway."""


class Schemas:
    """`components` grows as operations ask for envelopes and bodies."""

    def __init__(self, procedures: Iterable[Procedure]) -> None:
        kinds = list(dict.fromkeys(kind for one in procedures for kind in _kinds(one)))
        made = msgspec.json.schema_components(kinds, schema_hook=_any, ref_template=REF + "{name}")
        schemas, components = msgspec.json.decode(
            msgspec.json.encode(made)
        )  # a default may be a tuple: here it is an array
        self._of: dict[Any, Schema] = dict(zip(kinds, schemas, strict=True))
        self.components: dict[str, Schema] = {name: _documented(schema) for name, schema in components.items()}
        self.components.pop(Nothing.__name__, None)  # no operation refers to it: it is no body and no query
        _tidy(self.components)
        for name in set(self.components) - set(self._reached(one.input for one in procedures)):
            self.components[name].pop("additionalProperties", None)  # an answer may get more fields in time

    def ref(self, kind: Any) -> Schema:
        """Of a procedure's input, output or event."""
        return self._of[kind]

    def fields(self, kind: Any) -> tuple[dict[str, Schema], set[str]]:
        """An input's fields in wire names, and which of them must be given."""
        schema = self._resolve(self._of[kind])
        return schema["properties"], set(schema["required"])

    def body(self, name: str, kind: Any, without: Iterable[str]) -> Schema | None:
        """An input without the fields that a path gives, as the component `name`; None when nothing is left."""
        schema = self._resolve(self._of[kind])
        left = {key: value for key, value in schema["properties"].items() if key not in without}
        if not left:
            return None
        if len(left) == len(schema["properties"]):
            return self._of[kind]
        required = [key for key in schema["required"] if key in left]
        return self._component(name, {**schema, "properties": left, "required": required})

    def result(self, procedure: Procedure) -> Schema:
        """The envelope of a success."""
        inner = {"type": "object", "required": ["data"], "properties": {"data": self._of[procedure.output]}}
        envelope = {"type": "object", "required": ["result"], "properties": {"result": inner}}
        return self._component(f"{_title(procedure)}Result", envelope)

    def _component(self, name: str, schema: Schema) -> Schema:
        known = self.components.setdefault(name, schema)
        assert known == schema, f"the document has two different schemas called {name}"
        return {"$ref": REF + name}

    def _resolve(self, schema: Schema) -> Schema:
        name = schema["$ref"].removeprefix(REF)
        return _EMPTY if name == Nothing.__name__ else self.components[name]

    def _reached(self, kinds: Iterable[Any]) -> Iterator[str]:
        """Names of all components that these types are made of."""
        waiting = [self._of[kind] for kind in kinds]
        seen: set[str] = set()
        while waiting:
            for name in _references(waiting.pop()):
                if name not in seen and name in self.components:
                    seen.add(name)
                    waiting.append(self.components[name])
        yield from seen


def bare(schema: Schema) -> Schema:
    """Without null and without a default of null, which a path or a query cannot give."""
    options = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    if len(options) == 1:
        return {**options[0], **rest}
    return {**rest, "anyOf": options} if options else rest


def _kinds(procedure: Procedure) -> list[Any]:
    return [procedure.input, procedure.output, *([procedure.event] if procedure.event else [])]


def _title(procedure: Procedure) -> str:
    """Of the envelope: by what is in it, so that operations with the same answer share one."""
    output = procedure.output
    if isinstance(output, type) and issubclass(output, msgspec.Struct):
        return output.__name__
    if get_origin(output) is list and isinstance(get_args(output)[0], type):
        return f"{get_args(output)[0].__name__}List"
    return "".join(part[:1].upper() + part[1:] for part in procedure.name.split("."))


def _any(kind: Any) -> Schema:
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _documented(schema: Schema) -> Schema:
    """With the parts of its description that are about single fields put there."""
    schema.pop("title", None)
    properties: dict[str, Schema] = schema.get("properties", {})
    general, about = _taken_apart(schema.pop("description", ""), properties)
    for name, text in about.items():
        properties[name].setdefault("description", text)
    return {"description": general, **schema} if general else schema


def _taken_apart(text: str, properties: Mapping[str, Schema]) -> tuple[str, dict[str, str]]:
    text = _NAME.sub(lambda found: f"`{_wire(found[1], properties)}`", " ".join(text.split()))
    general, *pieces = _ABOUT_FIELDS.split(text)
    about: dict[str, str] = {}
    for names, said in zip(pieces[::2], pieces[1::2], strict=True):
        known = [name for name in _NAME.findall(names) if name in properties]
        about |= {name: _sentence(said) for name in known}
        if not known:
            general += f"{names}: {said}"
    return general.strip(), about


def _wire(name: str, properties: Mapping[str, Schema]) -> str:
    """Docstrings may call a field by its attribute."""
    camel = _INNER.sub(lambda found: found[1].upper(), name)
    return camel if camel in properties else name


def _sentence(text: str) -> str:
    text = text.strip().rstrip(";,")
    return text[:1].upper() + text[1:]


def _tidy(schema: Any) -> None:
    match schema:
        case dict():
            if isinstance(schema.get("pattern"), str):
                schema["pattern"] = schema["pattern"].replace(_LAST_LINE, "")
            if isinstance(schema.get("enum"), list) and all(isinstance(one, str) for one in schema["enum"]):
                schema.setdefault("type", "string")
            if schema.get("items") is False and "maxItems" in schema:
                del schema["items"]  # says what `maxItems` says, in a way that not every generator knows
            for value in schema.values():
                _tidy(value)
        case list():
            for value in schema:
                _tidy(value)


def _references(schema: Any) -> Iterator[str]:
    match schema:
        case {"$ref": str(target)}:
            yield target.removeprefix(REF)
        case dict():
            for value in schema.values():
                yield from _references(value)
        case list():
            for value in schema:
                yield from _references(value)
