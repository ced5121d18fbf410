"""Logging in to a registry as an engine would: Docker Registry v2, with Basic or with a token of the realm that the registry names.

The credentials go to the registry that was named and to the realm it names itself, over TLS unless the registry is insecure, and
nowhere else: a redirect is reported, not followed.
"""

from base64 import b64encode
from dataclasses import dataclass, field

import httpx
import msgspec

from coordinator.core import challenge
from coordinator.core.challenge import Challenge
from coordinator.providers.outward import Outward, Reply, Request, Unreachable
from shared.spec.image import DOCKER_HUB

_HUB_API = "registry-1.docker.io"
_MAX_SAID = 200


@dataclass(frozen=True)
class Login:
    """What engines send. Empty: nothing."""

    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def basic(self) -> dict[str, str]:
        if not self.username:
            return {}
        return {"Authorization": f"Basic {b64encode(f'{self.username}:{self.password}'.encode()).decode()}"}


class LoginRefused(Exception):
    """The exact reason, as a sentence without secrets."""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class _Fault(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Faults(msgspec.Struct):
    """The ways in which registries and their realms say what is wrong."""

    errors: list[_Fault] = []
    details: str = ""
    message: str = ""


async def log_in(outward: Outward, server: str, login: Login, *, insecure: bool = False) -> None:
    """Raises LoginRefused or Unreachable."""
    host = _HUB_API if server == DOCKER_HUB else server
    base = _url(f"{'http' if insecure else 'https'}://{host}/v2/")
    reply = await outward.send(Request("GET", base))
    if reply.status == 200:
        if login.username:  # it asks nobody for a name; let it judge this one all the same
            reply = await outward.send(Request("GET", base, login.basic))
            _judge(reply, server)
        return
    if reply.status != 401:
        raise LoginRefused(_no_registry(server, reply))
    asked = challenge.parse(", ".join(reply.headers.get_list("www-authenticate")))
    by_scheme = {one.scheme: one for one in reversed(asked)}
    if "bearer" in by_scheme:
        token = await _token(outward, by_scheme["bearer"], login, insecure=insecure)
        _judge(await outward.send(Request("GET", base, {"Authorization": f"Bearer {token}"})), server)
    elif "basic" in by_scheme:
        if not login.username:
            raise LoginRefused(f"{server} asks for a user name and a password")
        _judge(await outward.send(Request("GET", base, login.basic)), server)
    else:
        schemes = ", ".join(sorted(by_scheme)) or "nothing that Argosy knows"
        raise LoginRefused(f"{server} asks for {schemes}: it is not a registry")


async def _token(outward: Outward, asked: Challenge, login: Login, *, insecure: bool) -> str:
    realm = _url(asked.parameters.get("realm", ""))
    if realm.scheme != "https" and not insecure:
        raise LoginRefused(f"its realm {_shown(realm)} does not use TLS: no password is sent there")
    if realm.userinfo:
        raise LoginRefused("its realm names a user of its own")
    parameters = {name: asked.parameters[name] for name in ("service", "scope") if asked.parameters.get(name)}
    if login.username:
        parameters["account"] = login.username
    reply = await outward.send(Request("GET", realm.copy_merge_params(parameters), login.basic))
    if reply.status in (400, 401, 403):
        raise LoginRefused(_refused(_shown(realm), reply))
    if reply.status != 200:
        raise LoginRefused(f"its realm {_shown(realm)} answered {reply.status}{_said(reply)}")
    try:
        found = msgspec.json.decode(reply.body, type=_Token)
    except msgspec.DecodeError as error:
        raise LoginRefused(f"its realm {_shown(realm)} answered with no token") from error
    token = found.token or found.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise LoginRefused(f"its realm {_shown(realm)} answered with no token")
    return token


def _judge(reply: Reply, server: str) -> None:
    if reply.status in (401, 403):
        raise LoginRefused(_refused(server, reply))
    if reply.status != 200:
        raise LoginRefused(_no_registry(server, reply))


def _refused(server: str, reply: Reply) -> str:
    return f"{server} does not accept this user name and password{_said(reply)}"


def _no_registry(server: str, reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return f"{server} redirects to another address, which is not followed: name that one"
    if reply.status == 429:
        return f"{server} was asked too often; try again later"
    if reply.status >= 500:
        return f"{server} answered {reply.status}{_said(reply)}"
    return f"{server} is not a registry: it answered {reply.status} to /v2/"


def _said(reply: Reply) -> str:
    """The other side's own words, where it has some: one line, cut short."""
    try:
        faults = msgspec.json.decode(reply.body, type=_Faults)
    except msgspec.DecodeError:
        return ""
    said = faults.errors[0].message if faults.errors else faults.details or faults.message
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())
    return f": {line[:_MAX_SAID]}" if line else ""


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise Unreachable("it names an address that cannot be read") from error


def _shown(url: httpx.URL) -> str:
    return url.netloc.decode("ascii") or "without a name"
