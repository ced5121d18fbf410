"""Where the golden files lie and what each is called: by its frame's tag."""

from pathlib import Path

from shared.wire.frames import AgentFrame, HubFrame
from tests.golden import content

HERE = Path(__file__).parent


def tag(frame: AgentFrame | HubFrame) -> str:
    return str(type(frame).__struct_config__.tag)


def expected() -> dict[str, AgentFrame | HubFrame]:
    """File name → what it says."""
    plain = {f"{tag(frame)}.bin": frame for frame in (*content.AGENT, *content.HUB)}
    return plain | {f"{tag(content.COMPRESSED)}.compressed.bin": content.COMPRESSED}
