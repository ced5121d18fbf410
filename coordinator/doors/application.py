"""The web application: every door and the agents' entrance, with one mapping of errors for all."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import WebsocketRouteHandler

from coordinator.doors import answers
from coordinator.doors.auth import Authenticator
from coordinator.doors.decode import MAX_BODY_BYTES
from coordinator.doors.docs import docs_routes
from coordinator.doors.invitation_page import invitation_route
from coordinator.doors.limits import DEFAULT_LIMITS, Limiter, Limits, OwnPool, SharedPool
from coordinator.doors.metrics_door import metrics_route
from coordinator.doors.oidc_door import oidc_routes
from coordinator.doors.procedure_door import procedure_route
from coordinator.doors.reception import Reception
from coordinator.doors.rest_door import rest_routes
from coordinator.doors.stamps import Stamps
from coordinator.doors.tenants import errors as tenants_errors
from coordinator.doors.tenants.door import tenants_routes
from coordinator.doors.trpc.door import trpc_route
from coordinator.doors.typescript.route import typescript_route
from coordinator.errors import DomainError
from coordinator.procedures import ROUTERS
from coordinator.procedures.context import Services
from coordinator.procedures.table import TABLE
from coordinator.store.errors import StoreError

for _router in ROUTERS:  # importing them fills the table; here, because imports read files and the loop must not
    import_module(f"coordinator.procedures.{_router}")
_places = {f"coordinator.procedures.{router}": place for place, router in enumerate(ROUTERS)}
for _name in sorted(TABLE, key=lambda name: _places[TABLE[name].function.__module__]):
    TABLE[_name] = TABLE.pop(_name)  # in the routers' order, whatever imported them first


def make_app(
    services: Services,
    agents: Sequence[WebsocketRouteHandler] = (),
    *,
    limits: Limits = DEFAULT_LIMITS,
    origins: frozenset[str] = frozenset(),
) -> Litestar:
    """`origins`: of other pages that browsers may call from, as `https://app.example`."""
    authenticator = Authenticator(services, origins)
    limiter = Limiter(limits, SharedPool(services.store) if services.store.shared else OwnPool(), services.clock)
    reception = Reception(services, authenticator, limiter)
    return Litestar(
        route_handlers=[
            procedure_route(reception),
            trpc_route(reception),
            typescript_route(),
            *rest_routes(reception),
            *tenants_routes(reception),
            *docs_routes(),
            invitation_route(),
            *oidc_routes(reception, authenticator.cookies),
            metrics_route(reception),
            *agents,
        ],
        exception_handlers={
            DomainError: _failed,
            StoreError: _failed,
            HTTPException: _failed,
            Exception: _failed,
        },
        before_send=[Stamps(limiter, origins)],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=MAX_BODY_BYTES + 1,
    )


def _failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """In the words of the door that was asked, also where it has nothing to be asked for."""
    if tenants_errors.concerns(request.url.path):
        return tenants_errors.from_error(request, error)
    if isinstance(error, DomainError):
        return answers.from_domain(request, error)
    return answers.from_error(request, error)
