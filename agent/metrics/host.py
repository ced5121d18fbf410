"""One reading of the whole machine."""

import os
from collections.abc import Callable

import psutil  # type: ignore[import-untyped, unused-ignore]

from agent.metrics.facts import disk_usage
from shared.spec.node import HostSample


class HostSampler:
    """`data_root`: where the engine keeps its images and volumes, asked at each reading because the engine may tell it late."""

    def __init__(self, data_root: Callable[[], str]) -> None:
        self._data_root = data_root
        self._processors = os.cpu_count() or 1
        psutil.cpu_percent()  # the first call has nothing to compare with and returns 0

    def sample(self, now: float) -> HostSample:
        """`now` in Unix seconds. Processors in use since the last reading."""
        memory = psutil.virtual_memory()
        return HostSample(
            at=now,
            cpu=round(psutil.cpu_percent() / 100 * self._processors, 3),
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            disk_free=disk_usage(self._data_root())[1],
            load1=os.getloadavg()[0],
        )
