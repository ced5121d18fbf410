"""Bytes and query strings to a procedure's input, and validation errors to sentences that name the field and the rule.

A body is JSON and says so, or says nothing: a browser's form on somebody else's page can send text and forms with a user's cookie,
but not this type without asking first. Where JSON leaves things open (a key given twice, a lone half of a character, NUL), the call
is refused: two readers of the same bytes must not see two things.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Request

from coordinator.errors import BadRequest, TooLarge

MAX_BODY_BYTES = 1024 * 1024
TOO_LARGE = f"the body has more than {MAX_BODY_BYTES} bytes"
_PLACE = re.compile(r"(?P<rule>.*?)(?: - at `(?P<where>key in )?\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)


def check_type(request: Request[Any, Any, Any]) -> None:
    """Raises BadRequest for a body that is declared as something else than JSON."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    declared = headers.get("content-type")
    if declared is None:
        return
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise BadRequest(f"Content-Type: must be application/json, not {kind[:100]!r}")


def from_json(body: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Raises BadRequest or TooLarge. No body at all counts as `{}`."""
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(TOO_LARGE)
    try:
        data = msgspec.json.decode(body or b"{}", type=kind)
        _check(body or b"{}")
    except msgspec.ValidationError as error:
        raise BadRequest(sentence(str(error))) from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except ValueError as error:  # what msgspec raises for malformed JSON and malformed UTF-8 is one
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    return data


def _check(body: bytes) -> None:
    """What the decoder lets pass. Raises BadRequest."""
    read = json.loads(body, object_pairs_hook=_once_each, parse_int=float)
    if b"\\u0000" in body and any("\0" in text for text in _texts(read)):
        raise BadRequest("the body contains a NUL character, which no field may")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        unseen = set(found)
        for key, _ in pairs:
            if key not in unseen:
                raise BadRequest(f"{key[:100]}: given twice")
            unseen.remove(key)
    return found


def _texts(value: Any) -> Iterator[str]:
    """Keys included; without recursion, which would cost depth times size."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text:
                yield text
            case list() as values:
                rest.extend(values)
            case dict() as fields:
                rest.extend(fields)
                rest.extend(fields.values())
            case _:
                pass


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
        data: msgspec.Struct = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(sentence(str(error))) from error
    if any(value.lower() == "null" for value in values.values()):
        _refuse_null(data, values)
    return data


def _refuse_null(data: msgspec.Struct, given: dict[str, Any]) -> None:
    """The word would be read as no value by some types and as itself by others. Raises BadRequest."""
    for field in msgspec.structs.fields(data):
        if field.encode_name in given and getattr(data, field.name) is None:
            raise BadRequest(f"{field.encode_name}: a query cannot say null: leave the field out")


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
