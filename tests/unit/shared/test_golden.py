"""What was ever sent can still be read."""

from typing import get_args

import msgpack  # type: ignore[import-untyped]
import pytest

from shared.wire import codec
from shared.wire.frames import AgentFrame, HubFrame
from tests.golden import content
from tests.golden.files import HERE, expected, tag

AGENT_TAGS = {str(frame.__struct_config__.tag) for frame in get_args(AgentFrame)}
HUB_TAGS = {str(frame.__struct_config__.tag) for frame in get_args(HubFrame)}


@pytest.mark.parametrize("name", sorted(expected()))
def test_old_bytes_decode_to_the_same_value(name: str) -> None:
    data = (HERE / name).read_bytes()
    frame = expected()[name]
    decode = codec.decode_from_agent if tag(frame) in AGENT_TAGS else codec.decode_from_hub
    assert decode(data) == frame


def test_every_frame_type_has_a_golden_file_and_every_file_a_frame_type() -> None:
    named = {f"{tag}.bin" for tag in AGENT_TAGS | HUB_TAGS}
    assert {path.name for path in HERE.glob("*.bin")} == named | {f"{tag(content.COMPRESSED)}.compressed.bin"}


@pytest.mark.parametrize("frame", [*content.AGENT, *content.HUB], ids=tag)
def test_golden_content_leaves_no_field_at_its_default(frame: AgentFrame | HubFrame) -> None:
    stored = msgpack.unpackb((HERE / f"{tag(frame)}.bin").read_bytes()[1:])
    assert set(stored) == {"type", *frame.__struct_fields__}


@pytest.mark.parametrize("frame", [*content.AGENT, *content.HUB], ids=tag)
def test_an_independent_reader_sees_the_tag(frame: AgentFrame | HubFrame) -> None:
    data = (HERE / f"{tag(frame)}.bin").read_bytes()
    assert data[0] == 0
    assert msgpack.unpackb(data[1:])["type"] == tag(frame)


def test_the_compressed_file_is_compressed() -> None:
    data = (HERE / f"{tag(content.COMPRESSED)}.compressed.bin").read_bytes()
    assert data[:1] == b"\x01"
    assert data[1:5] == b"\x28\xb5\x2f\xfd", "zstd's magic number"


@pytest.mark.parametrize("frame", [*content.AGENT, *content.HUB], ids=tag)
def test_a_frame_sent_the_wrong_way_does_not_decode(frame: AgentFrame | HubFrame) -> None:
    wrong_way = codec.decode_from_hub if tag(frame) in AGENT_TAGS else codec.decode_from_agent
    with pytest.raises(codec.FrameError):
        wrong_way(codec.encode(frame))
