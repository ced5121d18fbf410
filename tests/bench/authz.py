"""`python -m tests.bench.authz`: the pure permission decision, over the mix of questions an installation asks.

Mostly reads by developers and tokens, some deployments into protected environments, a few refusals. Each question is built anew
from its parts, as the table does for every call. It prints {"per_second": N}.
"""

import json
import random
import statistics
import sys
import time

from coordinator.core.permissions import Question, Verdict, decide

DECISIONS = 200_000
RUNS = 5
SEED = 7


def questions() -> list[Question]:
    """Weights by hand: what dashboards and scripts ask most, they ask most here."""
    chance = random.Random(SEED)
    return [
        Question(
            chance.choices(("developer", "viewer", "admin", "owner", "billing", None), (50, 20, 15, 10, 3, 2))[0],
            chance.choices(
                ("viewer", "view", "deploy", "developer", "admin", "manage", "own"), (45, 15, 20, 5, 5, 5, 5)
            )[0],
            chance.choices((None, "view", "deploy", "manage"), (85, 5, 5, 5))[0],
            chance.choices(("admin", "deploy", "read"), (60, 30, 10))[0],
            chance.choices(("reads", "deploys", "moves", "writes", "declares"), (70, 12, 6, 8, 4))[0],
            chance.choices(("none", "restricted", "locked"), (70, 20, 10))[0],
            chance.random() < 0.1,
        )
        for _ in range(DECISIONS)
    ]


def main() -> None:
    asked = [tuple(question) for question in questions()]
    seconds = []
    for _ in range(RUNS):
        began = time.process_time()
        verdicts = [decide(Question(*parts)) for parts in asked]  # type: ignore[arg-type]
        seconds.append(time.process_time() - began)
        assert {Verdict.ALLOW, Verdict.WAIT, Verdict.ROLE, Verdict.LOCKED} <= set(verdicts)
    json.dump({"per_second": round(DECISIONS / statistics.median(seconds))}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
