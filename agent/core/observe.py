"""What the agent knows about one instance's engine container, engine-neutral: the input of `plan.diff`."""

from dataclasses import dataclass, field
from typing import Literal

from shared.spec.instance import PortBinding

EngineState = Literal["created", "running", "exited", "dead"]
"""`created`: never started. `dead`: the engine cannot use it any more, only remove it."""


@dataclass(frozen=True)
class Observed:
    """One engine container that carries this node's labels. `image_id` is what the engine resolved the image to; `pid` and `ip`
    are set while it runs (`ip` empty with the host's network). Times are Unix seconds as the engine tells them."""

    engine_id: str
    instance_id: str
    spec_hash: str
    state: EngineState
    exit_code: int | None = None
    out_of_memory: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    ports: list[PortBinding] = field(default_factory=list)
    image_id: str = ""
    pid: int = 0
    ip: str = ""

    @property
    def vague(self) -> bool:
        """The engine merely listed it: it was started, but nobody knows when, so a new start or a new end cannot be told from
        the one on record."""
        return self.state in ("running", "exited") and self.started_at is None
