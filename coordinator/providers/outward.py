"""Requests to addresses that users name: bounded in time and size, and never to where only this machine may reach.

A name is resolved here, once, and the connection goes to the address that was looked at: a name that changes its mind between the
look and the connection gains nothing. Refused are link-local addresses, where clouds keep the metadata and credentials of a
machine, and what is no host's address at all (multicast, unspecified, reserved). Private networks and the machine itself are
allowed: whoever runs Argosy on their own machines runs a registry there too.

Redirects are not followed and no proxy of the environment is used: either would go elsewhere than to what was looked at.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

import httpx

from shared.kit.network import forbidden

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 20.0
MAX_BODY = 256 * 1024
MAX_ADDRESSES = 4

Method = Literal["GET", "POST"]


class Unreachable(Exception):
    """The exact reason, as a sentence without secrets."""


@dataclass(frozen=True)
class Request:
    """`url` without user and password."""

    method: Method
    url: httpx.URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)


class Outward:
    """`tls`: whom it trusts; made by `trust`, which reads files."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._client = httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, request: Request) -> Reply:
        """Raises Unreachable."""
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise Unreachable(f"{_shown(request.url)} is no address of a registry")
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._send(request)
        except TimeoutError as error:
            raise Unreachable(f"{_authority(request.url)} did not answer within {TOTAL_SECONDS:.0f} s") from error

    async def _send(self, request: Request) -> Reply:
        failure: Unreachable | None = None
        for address in (await resolve(request.url))[:MAX_ADDRESSES]:
            try:
                return await self._send_to(address, request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = Unreachable(_connecting(request.url, error))
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise Unreachable(_talking(request.url, error)) from error
        assert failure is not None, "a name resolves to one address at least"
        raise failure

    async def _send_to(self, address: IPv4Address | IPv6Address, request: Request) -> Reply:
        headers = httpx.Headers(request.headers)
        headers["User-Agent"] = "argosy"
        headers["Accept-Encoding"] = "identity"  # a bound on what arrives is one on what it unpacks to
        headers["Host"] = request.url.netloc.decode("ascii")
        extensions = {"sni_hostname": request.url.raw_host.decode("ascii")} if request.url.scheme == "https" else {}
        target = request.url.copy_with(host=str(address))
        sending = self._client.build_request(
            request.method, target, headers=headers, content=request.content or None, extensions=extensions
        )
        response = await self._client.send(sending, stream=True)
        try:
            return Reply(response.status_code, response.headers, await _body(response))
        finally:
            await response.aclose()


def trust() -> ssl.SSLContext:
    """The machine's own certificate authorities, as its other programs trust them. Reads files."""
    return ssl.create_default_context()


async def resolve(url: httpx.URL) -> list[IPv4Address | IPv6Address]:
    """Where the host of `url` is. Raises Unreachable when it is nowhere, or only where nobody is sent."""
    host = url.raw_host.decode("ascii").strip("[]")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.getaddrinfo(host, url.port or 443, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise Unreachable(f"the name {host} was not found within {CONNECT_SECONDS:.0f} s") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"the name {host} is not known") from error
    addresses = list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    refused = [address for address in addresses if forbidden(address)]
    if refused:  # one is enough: the next look might choose it
        raise Unreachable(f"{host} is at {refused[0]}, where Argosy sends nobody: {forbidden(refused[0])}")
    return addresses


async def _body(response: httpx.Response) -> bytes:
    body = b""
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_BODY:
            raise ValueError(f"its answer is longer than {MAX_BODY} bytes")
    return body


def _connecting(url: httpx.URL, error: Exception) -> str:
    """What stands at the bottom of a failed connection: httpx wraps the operating system's word twice."""
    where = _authority(url)
    if isinstance(error, httpx.ConnectTimeout):
        return f"{where} did not take the connection within {CONNECT_SECONDS:.0f} s"
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"the certificate of {where} is not valid: {cause.verify_message}"
            case ssl.SSLError() if "WRONG_VERSION" in str(cause) or "RECORD_LAYER" in str(cause):
                return f"{where} does not speak TLS; is it an insecure registry?"
            case ssl.SSLError():
                return f"{where} cannot be spoken to by TLS: {cause.reason or cause}"
            case ConnectionRefusedError():
                return f"{where} refuses connections"
            case OSError() if cause.strerror:
                return f"{where} cannot be reached: {cause.strerror}"
    if "onnect" in str(error) and "refused" in str(error):
        return f"{where} refuses connections"
    return f"{where} cannot be reached: {error}"


def _talking(url: httpx.URL, error: Exception) -> str:
    where = _authority(url)
    if isinstance(error, httpx.TimeoutException):
        return f"{where} did not answer in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"{where} is not a registry: it does not speak HTTP" if url.scheme == "http" else f"{where}: {error}"
    return f"{where}: {error}"


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(found) < 16:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found[::-1]


def _authority(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


def _shown(url: httpx.URL) -> str:
    return f"{url.scheme}://{_authority(url)}{url.path}"[:200]
