"""Frames to bytes and back: one flag byte, then MessagePack, compressed with zstd when that pays.

The websocket's own compression stays off (35 KiB a connection); here only large frames pay, and the flag says which.
"""

from typing import Any

import msgspec
import zstandard

from shared.wire.frames import AgentFrame, HubFrame

MAX_FRAME_BYTES = 64 * 1024
"""Of one websocket message. Larger things are sent in parts, so that no heartbeat waits behind one."""
MAX_PLAIN_BYTES = 1024 * 1024
"""Of one frame unpacked: a small message must not unfold into all memory."""
_COMPRESS_ABOVE = 4 * 1024
_PLAIN, _ZSTD = b"\x00", b"\x01"

_encoder = msgspec.msgpack.Encoder()
_agent_decoder = msgspec.msgpack.Decoder(AgentFrame)
_hub_decoder = msgspec.msgpack.Decoder(HubFrame)


class FrameError(Exception):
    """The bytes are not a frame the other side may send. The message names the field and the rule."""


def encode(frame: AgentFrame | HubFrame) -> bytes:
    """Raises FrameError when the frame does not fit one message: a fault of this side, which must send parts."""
    body = _encoder.encode(frame)
    if len(body) <= _COMPRESS_ABOVE:
        return _PLAIN + body
    if len(body) > MAX_PLAIN_BYTES:
        raise FrameError(f"{type(frame).__name__} has {len(body)} bytes, more than {MAX_PLAIN_BYTES}")
    packed = _ZSTD + zstandard.ZstdCompressor(level=1).compress(body)
    data = packed if len(packed) <= len(body) else _PLAIN + body
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"{type(frame).__name__} has {len(data)} bytes packed, more than {MAX_FRAME_BYTES}")
    return data


def decode_from_agent(data: bytes) -> AgentFrame:
    return _decode(_agent_decoder, data)  # type: ignore[no-any-return]


def decode_from_hub(data: bytes) -> HubFrame:
    return _decode(_hub_decoder, data)  # type: ignore[no-any-return]


def plain_size(value: object) -> int:
    """Bytes of a frame's part before compression, for filling frames up to the limit."""
    return len(_encoder.encode(value))


def _decode(decoder: Any, data: bytes) -> Any:
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(data)} bytes, more than {MAX_FRAME_BYTES}")
    flag, body = data[:1], data[1:]
    try:
        if flag == _ZSTD:
            if zstandard.frame_content_size(body) > MAX_PLAIN_BYTES:  # a stated size overrides max_output_size below
                raise FrameError(f"unpacks to more than {MAX_PLAIN_BYTES} bytes")
            body = zstandard.ZstdDecompressor().decompress(
                body, max_output_size=MAX_PLAIN_BYTES, allow_extra_data=False
            )
        elif flag != _PLAIN:
            raise FrameError(f"unknown encoding flag {flag!r}")
        return decoder.decode(body)
    except zstandard.ZstdError as error:
        raise FrameError(f"broken compression: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from error
