"""What is to be told: the latest report of each instance, until it was acknowledged in the present session.

Reports are state, so an older one that was not sent yet is simply replaced: however long the coordinator is away, this holds one
report for each instance and no more.
"""

from collections.abc import Iterable, Mapping

from shared.kit.wakeup import Wakeup
from shared.spec.instance import InstanceReport
from shared.wire.frames import Held


class ReportBox:
    def __init__(self) -> None:
        self._latest: dict[str, InstanceReport] = {}
        self._unsent: dict[str, None] = {}  # in the order they arose
        self._unacked: dict[str, InstanceReport] = {}
        self._strangers: dict[str, Held] = {}
        self.wakeup = Wakeup()

    def put(self, report: InstanceReport) -> None:
        name = report.instance_id
        if self._latest.get(name) == report:
            return
        self._latest[name] = report
        self._unsent[name] = None
        self.wakeup.wake()

    def take(self, limit: int) -> list[InstanceReport]:
        """Up to `limit` reports not yet sent in this session, oldest first. More may be left: ask until it is empty."""
        names = [name for name, _ in zip(self._unsent, range(limit), strict=False)]
        reports = [self._latest[name] for name in names]
        for report in reports:
            del self._unsent[report.instance_id]
            self._unacked[report.instance_id] = report
        return reports

    def acked(self, reports: Iterable[InstanceReport]) -> None:
        for report in reports:
            if self._unacked.get(report.instance_id) == report:
                del self._unacked[report.instance_id]

    def restart_session(self) -> None:
        """Another session, maybe another coordinator: it is told everything."""
        self._unacked.clear()
        self._unsent = dict.fromkeys(self._latest)
        if self._unsent:
            self.wakeup.wake()

    def forget(self, instance_id: str) -> None:
        self._latest.pop(instance_id, None)
        self._unsent.pop(instance_id, None)
        self._unacked.pop(instance_id, None)

    def latest(self, instance_id: str) -> InstanceReport | None:
        return self._latest.get(instance_id)

    @property
    def pending(self) -> int:
        """Reports the coordinator is not known to have."""
        return len({*self._unsent, *self._unacked})

    def hold(self, strangers: Mapping[str, Held]) -> None:
        """Engine containers with this node's label that no assignment names."""
        self._strangers = dict(strangers)

    def held(self) -> list[Held]:
        """Everything on this node by what was last reported of it, by instance id."""
        known = {name: Held(name, report.attempt, report.phase) for name, report in self._latest.items()}
        return [held for _, held in sorted({**self._strangers, **known}.items())]
