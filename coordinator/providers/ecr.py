"""Amazon's registries take no password: an access key is exchanged, by a signed request, for one that lives twelve hours."""

import re
from base64 import b64decode
from binascii import Error as BinasciiError
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import msgspec

from coordinator.core.sigv4 import AccessKey, Unsigned, sign
from coordinator.providers.outward import Outward, Reply, Request
from coordinator.providers.registry_login import Login, LoginRefused
from shared.kit.clock import Clock

SERVER = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?P<china>\.cn)?")
ENDPOINT = "https://api.ecr.{region}.{domain}/"
_TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
_TYPE = "application/x-amz-json-1.1"
MAX_TOKEN = 6 * 1024
"""What still fits a frame beside the largest declaration."""


@dataclass(frozen=True)
class Exchanged:
    """`expires_at`: Unix seconds."""

    login: Login
    expires_at: float


class _Data(msgspec.Struct, rename="camel"):
    authorization_token: str = ""
    expires_at: float = 0.0


class _Answer(msgspec.Struct, rename="camel"):
    authorization_data: list[_Data] = []


class _Fault(msgspec.Struct):
    type: str = msgspec.field(default="", name="__type")
    message: str = ""
    capital: str = msgspec.field(default="", name="Message")


class Ecr:
    """`endpoint` is another one in tests only."""

    def __init__(self, outward: Outward, clock: Clock, endpoint: str = ENDPOINT) -> None:
        self._outward = outward
        self._clock = clock
        self._endpoint = endpoint

    async def exchange(self, key: AccessKey) -> Exchanged:
        """Raises LoginRefused or Unreachable."""
        domain = "amazonaws.com.cn" if key.region.startswith("cn-") else "amazonaws.com"
        url = httpx.URL(self._endpoint.format(region=key.region, domain=domain))
        headers = {"host": url.netloc.decode("ascii"), "content-type": _TYPE, "x-amz-target": _TARGET}
        moment = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y%m%dT%H%M%SZ")
        signed = sign(Unsigned("POST", url.path, headers, b"{}"), key, "ecr", moment)
        reply = await self._outward.send(Request("POST", url, signed, b"{}"))
        if reply.status != 200:
            raise LoginRefused(_why(reply))
        return _read(reply)


def _read(reply: Reply) -> Exchanged:
    try:
        (data,) = msgspec.json.decode(reply.body, type=_Answer).authorization_data
        username, colon, password = b64decode(data.authorization_token, validate=True).decode("ascii").partition(":")
    except (msgspec.DecodeError, BinasciiError, ValueError) as error:
        raise LoginRefused("Amazon's answer cannot be read") from error
    if not colon or not password or len(password) > MAX_TOKEN:
        raise LoginRefused("Amazon's answer cannot be read")
    return Exchanged(Login(username, password), data.expires_at)


def _why(reply: Reply) -> str:
    try:
        fault = msgspec.json.decode(reply.body, type=_Fault)
    except msgspec.DecodeError:
        return f"Amazon answered {reply.status}"
    code = fault.type.rpartition("#")[2]
    said = " ".join((fault.message or fault.capital).split())[:200]
    return (
        f"Amazon does not accept this access key: {code}{': ' if said else ''}{said}"
        if code
        else (f"Amazon answered {reply.status}")
    )
