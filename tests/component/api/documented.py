"""Examples as the documentation gives them, a curl line and perhaps its answer, and what an answer's shape is.

The documents are pages saved as text: the answer's heading may stick to the end of the command, and nothing marks the end of
either.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_TOKEN = r"""(?:-X\s+\w+|-H\s+"[^"]*"|-d\s+'[^']*'|"[^"]*"|https?://\S+)"""
_CURL = re.compile(rf"(?<![\w-])curl(?:(?:\s|\\\n)+{_TOKEN})+")
_PART = re.compile(_TOKEN)
_ANSWER = re.compile(r"(?:Response:|All responses return JSON:)\n(?=\{)")
_STATUS = re.compile(r"Response: (\d{3}) ")

Shape = dict[str, Any] | list[Any] | frozenset[str]
"""Of an object: its keys; of a list: its elements, where any is known; of anything else: the JSON types it may have."""


@dataclass(frozen=True)
class Example:
    """`answer`: what the documentation shows below `result.data`; None where it shows nothing."""

    source: str
    method: str
    name: str
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    status: int = 200
    answer: Any = None

    @property
    def key(self) -> tuple[str, str]:
        return self.source, self.name


def read(path: Path) -> Iterator[Example]:
    """In the document's order. `source` is the number that the file's name begins with."""
    text = path.read_text()
    found = list(_CURL.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=True):
        yield _example(path.name.partition("_")[0], match.group(), text[match.end() : end])


def _example(source: str, command: str, below: str) -> Example:
    url, method, body = "", "", None
    for part in _PART.findall(command):
        match part[:2]:
            case "-X":
                method = part[2:].strip()
            case "-d":
                body = json.loads(part[2:].strip().strip("'"))
            case "-H":
                pass
            case _:
                url = part.strip('"')
    method = method or ("GET" if body is None else "POST")
    place = urlsplit(url)
    shown = _ANSWER.search(below)
    said = _STATUS.search(below)
    return Example(
        source=source,
        method=method,
        name=place.path.rpartition("/")[2],
        query=dict(parse_qsl(place.query)),
        body=body,
        status=int(said.group(1)) if said else 204 if method == "DELETE" else 200,
        answer=json.JSONDecoder().raw_decode(below, shown.end())[0]["result"]["data"] if shown else None,
    )


def shape(value: Any) -> Shape:
    match value:
        case dict():
            return {key: shape(each) for key, each in value.items()}
        case list():
            known: list[Shape] = [shape(each) for each in value]
            while len(known) > 1:
                known[:2] = [_either(known[0], known[1])]
            return known
        case bool():
            return frozenset({"boolean"})
        case None:
            return frozenset({"null"})
        case int() | float():
            return frozenset({"number"})
        case _:
            return frozenset({"string"})


def _either(one: Shape, other: Shape) -> Shape:
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), "the elements of a documented list are alike"
        return {key: _either(one[key], other[key]) for key in one}
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one | other
    assert one == other, "the elements of a documented list are alike"
    return one


@dataclass
class Difference:
    """Paths below the answer, `[]` standing for any element of a list. `null`: documented with a value, and null here."""

    missing: set[str] = field(default_factory=set)
    extra: set[str] = field(default_factory=set)
    null: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)


def differences(documented: Shape, actual: Any, at: str = "", found: Difference | None = None) -> Difference:
    found = Difference() if found is None else found
    match documented, actual:
        case dict(), dict():
            found.missing |= {f"{at}{key}" for key in documented.keys() - actual.keys()}
            found.extra |= {f"{at}{key}" for key in actual.keys() - documented.keys()}
            for key in documented.keys() & actual.keys():
                differences(documented[key], actual[key], f"{at}{key}.", found)
        case list(), list():
            for each in actual if documented else ():
                differences(documented[0], each, f"{at.rstrip('.')}[].", found)
        case frozenset(), _ if not isinstance(actual, dict | list):
            (kind,) = _kinds(actual)
            if kind not in documented:
                (found.null if kind == "null" else found.wrong).add(at.rstrip("."))
        case _:
            found.wrong.add(at.rstrip("."))
    return found


def _kinds(scalar: Any) -> frozenset[str]:
    kinds = shape(scalar)
    assert isinstance(kinds, frozenset)
    return kinds
