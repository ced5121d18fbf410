"""A reader's place over all the instances it reads, as a text it can come back with: the cursor.

The cursor holds a position for every instance (see `shared.wire.positions`), because nothing less is exact: lines of different
nodes arrive in any order, and a node may be away for an hour while the others go on. It is kept short — an instance is known by
six bytes of a hash, its part is encoded anew only when it moved — since every event carries one. Nothing of it is kept here, so a
reader may come back after a restart of the coordinator.

An instance that a cursor does not know has come into being since; it is read from its beginning. One whose first line the reader
has not seen is read from the floor: the oldest line it was shown, or the time it began.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from struct import Struct, error

from shared.wire.positions import Position

MAX_CURSOR = 16_384
"""Characters: more than the most instances one reader may read need."""
_VERSION = 1
_HEADER = Struct(">BQ")
_ENTRY = Struct(">6sB")
_LINE = Struct(">QI")
_COUNT = Struct(">I")
_WHOLE = 16
_STREAMS = (1, 2)
_LATEST = 1 << 63


class Bookmark:
    """`floor_ns` 0: the first line that is passed will be it. `former`: what the cursor knew, for a reader that comes back."""

    def __init__(self, floor_ns: int = 0, former: dict[bytes, Position] | None = None) -> None:
        self._floor_ns = floor_ns
        self._former = former
        self._begun = former is not None
        self._positions: dict[str, Position] = {}
        self._whole: set[str] = set()
        self._parts: dict[str, bytes | None] = {}

    @classmethod
    def read(cls, cursor: str) -> "Bookmark":
        """Raises ValueError when it is none that was given out here."""
        try:
            return cls(*_decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))
        except (error, IndexError) as cause:
            raise ValueError("the cursor is cut or altered") from cause

    def start(self, instance_id: str) -> Position | None:
        """Where to begin with an instance; None: as the reader asked. From here on it is one the cursor knows."""
        known = (self._former or {}).pop(_name(instance_id), None)
        if known is None and self._begun:
            known = Position()
        if known is None or known.floor_ns:
            self._whole.discard(instance_id)
        else:
            self._whole.add(instance_id)
        self._positions[instance_id] = known.copy() if known is not None else Position()
        self._parts[instance_id] = None
        return known

    def enter(self, instance_id: str, now_ns: int) -> None:
        """Read from now on, without its past, whatever the floor is."""
        self._whole.discard(instance_id)
        self._positions[instance_id] = Position(marks=dict.fromkeys(_STREAMS, (now_ns, 1, 0)))
        self._parts[instance_id] = None

    def position(self, instance_id: str) -> Position | None:
        """How far an instance was read that is to be read again."""
        found = self._positions.get(instance_id)
        if found is None:
            return None
        return Position(0 if instance_id in self._whole else self._floor_ns, dict(found.marks))

    def begin(self) -> None:
        """The first look at what there is, is over: whatever starts after it is new."""
        self._begun = True

    def passed(self, instance_id: str, at_ns: int, stream: int, text: str) -> None:
        self._floor_ns = self._floor_ns or at_ns
        position = self._positions.get(instance_id)
        if position is not None:
            position.passed(at_ns, stream, text)
            self._parts[instance_id] = None

    def keep(self, instance_ids: Iterable[str]) -> None:
        """Only these are still there to be read."""
        for gone in self._positions.keys() - set(instance_ids):
            del self._positions[gone], self._parts[gone]
            self._whole.discard(gone)

    def cursor(self) -> str:
        """Empty before there is anything to come back to."""
        if not self._floor_ns:
            return ""
        parts = [_HEADER.pack(_VERSION, self._floor_ns)]
        for instance_id, part in self._parts.items():
            if part is None:
                part = _encode(instance_id, self._positions[instance_id], instance_id in self._whole)
                self._parts[instance_id] = part
            parts.append(part)
        return urlsafe_b64encode(b"".join(parts)).rstrip(b"=").decode()


def _name(instance_id: str) -> bytes:
    return hashlib.sha256(instance_id.encode()).digest()[:6]


def _encode(instance_id: str, position: Position, whole: bool) -> bytes:
    flags, body = (_WHOLE if whole else 0), b""
    for bit, stream in enumerate(_STREAMS):
        if stream not in position.marks:
            continue
        at_ns, count, last = position.marks[stream]
        flags |= 1 << bit
        body += _LINE.pack(at_ns, last)
        if count > 1:
            flags |= 4 << bit
            body += _COUNT.pack(min(count, 0xFFFFFFFF))
    return _ENTRY.pack(_name(instance_id), flags) + body


def _decode(data: bytes) -> tuple[int, dict[bytes, Position]]:
    version, floor_ns = _HEADER.unpack_from(data)
    if version != _VERSION or not 0 < floor_ns < _LATEST:
        raise ValueError("the cursor is of another kind")
    found: dict[bytes, Position] = {}
    offset = _HEADER.size
    while offset < len(data):
        name, flags = _ENTRY.unpack_from(data, offset)
        offset += _ENTRY.size
        position = Position(0 if flags & _WHOLE else floor_ns)
        for bit, stream in enumerate(_STREAMS):
            if not flags & (1 << bit):
                continue
            at_ns, last = _LINE.unpack_from(data, offset)
            offset += _LINE.size
            count = 1
            if flags & (4 << bit):
                (count,) = _COUNT.unpack_from(data, offset)
                offset += _COUNT.size
            if at_ns >= _LATEST:
                raise ValueError("the cursor is altered")
            position.marks[stream] = (at_ns, count, last)
        found[name] = position
    return floor_ns, found
