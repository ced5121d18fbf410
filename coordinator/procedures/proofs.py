"""What proving who somebody is takes besides the store: one value of the composition root."""

from dataclasses import dataclass, field

from coordinator.control.uses import Uses
from coordinator.procedures.issuer import Issuer
from coordinator.procedures.openid import OpenId
from coordinator.procedures.passwords import Passwords


@dataclass(frozen=True)
class Proofs:
    """`issuer`: whose JWTs are bearer tokens here. `openid`: the provider people may sign in at. Either may be missing."""

    uses: Uses
    passwords: Passwords = field(default_factory=Passwords)
    issuer: Issuer | None = None
    openid: OpenId | None = None

    async def close(self) -> None:
        self.passwords.close()
        if self.issuer is not None:
            await self.issuer.close()
        if self.openid is not None:
            await self.openid.close()
