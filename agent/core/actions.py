"""What a plan asks for: one step for one instance, as data. The executor is the only place that carries them out.

Each is idempotent, so one whose result was lost (a killed agent, a cut connection to the engine) is simply planned again. The
union is closed: a new action makes every `match` over it fail the type check until it is handled.
"""

from dataclasses import dataclass
from typing import assert_never

from shared.spec.instance import Assignment, InstanceSpec


@dataclass(frozen=True)
class Pull:
    """See that the image is there: nothing to do when it is."""

    instance_id: str
    spec: InstanceSpec
    assignment: Assignment


@dataclass(frozen=True)
class Create:
    instance_id: str
    spec: InstanceSpec
    assignment: Assignment


@dataclass(frozen=True)
class Start:
    instance_id: str
    spec: InstanceSpec
    engine_id: str


@dataclass(frozen=True)
class Stop:
    instance_id: str
    engine_id: str
    grace: int


@dataclass(frozen=True)
class Remove:
    instance_id: str
    engine_id: str


@dataclass(frozen=True)
class RemoveVolume:
    instance_id: str
    volume: str


Action = Pull | Create | Start | Stop | Remove | RemoveVolume


def phrase(action: Action) -> str:
    """For logs and for showing a plan before it runs."""
    match action:
        case Pull(spec=spec):
            return f"pull {spec.image}"
        case Create():
            return "create"
        case Start():
            return "start"
        case Stop(grace=grace):
            return f"stop within {grace} s"
        case Remove():
            return "remove"
        case RemoveVolume(volume=volume):
            return f"remove volume {volume}"
        case _:
            assert_never(action)
