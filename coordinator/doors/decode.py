"""Bytes and query strings to a procedure's input, and validation errors to sentences that name the field and the rule."""

import re
from typing import Any

import msgspec

from coordinator.errors import BadRequest, TooLarge

MAX_BODY_BYTES = 1024 * 1024
_PLACE = re.compile(r"(?P<rule>.*?)(?: - at `(?P<where>key in )?\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)


def from_json(body: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Raises BadRequest or TooLarge. No body at all counts as `{}`."""
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        data = msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(sentence(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    if b"\\u0000" in body:
        raise BadRequest("the body contains a NUL character, which no field may")
    return data


def from_query(pairs: list[tuple[str, str]], kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Every value arrives as text and is read as its field's type. Raises BadRequest."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise BadRequest(f"{key}: given twice")
        if "\x00" in value:
            raise BadRequest(f"{key}: contains a NUL character")
        values[key] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(sentence(str(error))) from error


def sentence(error: str) -> str:
    """msgspec's "Expected `int` >= 1 - at `$.replicas`" as "replicas: expected int >= 1"."""
    match = _PLACE.fullmatch(error)
    assert match is not None, "the pattern takes any text"
    rule, path = match["rule"], (match["path"] or "").lstrip(".")
    if found := _UNKNOWN.fullmatch(rule):
        return f"{_join(path, found['field'])}: unknown field"
    if found := _MISSING.fullmatch(rule):
        return f"{_join(path, found['field'])}: is required"
    rule = rule.replace("`", "")
    return f"{path or 'body'}: {rule[:1].lower()}{rule[1:]}"


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field
