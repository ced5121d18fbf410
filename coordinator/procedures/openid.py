"""Signing in at an OpenID provider: authorization code with PKCE and nonce. The protocol's words are Authlib's, keys and signatures
joserfc's; what is decided here is whom to believe.
"""

import asyncio
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from authlib.oauth2.rfc6749.parameters import (  # type: ignore[import-untyped]
    prepare_grant_uri,
    prepare_token_request,
)
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from joserfc.errors import JoseError
from joserfc.jwt import JWTClaimsRegistry

from coordinator.core import emails
from coordinator.procedures.fetching import Fetcher
from coordinator.procedures.issuer import LEEWAY_SECONDS, TokenRefused, verified
from coordinator.procedures.issuer_keys import OLD_SECONDS, IssuerKeys, discover
from shared.kit.clock import Clock

SCOPES = ["openid", "email", "profile"]
CALLBACK_PATH = "/auth/oidc/callback"


@dataclass(frozen=True)
class OpenIdSettings:
    """`client_secret` empty: a public client, which PKCE alone protects. `sign_up`: whoever can sign in there gets an account here,
    invited or not."""

    issuer: str
    client_id: str
    client_secret: str = ""
    sign_up: bool = False


@dataclass(frozen=True)
class Person:
    """Whom the provider says it was. `email` is empty unless the provider has verified it."""

    subject: str
    email: str
    name: str


@dataclass(frozen=True)
class Begun:
    """What binds an answer to its question, of one sign-in."""

    state: str
    nonce: str
    verifier: str


class OpenId:
    """`url`: where browsers reach this coordinator."""

    def __init__(self, settings: OpenIdSettings, url: str, fetcher: Fetcher, clock: Clock) -> None:
        self.settings = settings
        self._redirect = url + CALLBACK_PATH
        self._fetcher = fetcher
        self._clock = clock
        self._keys = IssuerKeys(settings.issuer, fetcher, clock)
        self._document: tuple[float, dict[str, Any]] | None = None
        self._discovering = asyncio.Lock()

    async def authorization_url(self, begun: Begun) -> str:
        """Where to send the browser. Raises FetchError."""
        document = await self._discovered()
        return str(
            prepare_grant_uri(
                document["authorization_endpoint"],
                self.settings.client_id,
                "code",
                redirect_uri=self._redirect,
                scope=SCOPES,
                state=begun.state,
                nonce=begun.nonce,
                code_challenge=create_s256_code_challenge(begun.verifier),
                code_challenge_method="S256",
            )
        )

    async def person(self, code: str, begun: Begun) -> Person:
        """Who came back with this code. Raises TokenRefused and FetchError."""
        document = await self._discovered()
        body, headers = self._token_request(document, code, begun.verifier)
        answer = await self._fetcher.post_form(document["token_endpoint"], body, headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise TokenRefused("the provider sent no ID token")
        claims = await verified(token, self._keys)
        self._check(claims, begun.nonce)
        if not isinstance(claims.get("email"), str):
            claims = {**await self._user_info(document, answer, claims["sub"]), **claims}
        return _person(claims)

    async def close(self) -> None:
        await self._fetcher.close()

    def _token_request(self, document: dict[str, Any], code: str, verifier: str) -> tuple[str, dict[str, str]]:
        settings = self.settings
        request = {"redirect_uri": self._redirect, "code": code, "code_verifier": verifier}
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if settings.client_secret and "client_secret_basic" in methods:
            pair = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
            headers = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
            return prepare_token_request("authorization_code", **request), headers
        request |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        return prepare_token_request("authorization_code", **request), {}

    def _check(self, claims: dict[str, Any], nonce: str) -> None:
        registry = JWTClaimsRegistry(
            now=int(self._clock.wall()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self.settings.issuer},
            aud={"essential": True, "value": self.settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
            azp={"value": self.settings.client_id},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise TokenRefused(f"the provider's ID token is not for this sign-in: {error.description}") from error

    async def _user_info(self, document: dict[str, Any], answer: dict[str, Any], subject: str) -> dict[str, Any]:
        """What the provider keeps out of its ID tokens; nothing when it has no such endpoint."""
        endpoint, token = document.get("userinfo_endpoint"), answer.get("access_token")
        if not isinstance(endpoint, str) or not isinstance(token, str):
            return {}
        info = await self._fetcher.get(endpoint, bearer=token)
        if info.get("sub") != subject:
            raise TokenRefused("the provider told us about somebody else")
        return info

    async def _discovered(self) -> dict[str, Any]:
        async with self._discovering:
            now = self._clock.monotonic()
            if self._document is None or now - self._document[0] >= OLD_SECONDS:
                self._document = now, await discover(self._fetcher, self.settings.issuer)
            return self._document[1]


def _person(claims: dict[str, Any]) -> Person:
    given = claims.get("email")
    address = emails.normalise(given) if isinstance(given, str) and claims.get("email_verified") is True else None
    name = claims.get("name")
    return Person(claims["sub"], address or "", name.strip()[:64] if isinstance(name, str) else "")
