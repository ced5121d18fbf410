"""`/metrics` for Prometheus, with a bearer token like everything that is not public."""

from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from coordinator.doors.auth import Authenticator
from coordinator.procedures import metrics
from coordinator.procedures.context import Context, Services


def metrics_route(services: Services, authenticator: Authenticator) -> HTTPRouteHandler:
    @get("/metrics", include_in_schema=False)
    async def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        caller = await authenticator.caller(request.headers.get("authorization"))
        text = await metrics.exposition(Context(services=services, caller=caller))
        return Response(text, media_type=metrics.CONTENT_TYPE)

    return scrape
