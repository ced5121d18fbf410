"""The few bytes of Protocol Buffers that OTLP needs: varints, fixed numbers, and things with a length. The messages themselves are
in `otlp`; a generated library would cost a dependency of several megabytes for one message."""

from struct import pack, unpack_from

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def number(field: int, value: int) -> bytes:
    return varint(field << 3 | _VARINT) + varint(value) if value else b""


def fixed64(field: int, value: int) -> bytes:
    return varint(field << 3 | _FIXED64) + pack("<Q", value) if value else b""


def message(field: int, body: bytes) -> bytes:
    return varint(field << 3 | _LENGTH) + varint(len(body)) + body


def text(field: int, value: str) -> bytes:
    return message(field, value.encode("utf-8", "replace"))


def fields(data: bytes) -> dict[int, int | bytes]:
    """The last value of each field. Raises ValueError."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        match key & 7:
            case 0:
                found[key >> 3], at = _read_varint(data, at)
            case 1:
                found[key >> 3], at = _read_fixed(data, at, "<Q", 8)
            case 2:
                size, at = _read_varint(data, at)
                if at + size > len(data):
                    raise ValueError("cut short")
                found[key >> 3], at = data[at : at + size], at + size
            case 5:
                found[key >> 3], at = _read_fixed(data, at, "<I", 4)
            case other:
                raise ValueError(f"wire type {other}")
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint without an end")


def _read_fixed(data: bytes, at: int, form: str, size: int) -> tuple[int, int]:
    if at + size > len(data):
        raise ValueError("cut short")
    return unpack_from(form, data, at)[0], at + size
