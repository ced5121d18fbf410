"""Domain outcomes as HTTP: the one place that knows which code has which status."""

import secrets
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Stream as StreamResponse

from coordinator.doors import streams
from coordinator.doors.reception import Outcome, Visit
from coordinator.errors import Code, DomainError
from coordinator.procedures.table import Stream
from coordinator.store.errors import StoreError

log = structlog.get_logger("doors")

STATUS: dict[Code, int] = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "CONFLICT": 409,
    "PRECONDITION_FAILED": 412,
    "PAYLOAD_TOO_LARGE": 413,
    "INTERNAL_SERVER_ERROR": 500,
    "SERVICE_UNAVAILABLE": 503,
}
_CODES: dict[int, Code] = {status: code for code, status in STATUS.items()}
_encoder = msgspec.json.Encoder()


def outcome(visit: Visit, done: Outcome) -> Response[Any]:
    """A success in the envelope of the procedure and REST doors; a stream in the frames that the caller accepts."""
    headers = {**visit.headers, **done.headers}
    if isinstance(done.output, Stream):
        media = streams.media_type(visit.request.headers.get("accept", ""))
        return StreamResponse(
            streams.frames(done.output.events, media),
            status_code=200,  # routes take POST too, for which the framework's own default is 201
            media_type=media,
            headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
    if done.status == 204:
        return Response(b"", status_code=204, headers=headers)
    body = _encoder.encode({"result": {"data": done.output}})
    return Response(body, status_code=done.status, media_type="application/json", headers=headers)


def failure(code: Code, message: str) -> Response[bytes]:
    status = STATUS[code]
    response = _json({"error": {"message": message, "code": code, "httpStatus": status}}, status)
    if code == "UNAUTHORIZED":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def from_domain(_: Request[Any, Any, Any], error: DomainError) -> Response[bytes]:
    return failure(error.code, error.message)


def from_store(request: Request[Any, Any, Any], error: StoreError) -> Response[bytes]:
    """A driver's sentence may name hosts and users: it is for the log."""
    log.error("the database failed a request", path=request.url.path, reason=str(error))
    return failure("SERVICE_UNAVAILABLE", "the database does not answer: try again")


def from_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework itself refuses: unknown paths, methods, oversized bodies."""
    code = _CODES.get(error.status_code, "BAD_REQUEST" if error.status_code < 500 else "INTERNAL_SERVER_ERROR")
    message = f"nothing is served at {request.url.path}" if code == "NOT_FOUND" else error.detail
    return failure(code, message)


def from_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The caller gets a reference to quote, the log gets the rest."""
    reference = secrets.token_hex(4)
    log.error("request failed", path=request.url.path, reference=reference, exc_info=error)
    return failure(
        "INTERNAL_SERVER_ERROR", f"internal error, reference {reference}: the coordinator's log has the details"
    )


def _json(content: object, status: int) -> Response[bytes]:
    return Response(_encoder.encode(content), status_code=status, media_type="application/json")
