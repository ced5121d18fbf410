"""What is buffered and delivered: lines, each with the words for where it comes from.

Lines rest in blocks, as they were read together: a block names each origin once, so that a line costs little more than its text.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

NOTICE = 0
"""The stream of what Argosy itself has to say; 1 and 2 are the container's."""
STREAM_WORDS = {NOTICE: "argosy", 1: "stdout", 2: "stderr"}


class Origin(Struct, frozen=True):
    """An instance by ids and names; a notice about the drain itself has only the organisation."""

    organization_id: str
    project_id: str = ""
    project: str = ""
    environment_id: str = ""
    environment: str = ""
    container_id: str = ""
    container: str = ""
    instance_id: str = ""
    node_id: str = ""


class Line(Struct, frozen=True, gc=False, array_like=True):
    """`origin`: which of the block's. `dropped`: lines missing here."""

    at_ns: int
    origin: Annotated[int, Meta(ge=0)]
    stream: int
    text: str
    dropped: int = 0


class Block(Struct, frozen=True):
    origins: list[Origin]
    lines: list[Line]


Entry = tuple[Origin, Line]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Block)


def pack(entries: list[Entry]) -> bytes:
    places: dict[Origin, int] = {}
    lines = [
        Line(line.at_ns, places.setdefault(origin, len(places)), line.stream, line.text, line.dropped)
        for origin, line in entries
    ]
    return _encoder.encode(Block(list(places), lines))


def unpack(payload: bytes) -> list[Entry]:
    """Raises ValueError."""
    try:
        block = _decoder.decode(payload)
        return [(block.origins[line.origin], line) for line in block.lines]
    except (msgspec.DecodeError, IndexError) as error:
        raise ValueError(f"not a block of lines: {error}") from error


def stamp(at_ns: int, digits: int = 9) -> str:
    """ISO 8601 in UTC with so many digits of a second."""
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{f'{nanos:09d}'[:digits]}Z"
