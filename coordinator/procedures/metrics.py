"""The installation in numbers, as Prometheus reads them: what the organisations have whose things the caller may see, and
how this process fares.

Labels are bounded: those organisations, and words from closed sets.
"""

import asyncio

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, generate_latest

from coordinator import VERSION
from coordinator.core.permissions import may
from coordinator.procedures.context import Context
from coordinator.store import census
from coordinator.store.census import Census

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def exposition(context: Context) -> bytes:
    """The text format, made anew for each scrape: every number is what the database says at that moment."""
    services = context.services
    seen = [organization_id for organization_id, role in context.user.roles.items() if may(role, "viewer")]
    async with services.store.read() as conn:
        counted = await census.take(conn, seen)
    # Off the loop: the process' own figures are read from files.
    return await asyncio.to_thread(_render, counted, services.leases.connected_count)


def _render(counted: Census, connected: int) -> bytes:
    registry = CollectorRegistry()
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
