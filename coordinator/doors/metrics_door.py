"""`/metrics` for Prometheus, with a bearer token like everything that is not public."""

from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from coordinator.doors.reception import Reception, Visit
from coordinator.procedures import metrics
from coordinator.procedures.context import Context


def metrics_route(reception: Reception) -> HTTPRouteHandler:
    @get("/metrics", include_in_schema=False)
    async def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        caller = await reception.admit(Visit(request))
        text = await metrics.exposition(Context(services=reception.services, caller=caller))
        return Response(text, media_type=metrics.CONTENT_TYPE)

    return scrape
