"""Frames to bytes and back: everything survives, and whatever is not a frame is refused by one error, within limits."""

import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared.wire import codec, frames
from shared.wire.frames import AgentFrame, HubFrame
from tests.golden import content
from tests.property.frame_strategies import agent_frames, hub_frames


@given(frame=agent_frames())
def test_agent_frames_survive_the_wire(frame: AgentFrame) -> None:
    assert codec.decode_from_agent(codec.encode(frame)) == frame


@given(frame=hub_frames())
def test_hub_frames_survive_the_wire(frame: HubFrame) -> None:
    assert codec.decode_from_hub(codec.encode(frame)) == frame


def refused(data: bytes) -> bool:
    """Whether both decoders refuse it, by the one error they may raise."""
    results = []
    for decode in (codec.decode_from_agent, codec.decode_from_hub):
        try:
            decode(data)
        except codec.FrameError:
            results.append(True)
        else:
            results.append(False)
    return all(results)


@given(data=st.binary(max_size=400))
def test_garbage_is_refused(data: bytes) -> None:
    assert refused(data)


@given(data=st.binary(max_size=200), flag=st.sampled_from([b"\x00", b"\x01", b"\x02"]))
def test_packed_garbage_is_refused(data: bytes, flag: bytes) -> None:
    assert refused(flag + data)
    assert refused(b"\x01" + zstandard.compress(data))


@given(
    index=st.integers(0, len(content.AGENT) + len(content.HUB) - 1), cut=st.floats(0, 0.999), tail=st.binary(max_size=4)
)
def test_no_part_of_a_frame_is_a_frame(index: int, cut: float, tail: bytes) -> None:
    data = codec.encode([*content.AGENT, *content.HUB][index])
    assert refused(data[: int(len(data) * cut)])
    assert not tail or refused(data + tail)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_compressed_frame_decodes_to_a_frame_or_is_refused(position: int, value: int) -> None:
    data = bytearray(codec.encode(content.COMPRESSED))
    data[position % len(data)] = value
    refused(bytes(data))


def test_a_zip_bomb_is_refused_whether_or_not_it_states_its_size() -> None:
    zeros = bytes(200 * codec.MAX_PLAIN_BYTES)
    for writes_size in (True, False):
        bomb = b"\x01" + zstandard.ZstdCompressor(level=3, write_content_size=writes_size).compress(zeros)
        assert len(bomb) < codec.MAX_FRAME_BYTES, "small enough to pass the first limit"
        assert refused(bomb)


def test_a_stated_size_alone_allocates_nothing() -> None:
    # Magic number; frame header with an 8 byte content size, single segment; the size 2**62; an empty last block.
    header = b"\x28\xb5\x2f\xfd" + b"\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"
    assert refused(b"\x01" + header)


def test_limits_on_size_hold_on_both_sides() -> None:
    assert refused(b"\x00" + bytes(codec.MAX_FRAME_BYTES))
    noise = [frames.LogLine(number, 1, os.urandom(512).hex()) for number in range(256)]
    for lines in (noise, [frames.LogLine(0, 1, "x" * 2 * codec.MAX_PLAIN_BYTES)]):
        with pytest.raises(codec.FrameError, match="LogChunk"):
            codec.encode(frames.LogChunk("log_1", lines))


def test_what_nests_too_deep_is_refused() -> None:
    assert refused(b"\x00" + b"\x91" * 60_000)
