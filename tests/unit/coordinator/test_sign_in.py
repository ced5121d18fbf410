"""What can be said about signing in when the coordinator starts, and which of it is refused."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from litestar import Litestar

from coordinator.core import emails
from coordinator.errors import StartError
from coordinator.procedures.issuer import JwtSettings
from coordinator.procedures.openid import OpenIdSettings
from coordinator.serving import server_config
from coordinator.settings import read_settings
from coordinator.sign_in import SignInSettings

OIDC = {"ARGOSY_OIDC_ISSUER": "https://id.test", "ARGOSY_OIDC_CLIENT_ID": "argosy"}
JWT = {"ARGOSY_JWT_ISSUER": "https://id.test", "ARGOSY_JWT_AUDIENCE": "argosy"}


def read(*arguments: str, **environ: str) -> SignInSettings:
    return read_settings(list(arguments), environ).sign_in


def test_nothing_is_on_by_itself() -> None:
    assert read() == SignInSettings()


def test_a_provider_is_read_from_the_environment_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    assert read(**OIDC).openid == OpenIdSettings("https://id.test", "argosy")
    filed = read(**OIDC, ARGOSY_OIDC_CLIENT_SECRET_FILE=str(file), ARGOSY_OIDC_SIGN_UP="true")
    assert filed.openid == OpenIdSettings("https://id.test", "argosy", "s3cret", sign_up=True)
    flagged = read("--oidc-client-id", "other", **OIDC, ARGOSY_OIDC_CLIENT_SECRET="plain")
    assert flagged.openid == OpenIdSettings("https://id.test", "other", "plain")


def test_an_issuer_is_read_with_its_claims() -> None:
    named = read("--jwt-org-claim", "tenant.id", **JWT, ARGOSY_JWT_JWKS_URL="http://localhost:1/keys")
    assert named.jwt == JwtSettings("https://id.test", "argosy", "http://localhost:1/keys", "tenant.id", "role")


@pytest.mark.parametrize(
    ("environ", "setting"),
    [
        ({"ARGOSY_OIDC_ISSUER": "https://id.test"}, "ARGOSY_OIDC_CLIENT_ID"),
        ({**OIDC, "ARGOSY_OIDC_ISSUER": "http://id.test"}, "ARGOSY_OIDC_ISSUER"),
        ({**OIDC, "ARGOSY_OIDC_ISSUER": "https://[id"}, "ARGOSY_OIDC_ISSUER"),
        ({**OIDC, "ARGOSY_OIDC_SIGN_UP": "perhaps"}, "ARGOSY_OIDC_SIGN_UP"),
        ({**OIDC, "ARGOSY_OIDC_CLIENT_SECRET_FILE": "/nowhere/secret"}, "ARGOSY_OIDC_CLIENT_SECRET_FILE"),
        ({"ARGOSY_JWT_ISSUER": "https://id.test"}, "ARGOSY_JWT_AUDIENCE"),
        ({**JWT, "ARGOSY_JWT_JWKS_URL": "http://id.test/keys"}, "ARGOSY_JWT_JWKS_URL"),
        ({**JWT, "ARGOSY_JWT_ISSUER": "ftp://id.test"}, "ARGOSY_JWT_ISSUER"),
        ({**JWT, "ARGOSY_JWT_ROLE_CLAIM": ""}, "ARGOSY_JWT_ROLE_CLAIM"),
        ({"ARGOSY_TRUSTED_PROXIES": "10.0.0.0/8, proxy"}, "ARGOSY_TRUSTED_PROXIES"),
        ({"ARGOSY_TRUSTED_PROXIES": "10.0.0.1/8"}, "ARGOSY_TRUSTED_PROXIES"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], setting: str) -> None:
    with pytest.raises(StartError, match=setting):
        read(**environ)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Ann@Example.TEST ", "ann@example.test"),
        ("admin@localhost", "admin@localhost"),
        ("ａｎｎ@example.test", "ann@example.test"),
        ("ann+tag@example.test", "ann+tag@example.test"),
        ("ann", None),
        ("@example.test", None),
        ("ann@", None),
        ("ann@b@c", None),
        ("ann b@example.test", None),
        ("ann@example.test\nbcc: eve@example.test", None),
        ("ann\x00@example.test", None),
        ("a" * 65 + "@example.test", None),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str | None) -> None:
    assert emails.normalise(text) == address


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        ((), "127.0.0.1", "203.0.113.9", "127.0.0.1"),
        (("10.0.0.0/8",), "127.0.0.1", "203.0.113.9", "127.0.0.1"),
        (("10.0.0.0/8",), "10.1.2.3", "203.0.113.9", "203.0.113.9"),
        (("10.0.0.0/8",), "10.1.2.3", "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        (("10.0.0.0/8",), "10.1.2.3", "198.51.100.7, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
    ],
)
def test_only_trusted_proxies_say_for_whom_they_ask(
    proxies: tuple[str, ...], peer: str, forwarded: str, client: str
) -> None:
    seen: list[str] = []

    async def seeing(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    async def nothing(*_: Any) -> None:
        raise AssertionError("the application neither reads nor answers")

    config: uvicorn.Config = server_config(cast("Litestar", seeing), proxies)
    config.load()
    scope: Any = {
        "type": "http",
        "scheme": "http",
        "client": (peer, 1),
        "headers": [(b"x-forwarded-for", forwarded.encode())],
    }
    asyncio.run(config.loaded_app(scope, nothing, nothing))
    assert seen == [client]
