"""What can go wrong in a use case, in domain words. Doors turn a code into whatever their protocol calls it."""

from typing import ClassVar, Literal

Code = Literal[
    "BAD_REQUEST",
    "UNAUTHORIZED",
    "FORBIDDEN",
    "NOT_FOUND",
    "METHOD_NOT_SUPPORTED",
    "CONFLICT",
    "PRECONDITION_FAILED",
    "PAYLOAD_TOO_LARGE",
    "TOO_MANY_REQUESTS",
    "INTERNAL_SERVER_ERROR",
    "SERVICE_UNAVAILABLE",
]


class DomainError(Exception):
    """The message is for the caller: it names the field or the thing, and the rule."""

    code: ClassVar[Code]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(DomainError):
    code = "BAD_REQUEST"


class Unauthorized(DomainError):
    code = "UNAUTHORIZED"


class Forbidden(DomainError):
    """The caller may see the thing but not do this to it. What it may not even see is NotFound."""

    code = "FORBIDDEN"


class NotFound(DomainError):
    code = "NOT_FOUND"


class MethodNotSupported(DomainError):
    """What is asked of is there, but not by this method. `allow`: those it has, as the header of that name wants them."""

    code = "METHOD_NOT_SUPPORTED"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class Conflict(DomainError):
    code = "CONFLICT"


class PreconditionFailed(DomainError):
    code = "PRECONDITION_FAILED"


class TooLarge(DomainError):
    code = "PAYLOAD_TOO_LARGE"


class TooManyRequests(DomainError):
    """`retry_after`: seconds until another try may succeed."""

    code = "TOO_MANY_REQUESTS"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """Something outside the coordinator that this needs does not answer."""

    code = "SERVICE_UNAVAILABLE"


class StartError(Exception):
    """The coordinator cannot start: one line for the operator, a non-zero exit, no traceback."""
