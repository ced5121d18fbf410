"""`python -m tests.bench.diff`: what it costs an agent to find that nothing is to be done.

One `diff` of 200 instances, all in place; prints {"us": median microseconds of one}.
"""

import json
import statistics
import time

from agent.core.history import History
from agent.core.observe import Observed
from agent.core.plan import Desired, Plan, diff
from shared.spec.instance import Assignment, InstanceSpec, Phase

INSTANCES = 200
RUNS = 300
WARM_UP = 20


def main() -> None:
    names = [f"ins_{number:04}" for number in range(INSTANCES)]
    spec = InstanceSpec("busybox")
    desired = Desired(True, {name: Assignment(name, "con", "web", 0, 1, "hash", spec=spec) for name in names})
    observed = {name: Observed(f"engine_{name}", name, "hash", "running", started_at=1000.0) for name in names}
    history = {
        name: History(
            stage=Phase.RUNNING,
            engine_id=f"engine_{name}",
            image_ready=True,
            running=True,
            ever_started=True,
            started_at=1000.0,
            healthy_at=1000.0,
        )
        for name in names
    }
    took = []
    for _ in range(WARM_UP + RUNS):
        began = time.perf_counter()
        plan = diff(desired, observed, history, 2000.0)
        took.append(time.perf_counter() - began)
        assert plan == Plan(), "all are in place"
    print(json.dumps({"us": round(statistics.median(took[WARM_UP:]) * 1e6, 1)}))


if __name__ == "__main__":
    main()
