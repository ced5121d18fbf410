"""The server that takes our mail, by SMTP.

A password never crosses a network in the clear: where one is set the connection is encrypted before it is sent, or the mail is not,
unless the server is on this machine. Without one, encryption is used where the server offers it.
"""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import aiosmtplib

from coordinator.mail.letters import domain_of

TIMEOUT_SECONDS = 30.0
_PORTS = {"smtp": 587, "smtps": 465}


class DeliveryError(Exception):
    """The message is for people. `final`: trying again would end the same way."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True)
class Server:
    """`implicit_tls`: encrypted from the first byte (`smtps`)."""

    host: str
    port: int
    implicit_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def local(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def start_tls(self) -> bool | None:
        """True: or else nothing is sent. None: where it is offered."""
        if self.implicit_tls or (self.password is not None and self.local):
            return False if self.implicit_tls else None
        return True if self.password is not None else None


def parse(url: str) -> Server:
    """`smtp://user:password@host:587` or `smtps://…`. Raises ValueError with a sentence that holds no password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("is not a URL such as smtp://user:password@mail.example:587") from error
    if parts.scheme not in _PORTS:
        raise ValueError(f"must begin with smtp:// or smtps://, not {parts.scheme!r}")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("names a server and nothing behind it, such as smtp://user:password@mail.example:587")
    if (parts.username is None) != (parts.password is None):
        raise ValueError("has a user and a password, or neither")
    return Server(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        implicit_tls=parts.scheme == "smtps",
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


class Relay:
    """`sender`: whom mail comes from, as `Argosy <argosy@example.org>`. `tls`: whose word on the server's name counts, by default
    the system's certificates."""

    def __init__(self, server: Server, sender: str, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self.sender = sender
        self._tls = tls

    async def deliver(self, message: EmailMessage) -> None:
        """Returns once the server has taken it. Raises DeliveryError."""
        if self._tls is None:  # reads the system's certificates
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        server = self._server
        try:
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port,
                username=server.username,
                password=server.password,
                local_hostname=domain_of(self.sender),
                timeout=TIMEOUT_SECONDS,
                use_tls=server.implicit_tls,
                start_tls=server.start_tls,
                tls_context=self._tls,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            worst = error.recipients[0]
            raise DeliveryError(f"refused: {worst.code} {_line(worst.message)}", final=worst.code >= 500) from error
        except aiosmtplib.SMTPResponseException as error:
            raise DeliveryError(f"refused: {error.code} {_line(error.message)}", final=error.code >= 500) from error
        except aiosmtplib.SMTPNotSupported as error:
            raise DeliveryError(f"the mail server cannot do what is needed: {_line(str(error))}", final=True) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise DeliveryError(f"the mail server cannot be reached: {_line(str(error))}", final=False) from error


def _line(text: str) -> str:
    return " ".join(text.split())[:200] or "no reason given"
