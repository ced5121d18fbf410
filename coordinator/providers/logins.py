"""Whether a registry takes what was stored for it: the one place that knows which kind logs in how."""

from coordinator.core.sigv4 import AccessKey
from coordinator.providers.ecr import Ecr
from coordinator.providers.outward import Outward, Unreachable
from coordinator.providers.registry_login import Login, LoginRefused, log_in
from coordinator.store.registries import EXCHANGED, Credentials, NotExchanged, RegistryRecord, Token


class Logins:
    def __init__(self, outward: Outward, ecr: Ecr) -> None:
        self._outward = outward
        self._ecr = ecr

    async def problem(self, record: RegistryRecord, credentials: Credentials) -> str:
        """Why it cannot be logged in to; empty when it can."""
        try:
            login = await self._login(record, credentials)
            await log_in(self._outward, record.server, login, insecure=record.insecure)
        except (LoginRefused, Unreachable) as error:
            return str(error)
        return ""

    async def exchange(self, credentials: Credentials) -> Token:
        """Raises NotExchanged."""
        try:
            found = await self._ecr.exchange(_key(credentials))
        except (LoginRefused, Unreachable) as error:
            raise NotExchanged(str(error)) from error
        return Token(found.login.username, found.login.password, found.expires_at)

    async def _login(self, record: RegistryRecord, credentials: Credentials) -> Login:
        if record.type == EXCHANGED:
            return (await self._ecr.exchange(_key(credentials))).login
        return Login(credentials.username, credentials.password)


def _key(credentials: Credentials) -> AccessKey:
    return AccessKey(credentials.access_key_id, credentials.secret_access_key, credentials.region)
