"""tRPC's envelopes and codes. The numbers are JSON-RPC's and tRPC's own (its `TRPC_ERROR_CODES_BY_KEY`): clients show them, and by
them they decide whether a subscription is worth another try."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from coordinator.doors import answers
from coordinator.errors import Code

WireCode = Code | Literal["METHOD_NOT_SUPPORTED", "UNSUPPORTED_MEDIA_TYPE"]

NUMBERS: dict[WireCode, int] = {
    "BAD_REQUEST": -32600,
    "UNAUTHORIZED": -32001,
    "FORBIDDEN": -32003,
    "NOT_FOUND": -32004,
    "METHOD_NOT_SUPPORTED": -32005,
    "CONFLICT": -32009,
    "PRECONDITION_FAILED": -32012,
    "PAYLOAD_TOO_LARGE": -32013,
    "UNSUPPORTED_MEDIA_TYPE": -32015,
    "TOO_MANY_REQUESTS": -32029,
    "INTERNAL_SERVER_ERROR": -32603,
    "SERVICE_UNAVAILABLE": -32603,
}
MIXED = 207
"""The status of a batch whose calls ended differently."""

_encoder = msgspec.json.Encoder()


class Refusal(Exception):
    """What is wrong with the request as tRPC, before or beside any procedure."""

    def __init__(self, code: WireCode, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = headers or {}


def result(output: Any) -> bytes:
    return encode({"result": {"data": output}})


NO_RESULT = b'{"result":{}}'
"""What JavaScript makes of a result that is undefined: the answer of procedures that have none."""


def error(code: WireCode, message: str, path: str | None) -> bytes:
    return b'{"error":' + shape(code, message, path) + b"}"


def shape(code: WireCode, message: str, path: str | None) -> bytes:
    data: dict[str, str | int] = {"code": code, "httpStatus": status(code)}
    if path is not None:
        data["path"] = path
    return encode({"message": message, "code": NUMBERS[code], "data": data})


def status(code: WireCode) -> int:
    match code:
        case "METHOD_NOT_SUPPORTED":
            return 405
        case "UNSUPPORTED_MEDIA_TYPE":
            return 415
        case _:
            return answers.STATUS[code]


def status_of(statuses: Iterable[int]) -> int:
    different = set(statuses)
    return different.pop() if len(different) == 1 else MIXED


def encode(value: Any) -> bytes:
    return _encoder.encode(value)
