"""JWTs of a configured issuer as bearer tokens.

The issuer is trusted to say who somebody is and, with an organisation claim, what they are in that organisation. Where it makes no
such claim, the account that is linked to its subject has the roles it has here. A signature counts only by a public key: the
algorithms that sign with a shared secret, or not at all, are none of ours.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwt import JWTClaimsRegistry

from coordinator.core.permissions import RANKED, ROLES, Role
from coordinator.procedures.fetching import Fetcher
from coordinator.procedures.issuer_keys import IssuerKeys
from shared.kit.clock import Clock

ALGORITHMS = ("RS256", "ES256", "EdDSA", "Ed25519")
"""The last is what newer libraries call EdDSA over the only curve it is used with."""
LEEWAY_SECONDS = 60
MAX_BYTES = 16 * 1024


@dataclass(frozen=True)
class JwtSettings:
    """`audience`: what tokens for us must be made for. `keys_url` empty: found by discovery. The claims are names, or paths of
    names with dots between."""

    issuer: str
    audience: str
    keys_url: str = ""
    organization_claim: str = "org"
    role_claim: str = "role"


class TokenRefused(Exception):
    """The message says which of the ways to be wrong it is, and is for the caller."""


@dataclass(frozen=True)
class Claimed:
    """What a token says. `roles` None: it makes no claim about organisations."""

    subject: str
    email: str
    roles: dict[str, Role] | None
    expires_at: float

    def stranger_id(self, issuer: str) -> str:
        """Who has no account here, by an id that is the same with every token of theirs."""
        return f"jwt_{hashlib.sha256(f'{issuer} {self.subject}'.encode()).hexdigest()[:24]}"


class Issuer:
    def __init__(self, settings: JwtSettings, fetcher: Fetcher, clock: Clock) -> None:
        self.settings = settings
        self._fetcher = fetcher
        self._clock = clock
        self._keys = IssuerKeys(settings.issuer, fetcher, clock, settings.keys_url)

    async def verify(self, token: str) -> Claimed:
        """Raises TokenRefused, or FetchError when the issuer's keys cannot be had."""
        claims = await verified(token, self._keys)
        self._check(claims)
        return Claimed(
            subject=claims["sub"],
            email=claims["email"] if claims.get("email_verified") is True and _is_text(claims.get("email")) else "",
            roles=roles_in(claims, self.settings),
            expires_at=float(claims["exp"]) + LEEWAY_SECONDS,
        )

    async def close(self) -> None:
        await self._fetcher.close()

    def _check(self, claims: dict[str, Any]) -> None:
        registry = JWTClaimsRegistry(
            now=int(self._clock.wall()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self.settings.issuer},
            aud={"essential": True, "value": self.settings.audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise TokenRefused(_words(error)) from error


async def verified(token: str, keys: IssuerKeys) -> dict[str, Any]:
    """The claims of a token that was signed by one of the keys; nothing is said about their content. Raises TokenRefused and
    FetchError."""
    if len(token) > MAX_BYTES:
        raise TokenRefused("it is too long")
    try:
        header = jws.extract_compact(token.encode()).headers()
        if header.get("alg") not in ALGORITHMS:
            raise TokenRefused("it is not signed with RS256, ES256 or EdDSA")
        key_id = header.get("kid")
        known = await keys.for_key(key_id if isinstance(key_id, str) else None)
        with warnings.catch_warnings():  # the library finds the name `EdDSA` old-fashioned; issuers go on using it
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.decode(token, known, algorithms=list(ALGORITHMS)).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise TokenRefused(_words(error)) from error


def roles_in(claims: Mapping[str, Any], settings: JwtSettings) -> dict[str, Role] | None:
    """Organisation id → role. Of several roles the highest counts; one that is none of ours gives nothing."""
    organization = _claim(claims, settings.organization_claim)
    if organization is None:
        return None
    said = _claim(claims, settings.role_claim)
    named = {one.lower() for one in (said if isinstance(said, list) else [said]) if _is_text(one)}
    best = next((role for role in (*reversed(RANKED), *ROLES) if role in named), None)
    ids = organization if isinstance(organization, list) else [organization]
    return {one: best for one in ids if _is_text(one)} if best is not None else {}


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its whole name, for those named by a URL, or step by step."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _words(error: Exception) -> str:
    described = error.description if isinstance(error, JoseError) else ""
    return described or (error.error.replace("_", " ") if isinstance(error, JoseError) else "it is malformed")
