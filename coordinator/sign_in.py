"""The settings about people signing in, and the parts made of them.

A client's secret is read from the environment or from a file, never from a flag: what runs on a machine is seen by all who are on
it.
"""

import argparse
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from coordinator.control.uses import Uses
from coordinator.errors import StartError
from coordinator.procedures.fetching import Fetcher
from coordinator.procedures.issuer import Issuer, JwtSettings
from coordinator.procedures.openid import OpenId, OpenIdSettings
from coordinator.procedures.proofs import Proofs
from coordinator.store.database import Store
from shared.kit.clock import Clock

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no", "")
_FLAGS = (
    ("oidc-issuer", "", "sign in at this OpenID provider, as https://id.example; also set the client id"),
    (
        "oidc-client-id",
        "",
        "what the provider knows this coordinator by; its secret is in ARGOSY_OIDC_CLIENT_SECRET(_FILE)",
    ),
    ("oidc-sign-up", "false", "true: who can sign in at the provider gets an account, invited or not"),
    ("jwt-issuer", "", "accept JWTs of this issuer as bearer tokens; also set the audience"),
    ("jwt-audience", "", "what such tokens must be made for"),
    ("jwt-jwks-url", "", "where the issuer's keys are; default: found by discovery"),
    ("jwt-org-claim", "org", "the claim with the organisation's id, or a list of them; dots lead into objects"),
    ("jwt-role-claim", "role", "the claim with the role in it, or a list of which the highest counts"),
    ("trusted-proxies", "", "addresses or networks, with commas, whose X-Forwarded-For is believed"),
)


@dataclass(frozen=True)
class SignInSettings:
    """`proxies`: addresses and networks in front of the coordinator that say for whom they ask."""

    jwt: JwtSettings | None = None
    openid: OpenIdSettings | None = None
    proxies: tuple[str, ...] = ()


def add_flags(parser: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
    for name, default, text in _FLAGS:
        parser.add_argument(f"--{name}", default=env.get(_variable(name), default), help=text)


def read(given: argparse.Namespace, env: Mapping[str, str]) -> SignInSettings:
    """Raises StartError naming the setting."""
    return SignInSettings(_jwt(given), _openid(given, env), _proxies(given.trusted_proxies))


def proofs(settings: SignInSettings, store: Store, clock: Clock, url: str) -> Proofs:
    """`url`: where browsers reach this coordinator."""
    issuer = Issuer(settings.jwt, Fetcher(), clock) if settings.jwt else None
    openid = OpenId(settings.openid, url, Fetcher(), clock) if settings.openid else None
    return Proofs(Uses(store), issuer=issuer, openid=openid)


def _jwt(given: argparse.Namespace) -> JwtSettings | None:
    if not given.jwt_issuer:
        return None
    if not given.jwt_audience:
        raise StartError("ARGOSY_JWT_AUDIENCE: is needed with ARGOSY_JWT_ISSUER, or tokens for others would open this")
    if not given.jwt_org_claim or not given.jwt_role_claim:
        raise StartError("ARGOSY_JWT_ORG_CLAIM, ARGOSY_JWT_ROLE_CLAIM: must name a claim")
    if given.jwt_jwks_url:
        _checked("ARGOSY_JWT_JWKS_URL", given.jwt_jwks_url)
    else:
        _checked("ARGOSY_JWT_ISSUER", given.jwt_issuer)
    return JwtSettings(
        issuer=given.jwt_issuer,
        audience=given.jwt_audience,
        keys_url=given.jwt_jwks_url,
        organization_claim=given.jwt_org_claim,
        role_claim=given.jwt_role_claim,
    )


def _openid(given: argparse.Namespace, env: Mapping[str, str]) -> OpenIdSettings | None:
    if not given.oidc_issuer:
        return None
    _checked("ARGOSY_OIDC_ISSUER", given.oidc_issuer)
    if not given.oidc_client_id:
        raise StartError("ARGOSY_OIDC_CLIENT_ID: is needed with ARGOSY_OIDC_ISSUER")
    answer = given.oidc_sign_up.strip().lower()
    if answer not in _YES + _NO:
        raise StartError(f"ARGOSY_OIDC_SIGN_UP: {given.oidc_sign_up!r} is neither true nor false")
    return OpenIdSettings(given.oidc_issuer, given.oidc_client_id, _secret(env), answer in _YES)


def _secret(env: Mapping[str, str]) -> str:
    path = env.get("ARGOSY_OIDC_CLIENT_SECRET_FILE", "")
    if not path:
        return env.get("ARGOSY_OIDC_CLIENT_SECRET", "")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"ARGOSY_OIDC_CLIENT_SECRET_FILE: {path} cannot be read: {error}") from error


def _checked(setting: str, url: str) -> None:
    """Keys and codes that come over plain HTTP are whoever's who is on the way."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StartError(f"{setting}: {url!r} is not a URL") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise StartError(f"{setting}: {url!r} must begin with https:// (http:// only on this machine itself)")


def _proxies(text: str) -> tuple[str, ...]:
    networks = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in networks:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise StartError(f"ARGOSY_TRUSTED_PROXIES: {one!r} is no address and no network") from error
    return networks


def _variable(flag: str) -> str:
    return f"ARGOSY_{flag.replace('-', '_').upper()}"
