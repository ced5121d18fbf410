"""Who is calling: a bearer token, a token of the configured issuer, or a browser's session, to a caller with its roles.

A bearer token wins over a cookie: who sends one means it, and a wrong one is never made up for by a session beside it.
"""

from functools import partial
from typing import cast

import structlog

from coordinator.core.permissions import ClusterPermission, Role, TokenScope, capped
from coordinator.doors.callers import Callers, Found
from coordinator.doors.cookies import Connection, Cookies
from coordinator.errors import Unauthorized, Unavailable
from coordinator.procedures.bearer import hash_secret
from coordinator.procedures.context import Browser, Caller, Services
from coordinator.procedures.fetching import FetchError
from coordinator.procedures.issuer import Claimed, Issuer, TokenRefused
from coordinator.store import access, identities, organizations, sessions, users
from coordinator.store.access import Principal
from coordinator.store.users import ApiTokenRecord

_NOT_VALID = "the token is not valid, or has expired"
_SCOPES: tuple[TokenScope, ...] = ("read", "deploy", "admin")

log = structlog.get_logger("auth")


class Authenticator:
    def __init__(self, services: Services, origins: frozenset[str] = frozenset()) -> None:
        """`origins`: of pages elsewhere that may act with a browser's session."""
        self._store = services.store
        self._clock = services.clock
        self._uses = services.proofs.uses
        self._issuer = services.proofs.issuer
        self._callers = Callers(services.store.changes, services.clock)
        self.cookies = Cookies(services.url, origins)

    async def caller(self, connection: Connection) -> Caller:
        """Raises Unauthorized for who shows nothing, and for what opens nothing."""
        header = connection.headers.get("authorization")
        if header is not None:
            return await self._bearer(header)
        secret = self.cookies.secret(connection)
        if not secret:
            raise Unauthorized("a bearer token or a signed-in session is required")
        hashed = hash_secret(secret)
        return await self._callers.find(("session", hashed), partial(self._session, hashed))

    def browser(self, connection: Connection) -> Browser:
        return Browser(self.cookies.secret(connection), connection.headers.get("user-agent", "")[:256])

    async def _bearer(self, header: str) -> Caller:
        scheme, _, rest = header.partition(" ")
        secret = rest.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("the Authorization header must read 'Bearer <token>'")
        hashed = hash_secret(secret)
        if self._issuer is not None and secret.count(".") == 2:
            return await self._callers.find(("jwt", hashed), partial(self._claimed, self._issuer, secret, hashed))
        return await self._callers.find(("token", hashed), partial(self._token, hashed))

    async def _token(self, hashed: str) -> Found:
        now = self._clock.wall()
        async with self._store.read() as conn:
            record = await users.token_by_hash(conn, hashed)
            if record is None or (record.expires_at is not None and record.expires_at <= now):
                raise Unauthorized(_NOT_VALID)
            principal = await access.of_user(conn, record.user_id) if record.user_id else None
        caller = _of_service(record) if principal is None else _of_token(record, principal)
        self._uses.mark("token", record.id, record.last_used_at, now)
        return Found(caller, record.expires_at)

    async def _session(self, hashed: str) -> Found:
        now = self._clock.wall()
        async with self._store.read() as conn:
            record = await sessions.by_hash(conn, hashed)
            principal = await access.of_user(conn, record.user_id) if record else None
        if record is None or principal is None or record.expires_at <= now:
            raise Unauthorized("the session is over: sign in again")
        if not record.verified:
            raise Unauthorized("the session waits for a code of the second factor: session.verify takes it")
        self._uses.mark("session", record.id, record.last_used_at, now)
        return Found(_caller(principal, means="session", credential_id=record.id), record.expires_at)

    async def _claimed(self, issuer: Issuer, token: str, hashed: str) -> Found:
        try:
            claimed = await issuer.verify(token)
        except TokenRefused as error:
            raise Unauthorized(f"the token is not valid: {error}") from error
        except FetchError as error:
            log.warning("a token could not be checked", reason=str(error))
            raise Unavailable("the token cannot be checked now: its issuer does not answer") from error
        async with self._store.read() as conn:
            linked = await identities.find(conn, issuer.settings.issuer, claimed.subject)
            principal = await access.of_user(conn, linked.user_id) if linked else None
            known = {one.id for one in await organizations.of_ids(conn, claimed.roles or ())}
        return Found(_of_claims(claimed, known, principal, issuer.settings.issuer), claimed.expires_at)


def _caller(principal: Principal, **credential: object) -> Caller:
    return Caller(
        principal.user_id,
        principal.email,
        cast("dict[str, Role]", principal.roles),
        cast("dict[str, ClusterPermission]", principal.grants),
        **credential,  # type: ignore[arg-type]
    )


def _of_token(record: ApiTokenRecord, principal: Principal) -> Caller:
    return _caller(principal, means="token", credential_id=record.id, scope=_widest(record.scopes))


def _of_service(record: ApiTokenRecord) -> Caller:
    """Its own actor, with the role that its scope amounts to."""
    if record.organization_id is None:
        raise Unauthorized(_NOT_VALID)
    scope = _widest(record.scopes)
    roles = {record.organization_id: capped("admin", scope)}
    return Caller(record.id, "", roles, {}, "service", record.id, scope, account=False)


def _of_claims(claimed: Claimed, known: set[str], principal: Principal | None, issuer: str) -> Caller:
    """The issuer's word on roles replaces ours, so grants do not count beside it. Organisations that are not `known` here, or no
    longer, are left out."""
    stranger = claimed.stranger_id(issuer)
    roles = {one: role for one, role in (claimed.roles or {}).items() if one in known}
    if principal is None:
        if not claimed.roles:
            raise Unauthorized("the token names no organisation and role, and its subject has no account here")
        return Caller(stranger, "", roles, {}, "jwt", stranger, account=False)
    if claimed.roles is None:
        return _caller(principal, means="jwt", credential_id=stranger)
    return Caller(principal.user_id, principal.email, roles, {}, "jwt", stranger)


def _widest(scopes: tuple[str, ...]) -> TokenScope:
    return max((scope for scope in _SCOPES if scope in scopes), key=_SCOPES.index, default="read")
