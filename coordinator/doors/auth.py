"""Who is calling: a bearer token to a caller with its roles, in one indexed read."""

from typing import cast

from coordinator.core.permissions import Role
from coordinator.errors import Unauthorized
from coordinator.procedures.bearer import hash_secret
from coordinator.procedures.context import Caller
from coordinator.store import users
from coordinator.store.database import Store
from shared.kit.clock import Clock


class Authenticator:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def caller(self, header: str | None) -> Caller:
        """Raises Unauthorized without a header, and for one that opens nothing."""
        if header is None:
            raise Unauthorized("a bearer token is required")
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("the Authorization header must read 'Bearer <token>'")
        async with self._store.read() as conn:
            found = await users.authenticate(conn, hash_secret(secret.strip()), self._clock.wall())
        if found is None:
            raise Unauthorized("the token is not valid, or has expired")
        return Caller(found.user.id, found.user.email, cast("dict[str, Role]", found.roles))
