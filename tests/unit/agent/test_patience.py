"""How long an action that cannot succeed is tried again."""

import pytest

from agent.core.actions import Start
from agent.core.faults import RuntimeFault
from agent.core.history import PERSISTENCE, History, faulted
from shared.spec.container import RestartPolicy
from shared.spec.instance import InstanceSpec, Phase


@pytest.mark.parametrize(
    ("policy", "ran", "end"),
    [
        ("always", True, None),
        ("on-failure", True, Phase.FAILED),
        ("never", True, Phase.FAILED),
        ("always", False, Phase.REJECTED),
    ],
)
def test_a_service_that_ran_is_never_given_up(policy: RestartPolicy, ran: bool, end: Phase | None) -> None:
    record = History(ever_started=ran)
    action = Start("ins", InstanceSpec("busybox", restart_policy=policy), "e")
    for number in range(10 * PERSISTENCE):
        if record.end is None:
            record = faulted(record, action, RuntimeFault("port_taken", "in use", temporary=False), float(number))
    assert record.end is end
    if end is None:
        assert record.next_at is not None
