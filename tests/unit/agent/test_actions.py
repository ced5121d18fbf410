"""A plan can be shown before it runs."""

import pytest

from agent.core.actions import Action, Create, Pull, Remove, RemoveVolume, Start, Stop, phrase
from shared.spec.instance import Assignment, InstanceSpec

SPEC = InstanceSpec("busybox")
ASSIGNMENT = Assignment("ins", "con", "web", 0, 1, "hash", spec=SPEC)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Pull("ins", SPEC, ASSIGNMENT), "pull busybox"),
        (Create("ins", SPEC, ASSIGNMENT), "create"),
        (Start("ins", SPEC, "engine"), "start"),
        (Stop("ins", "engine", 7), "stop within 7 s"),
        (Remove("ins", "engine"), "remove"),
        (RemoveVolume("ins", "data"), "remove volume data"),
    ],
)
def test_phrases(action: Action, words: str) -> None:
    assert phrase(action) == words
