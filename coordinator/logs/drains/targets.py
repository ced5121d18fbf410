"""The other side of a drain: a batch goes in, and either it has it or the error says what to do next.

A target is made when its drain starts or changes and used by one courier at a time.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from coordinator.logs.drains.lines import Entry
from coordinator.store.log_drains import DrainConfig, DrainSecret, DrainType
from shared.kit.network import forbidden


class DeliveryError(Exception):
    """The message is a sentence for the drain's owner. `hopeless`: these lines will be refused again however often they are sent.
    `too_large`: fewer at once may pass. `retry_after`: seconds the other side asked for."""

    def __init__(
        self, message: str, *, hopeless: bool = False, too_large: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.hopeless = hopeless
        self.too_large = too_large
        self.retry_after = retry_after


@dataclass(frozen=True)
class Refused:
    """Of a batch that was taken: so many lines that were not, for good, and why."""

    lines: int = 0
    message: str = ""


class Target(Protocol):
    async def send(self, entries: list[Entry]) -> Refused:
        """The other side has them, but for what it refused. Raises DeliveryError."""

    async def close(self) -> None: ...


def trust(config: DrainConfig) -> ssl.SSLContext:
    """Whose certificates count. Reads files: not for the event loop. Raises DeliveryError."""
    try:
        return ssl.create_default_context(cadata=config.ca or None)
    except ssl.SSLError as error:
        raise DeliveryError(f"caCertificate: not a certificate: {error.reason or error}") from error


def problem(kind: DrainType, url: str) -> str:
    """What is wrong with the address; empty when nothing is."""
    schemes = ("tcp", "tls", "udp") if kind == "syslog" else ("http", "https")
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port
    except ValueError as error:
        return str(error)
    if parsed.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if not host:
        return "names no host"
    if any(character <= " " or character == "\x7f" for character in url):
        return "contains a space or a control character"
    if parsed.username is not None or parsed.password is not None:
        return "must not contain a user or a password: they belong into auth"
    if parsed.fragment:
        return "must not have a fragment"
    if kind == "syslog" and (port is None or parsed.path.strip("/") or parsed.query):
        return "must be host and port only, as tls://logs.example:6514"
    return "must not be where clouds keep credentials" if _is_forbidden(host) else ""


def plain(secret: DrainSecret, text: str) -> str:
    """`text` without any secret that the other side, or a library, may have repeated."""
    for hidden in (secret.credential, *secret.headers.values()):
        if len(hidden) >= 4:
            text = text.replace(hidden, "***")
    return text


async def addresses(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[str]:
    """Where `host` is, looked at before anything is sent: a name may lead to where only this machine may go. Connect to one of
    these, and not to the name. Raises OSError and DeliveryError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
    known = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    for address in known:
        if why := forbidden(ip_address(address)):
            raise DeliveryError(f"{host} is at {address}, where Argosy sends nobody: {why}")
    return known


def _is_forbidden(host: str) -> bool:
    """As far as it shows without looking the name up."""
    try:
        return bool(forbidden(ip_address(host)))
    except ValueError:
        return host.lower().rstrip(".") == "metadata.google.internal"
