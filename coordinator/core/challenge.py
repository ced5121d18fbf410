"""What a registry asks for in `WWW-Authenticate`: one or more challenges, each a scheme with parameters (RFC 9110, §11.6.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_SCHEME = re.compile(r"\s*(?P<scheme>[A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|\s*$|(?=,))")
_PARAMETER = re.compile(
    r"\s*(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s,\"]*))\s*(?:,|$)"
)


@dataclass(frozen=True)
class Challenge:
    """Scheme and names of parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse(header: str) -> list[Challenge]:
    """In their order; what cannot be read ends the list."""
    found: list[Challenge] = []
    position = 0
    while position < len(header) and (scheme := _SCHEME.match(header, position)):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while match := _PARAMETER.match(header, position):
            quoted = match["quoted"]
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match["plain"]
            parameters.setdefault(match["name"].lower(), value)
            position = match.end()
        found.append(Challenge(scheme["scheme"].lower(), parameters))
        position += len(header[position:]) - len(header[position:].lstrip(", "))
    return found
