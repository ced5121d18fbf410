"""One reading of every instance that runs: some files each, no call to the engine."""

from collections.abc import Iterable

from agent.core.observe import Observed
from agent.metrics.cgroups import Accounts, Cgroups
from shared.spec.node import InstanceSample


class InstanceSampler:
    """Remembers each run's last processor time. For a run seen first the last reading is its start, when it had used none."""

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._cgroups = cgroups or Cgroups()
        self._last: dict[tuple[str, int], tuple[float, float]] = {}

    def sample(self, observed: Iterable[Observed], now: float) -> list[InstanceSample]:
        """`now` in Unix seconds. Instances whose accounts cannot be read are left out: nothing is better than wrong."""
        last, self._last = self._last, {}
        samples = []
        for one in observed:
            accounts = self._cgroups.accounts(one.pid, one.engine_id) if one.pid else None
            if accounts is None:
                continue
            run = (one.engine_id, one.pid)
            cpu = _processors(last.get(run, (one.started_at or now, 0.0)), accounts.cpu_seconds, now)
            self._last[run] = (now, accounts.cpu_seconds)
            samples.append(self._sample(one, accounts, cpu, now))
        return samples

    def _sample(self, one: Observed, accounts: Accounts, cpu: float, now: float) -> InstanceSample:
        # Without an address of its own it has the machine's network, whose traffic is not its.
        received, sent = self._cgroups.network(one.pid) if one.ip else (0, 0)
        return InstanceSample(
            instance_id=one.instance_id,
            at=now,
            cpu=cpu,
            memory=accounts.memory,
            memory_limit=accounts.memory_limit,
            net_rx=received,
            net_tx=sent,
            block_read=accounts.block_read,
            block_write=accounts.block_write,
        )


def _processors(last: tuple[float, float], used: float, now: float) -> float:
    at, before = last
    return round(max(0.0, used - before) / (now - at), 4) if now > at else 0.0
