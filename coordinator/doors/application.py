"""The web application: every door and the agents' entrance, with one mapping of errors for all."""

from collections.abc import Sequence
from importlib import import_module

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.handlers import WebsocketRouteHandler

from coordinator.doors import answers
from coordinator.doors.auth import Authenticator
from coordinator.doors.decode import MAX_BODY_BYTES
from coordinator.doors.metrics_door import metrics_route
from coordinator.doors.procedure_door import procedure_route
from coordinator.doors.reception import Reception
from coordinator.errors import DomainError
from coordinator.procedures import ROUTERS
from coordinator.procedures.context import Services
from coordinator.store.errors import StoreError

for _router in ROUTERS:  # importing them fills the table; here, because imports read files and the loop must not
    import_module(f"coordinator.procedures.{_router}")


def make_app(services: Services, agents: Sequence[WebsocketRouteHandler] = ()) -> Litestar:
    authenticator = Authenticator(services.store, services.clock)
    reception = Reception(services, authenticator)
    return Litestar(
        route_handlers=[
            procedure_route(reception),
            metrics_route(services, authenticator),
            *agents,
        ],
        exception_handlers={
            DomainError: answers.from_domain,
            StoreError: answers.from_store,
            HTTPException: answers.from_http,
            Exception: answers.from_bug,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=MAX_BODY_BYTES + 1,
    )
