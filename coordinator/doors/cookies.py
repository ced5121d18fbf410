"""The two cookies of a signed-in browser, and what protects them.

The session's is for the browser alone to keep (HttpOnly). The other can be read by our own pages, which send its value back in a
header; it is derived from the session's secret, so it is worth nothing with another session, and no second thing has to be stored.
Another site's page can make a browser send both cookies, but can neither read the one nor set the header.
"""

import hmac
from typing import Any, assert_never
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from coordinator.errors import Forbidden
from coordinator.procedures.bearer import csrf_token
from coordinator.procedures.context import Caller
from coordinator.store.sessions import LONGEST_SECONDS

SESSION = "argosy_session"
CSRF = "argosy_csrf"
CSRF_HEADER = "X-CSRF-Token"

Connection = ASGIConnection[Any, Any, Any, Any]


class Cookies:
    """`url`: where browsers reach this coordinator; `origins`: of pages elsewhere that may act with its sessions. Over https no
    subdomain and no plain-text page can plant a cookie of the session's name: browsers accept the prefix `__Host-` only from the
    very host, secured."""

    def __init__(self, url: str, origins: frozenset[str] = frozenset()) -> None:
        parts = urlsplit(url)
        self.secure = parts.scheme == "https"
        self.session = f"__Host-{SESSION}" if self.secure else SESSION
        self._origins = origins | {f"{parts.scheme}://{parts.netloc}".lower()}

    def secret(self, connection: Connection) -> str:
        """Of the browser's session; empty when it has none."""
        return connection.cookies.get(self.session, "")

    def kept(self, secret: str) -> list[Cookie]:
        """What makes a browser keep this session, or none."""
        lifetime = int(LONGEST_SECONDS) if secret else 0
        return [
            self.cookie(self.session, secret, lifetime),
            self.cookie(CSRF, csrf_token(secret) if secret else "", lifetime, readable=True),
        ]

    def cookie(self, name: str, value: str, lifetime: int, *, path: str = "/", readable: bool = False) -> Cookie:
        return Cookie(
            key=name,
            value=value,
            max_age=lifetime,
            path=path,
            secure=self.secure,
            httponly=not readable,
            samesite="lax",
        )

    def protect(self, connection: Connection, caller: Caller | None) -> None:
        """Raises Forbidden for a mutation that a browser may have been tricked into. A bearer token is sent by nobody but its
        holder, so it needs no such proof; without any, only a page that says it is another's is turned away."""
        match caller.means if caller else None:
            case "token" | "service" | "jwt":
                return
            case None:
                self._demand_ours(connection, needed=False)
            case "session":
                self._demand_ours(connection, needed=True)
                given = connection.headers.get(CSRF_HEADER, "")
                if not hmac.compare_digest(given.encode(), csrf_token(self.secret(connection)).encode()):
                    raise Forbidden(f"{CSRF_HEADER}: must be what the cookie {CSRF} says")
            case never:
                assert_never(never)

    def _demand_ours(self, connection: Connection, *, needed: bool) -> None:
        site = connection.headers.get("sec-fetch-site")
        origin = connection.headers.get("origin")
        if origin is not None and origin.lower() not in {*self._origins, _addressed(connection)}:
            raise Forbidden("Origin: this may only be asked for by a page of this coordinator")
        if site not in (None, "same-origin") and origin is None:
            raise Forbidden("Sec-Fetch-Site: this may only be asked for by a page of this coordinator")
        if needed and site is None and origin is None:
            raise Forbidden("Origin: is required with a session cookie")


def _addressed(connection: Connection) -> str:
    """The origin the browser itself spoke to, which no page can make up."""
    return f"{connection.scope['scheme']}://{connection.headers.get('host', '')}".lower()
