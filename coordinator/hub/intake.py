"""Reports on their way into the store: latest per instance, acknowledged once committed.

The receive loop only puts them here, so a slow database delays no heartbeat. What is not yet stored coalesces, which bounds it by
the number of instances a node can hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.hub.clean import clean_report
from shared.spec.instance import InstanceReport
from shared.wire.frames import InstanceReports

LIMIT = 20_000
"""Instances with a report that waits; nobody runs that many on one node."""


@dataclass(frozen=True)
class Taken:
    reports: list[InstanceReport]
    batches: list[int]


class Intake:
    def __init__(self) -> None:
        self._reports: dict[str, InstanceReport] = {}
        self._batches: list[int] = []

    def put(self, frame: InstanceReports) -> bool:
        """False when more wait than any honest node has."""
        for report in map(clean_report, frame.reports):
            self._reports[report.instance_id] = report
        self._batches.append(frame.batch)
        return len(self._reports) <= LIMIT and len(self._batches) <= LIMIT

    def take(self) -> Taken | None:
        if not self._batches:
            return None
        taken = Taken(list(self._reports.values()), self._batches)
        self._reports, self._batches = {}, []
        return taken

    def put_back(self, taken: Taken) -> None:
        """They could not be stored. What came since is newer."""
        self._reports = {**_by_id(taken.reports), **self._reports}
        self._batches = [*taken.batches, *self._batches]


def _by_id(reports: Iterable[InstanceReport]) -> dict[str, InstanceReport]:
    return {report.instance_id: report for report in reports}
