"""The installation in numbers, as Prometheus reads them: what the organisations have whose things the caller may see, and
how this process fares.

Labels are bounded: those organisations, and words from closed sets.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator import VERSION
from coordinator.core.permissions import may
from coordinator.logs.drains.courier import DrainStatus
from coordinator.procedures.context import Context
from coordinator.store import census
from coordinator.store.census import Census
from coordinator.store.log_drains import LogDrainRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def exposition(context: Context) -> bytes:
    """The text format, made anew for each scrape: every number is what the database says at that moment."""
    services = context.services
    seen = [organization_id for organization_id, role in context.user.roles.items() if may(role, "viewer")]
    async with services.store.read() as conn:
        counted = await census.take(conn, seen)
    # Off the loop: the process' own figures are read from files.
    drains = _Drains(
        (record, status) for record, status in services.drains.statuses() if record.organization_id in seen
    )
    return await asyncio.to_thread(_render, counted, services.leases.connected_count, drains)


class _Drains(Collector):
    """Sums over an organisation's drains of one type. Their counts survive restarts, so they are shown as they are."""

    def __init__(self, drains: Iterable[tuple[LogDrainRecord, DrainStatus]]) -> None:
        self._lines: Counter[tuple[str, str, str]] = Counter()
        self._buffered: Counter[tuple[str, str]] = Counter()
        self._failing: Counter[tuple[str, str]] = Counter()
        for record, status in drains:
            key = (record.organization_id, record.type)
            self._lines[*key, "delivered"] += status.delivered
            self._lines[*key, "dropped"] += status.dropped
            self._buffered[key] += status.buffered
            self._failing[key] += status.state == "failing"

    def collect(self) -> Iterable[Metric]:
        labels = ["organization", "type"]
        lines = CounterMetricFamily("argosy_log_drain_lines", "Lines of log drains by fate.", labels=[*labels, "fate"])
        buffered = GaugeMetricFamily("argosy_log_drain_buffered_lines", "Lines that wait on the disk.", labels=labels)
        failing = GaugeMetricFamily("argosy_log_drains_failing", "Log drains that deliver nothing.", labels=labels)
        for fate, count in self._lines.items():
            lines.add_metric(list(fate), count)
        for family, numbers in ((buffered, self._buffered), (failing, self._failing)):
            for key, count in numbers.items():
                family.add_metric(list(key), count)
        return [lines, buffered, failing]


def _render(counted: Census, connected: int, drains: _Drains) -> bytes:
    registry = CollectorRegistry()
    registry.register(drains)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    build = Gauge("argosy_build_info", "Always 1; the version is a label.", ["version"], registry=registry)
    build.labels(VERSION).set(1)
    agents = Gauge("argosy_agents_connected", "Agents with a session on this coordinator.", registry=registry)
    agents.set(connected)
    for name, text, word, numbers in (
        ("argosy_nodes", "Nodes by availability, or lost.", "availability", counted.nodes),
        ("argosy_instances", "Instances by observed phase.", "phase", counted.instances),
        ("argosy_containers", "Containers by what is desired of them.", "desired", counted.containers),
    ):
        gauge = Gauge(name, text, ["organization", word], registry=registry)
        for (organization_id, value), count in numbers.items():
            gauge.labels(organization_id, value).set(count)
    active = Gauge("argosy_deployments_active", "Deployments under way.", ["organization"], registry=registry)
    for organization_id, count in counted.deployments.items():
        active.labels(organization_id).set(count)
    return generate_latest(registry)
