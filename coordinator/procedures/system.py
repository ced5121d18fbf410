"""The installation itself."""

import platform
from importlib.metadata import version

import structlog
from msgspec import json

from coordinator import VERSION
from coordinator.procedures.context import Context
from coordinator.procedures.inputs import View
from coordinator.procedures.table import TABLE, Nothing, procedure
from coordinator.store.errors import StoreError
from shared.wire.frames import VERSIONS

log = structlog.get_logger("system")
_LITESTAR = version("litestar")  # reads files: once, not in the loop


class AgentCounts(View, frozen=True):
    connected: int


class HealthView(View, frozen=True):
    """`status` is `ok`, or `degraded` when the database does not answer. Anybody may ask: why it does not is in the log only."""

    status: str
    database: str
    agents: AgentCounts
    version: str


class VersionView(View, frozen=True):
    version: str
    python: str
    channel: list[int]
    litestar: str


class WhoamiView(View, frozen=True):
    user_id: str
    email: str
    roles: dict[str, str]


class ProcedureView(View, frozen=True):
    name: str
    method: str
    access: str
    rest: str
    summary: str
    input: object


@procedure("system.health", "GET", "public", rest="/system/health")
async def health(context: Context, data: Nothing) -> HealthView:
    """Whether this coordinator works: its database answers, and how many agents are connected."""
    database = "ok"
    try:
        await context.services.store.ping()
    except StoreError as error:
        log.error("the database does not answer", reason=str(error))
        database = "the database does not answer"
    return HealthView(
        status="ok" if database == "ok" else "degraded",
        database=database,
        agents=AgentCounts(connected=context.services.leases.connected_count),
        version=VERSION,
    )


@procedure("system.version", "GET", "public", rest="/system/version")
async def versions(context: Context, data: Nothing) -> VersionView:
    """Versions of the coordinator, its language, its framework and the agent channel."""
    return VersionView(version=VERSION, python=platform.python_version(), channel=list(VERSIONS), litestar=_LITESTAR)


@procedure("system.whoami", "GET", "own", rest="/system/whoami")
async def whoami(context: Context, data: Nothing) -> WhoamiView:
    """The caller as this coordinator sees it: id, address and role in each organisation."""
    caller = context.user
    return WhoamiView(user_id=caller.user_id, email=caller.email, roles=dict(caller.roles))


@procedure("system.procedures", "GET", "public", rest="/system/procedures")
async def procedures(context: Context, data: Nothing) -> list[ProcedureView]:
    """Every procedure this coordinator has, with what it needs and the JSON Schema of its input."""
    return [
        ProcedureView(
            name=one.name,
            method=one.method,
            access=one.access,
            rest=one.rest,
            summary=one.summary,
            input=json.schema(one.input),
        )
        for one in TABLE.values()
    ]
