"""Domain outcomes as HTTP: the one place that knows which code has which status."""

import secrets
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Stream as StreamResponse

from coordinator.doors import conditions, decode, streams
from coordinator.doors.reception import Outcome, Visit
from coordinator.doors.resources import allowed_at
from coordinator.errors import Code, DomainError, MethodNotSupported
from coordinator.procedures.table import Stream
from coordinator.store.errors import StoreError

log = structlog.get_logger("doors")

STATUS: dict[Code, int] = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_SUPPORTED": 405,
    "CONFLICT": 409,
    "PRECONDITION_FAILED": 412,
    "PAYLOAD_TOO_LARGE": 413,
    "TOO_MANY_REQUESTS": 429,
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
    if done.state is not None:
        headers["ETag"] = conditions.etag(done.state, body)
        asked = visit.request.method in ("GET", "HEAD")
        if asked and not conditions.has_changed(visit.header("if-none-match"), headers["ETag"]):
            return Response(b"", status_code=304, headers=headers)
    return Response(body, status_code=done.status, media_type="application/json", headers=headers)


def failure(code: Code, message: str) -> Response[bytes]:
    status = STATUS[code]
    response = _json({"error": {"message": message, "code": code, "httpStatus": status}}, status)
    if code == "UNAUTHORIZED":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def options(allow: str) -> Response[bytes]:
    return Response(b"", status_code=204, headers={"Allow": allow})


def from_domain(_: Request[Any, Any, Any], error: DomainError) -> Response[bytes]:
    response = failure(error.code, error.message)
    if isinstance(error, MethodNotSupported):
        response.headers["Allow"] = error.allow
    return response


def from_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    response = failure(*told(request.url.path, error))
    if response.status_code == 405 and (allowed := allowed_at(request.url.path)) is not None:
        response.headers["Allow"] = allowed  # methods that the framework has never heard of end here
    return response


def told(path: str, error: Exception) -> tuple[Code, str]:
    """What an error is called and the sentence for the caller, whatever the envelope. What is not for the caller goes to the log: a
    driver's sentence may name hosts and users, and of a defect the caller gets a reference to quote."""
    match error:
        case DomainError():
            return error.code, error.message
        case StoreError():
            log.error("the database failed a request", path=path, reason=str(error))
            return "SERVICE_UNAVAILABLE", "the database does not answer: try again"
        case HTTPException():  # what the framework itself refuses: unknown paths, methods, oversized bodies
            code = _CODES.get(error.status_code, "BAD_REQUEST" if error.status_code < 500 else "INTERNAL_SERVER_ERROR")
            sentences = {"NOT_FOUND": f"nothing is served at {path}", "PAYLOAD_TOO_LARGE": decode.TOO_LARGE}
            return code, sentences.get(code, error.detail)
        case _:
            reference = secrets.token_hex(4)
            log.error("request failed", path=path, reference=reference, exc_info=error)
            message = f"internal error, reference {reference}: the coordinator's log has the details"
            return "INTERNAL_SERVER_ERROR", message


def _json(content: object, status: int) -> Response[bytes]:
    return Response(_encoder.encode(content), status_code=status, media_type="application/json")
