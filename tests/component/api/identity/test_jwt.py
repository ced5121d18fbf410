"""Tokens of a configured issuer as bearer tokens: whom they are believed, and everything they are not."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator.control.uses import Uses
from coordinator.core.permissions import Role
from coordinator.procedures.fetching import Fetcher
from coordinator.procedures.issuer import LEEWAY_SECONDS, Issuer, JwtSettings, roles_in
from coordinator.procedures.issuer_keys import AGAIN_SECONDS, DROPPED_SECONDS, OLD_SECONDS
from coordinator.procedures.passwords import Passwords
from coordinator.procedures.proofs import Proofs
from coordinator.store import identities
from coordinator.store.database import Store, Tx
from coordinator.store.identities import IdentityRecord
from tests.component.api.caller import Api, Home
from tests.component.api.identity.browser import Browser
from tests.component.api.identity.conftest import CHEAP
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import AUDIENCE, FakeIssuer, new_key


@pytest.fixture
async def issuer(clock: FakeClock) -> AsyncIterator[FakeIssuer]:
    fake = FakeIssuer(clock)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def proofs(store: Store, clock: FakeClock, issuer: FakeIssuer) -> Proofs:
    settings = JwtSettings(issuer.url, AUDIENCE)
    return Proofs(Uses(store), Passwords(CHEAP), issuer=Issuer(settings, Fetcher(), clock))


async def ask(api: Api, token: str, procedure: str = "organization.one", **data: Any) -> tuple[int, str]:
    response = await api.client.get(f"/api/{procedure}", params=data, headers={"Authorization": f"Bearer {token}"})
    return response.status_code, response.text


async def test_the_issuer_says_what_somebody_is(api: Api, home: Home, issuer: FakeIssuer) -> None:
    here = {"organizationId": home.organization_id}
    for role, status in (("viewer", 403), ("developer", 403), ("admin", 200), ("owner", 200)):
        token = issuer.token(org=home.organization_id, role=role)
        assert (await ask(api, token, **here))[0] == 200
        assert (await ask(api, token, "user.tokens", **here))[0] == status
    elsewhere = issuer.token(org="org_elsewhere", role="owner")
    assert (await ask(api, elsewhere, **here))[0] == 404


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "Ed25519"])
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_each_of_the_algorithms_is_verified(api: Api, home: Home, issuer: FakeIssuer, algorithm: str) -> None:
    issuer.keys = [new_key("one", "Ed25519" if algorithm == "EdDSA" else algorithm)]
    token = issuer.token(algorithm=algorithm, org=home.organization_id, role="viewer")
    assert (await ask(api, token, organizationId=home.organization_id))[0] == 200


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://another.test"}, "iss"),
    ({"aud": "another"}, "aud"),
    ({"aud": ["another", "third"]}, "aud"),
    ({"aud": None}, "aud"),
    ({"sub": None}, "sub"),
    ({"sub": 7}, "sub"),
    ({"exp": None}, "exp"),
    ({"exp": 1_700_000_000 - LEEWAY_SECONDS}, "expired"),
    ({"nbf": 1_700_000_000 + LEEWAY_SECONDS + 1}, "not yet valid"),
    ({"role": "emperor"}, "no organisation and role"),
    ({"org": None}, "no organisation and role"),
]


@pytest.mark.parametrize(("claims", "named"), WRONG)
async def test_a_token_for_others_or_for_another_time_opens_nothing(
    api: Api, home: Home, issuer: FakeIssuer, claims: dict[str, Any], named: str
) -> None:
    token = issuer.token(**{"org": home.organization_id, "role": "owner", **claims})
    status, text = await ask(api, token, organizationId=home.organization_id)
    assert status == 401
    assert named in text


async def test_a_token_that_nobody_signed_opens_nothing(api: Api, home: Home, issuer: FakeIssuer) -> None:
    claims: dict[str, Any] = {"org": home.organization_id, "role": "owner"}
    good = issuer.token(**claims)
    header, body, signature = good.split(".")
    public = issuer.keys[0].as_pem(private=False)
    shared = _signed_with_a_shared_secret(public, body)
    stranger = issuer.token(new_key("first"), **claims)
    forged = [
        issuer.unsigned(**claims),
        shared,
        stranger,
        f"{header}.{body}.",
        f"{header}.{body[:-2]}.{signature}",
        f"{body}.{body}.{signature}",
        "a.b.c",
        "..",
        good + "A" * 20_000,
    ]
    for token in forged:
        assert (await ask(api, token, organizationId=home.organization_id))[0] == 401, token
    assert (await ask(api, good, organizationId=home.organization_id))[0] == 200


def _signed_with_a_shared_secret(public: bytes, body: str) -> str:
    """The issuer's public key, which everybody has, taken for a secret one."""
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first"}').rstrip(b"=").decode()
    signature = hmac.digest(public, f"{header}.{body}".encode(), hashlib.sha256)
    return f"{header}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_a_token_ends_with_its_time(api: Api, home: Home, issuer: FakeIssuer, clock: FakeClock) -> None:
    token = issuer.token(exp=int(clock.wall()) + 5, org=home.organization_id, role="viewer")
    assert (await ask(api, token, organizationId=home.organization_id))[0] == 200
    clock.advance(5 + LEEWAY_SECONDS)
    assert (await ask(api, token, organizationId=home.organization_id))[0] == 401


async def test_keys_are_fetched_once_and_again_when_they_change(
    api: Api, home: Home, issuer: FakeIssuer, clock: FakeClock
) -> None:
    claims: dict[str, Any] = {"org": home.organization_id, "role": "viewer"}

    async def works(**other: Any) -> bool:
        token = issuer.token(**claims, **other)
        return (await ask(api, token, organizationId=home.organization_id))[0] == 200

    for index in range(3):
        assert await works(jti=str(index))
    assert issuer.asked["keys"] == 1
    issuer.keys = [new_key("second"), issuer.keys[0]]
    clock.advance(AGAIN_SECONDS)
    assert await works()
    assert issuer.asked["keys"] == 2


async def test_unknown_keys_make_us_ask_no_more_than_now_and_then(
    api: Api, home: Home, issuer: FakeIssuer, clock: FakeClock
) -> None:
    for index in range(10):
        token = issuer.token(new_key(f"unknown-{index}"), org=home.organization_id, role="owner")
        assert (await ask(api, token, organizationId=home.organization_id))[0] == 401
    assert issuer.asked["keys"] == 1
    clock.advance(AGAIN_SECONDS)
    await ask(api, issuer.token(new_key("unknown")), organizationId=home.organization_id)
    assert issuer.asked["keys"] == 2


async def test_known_keys_go_on_while_the_issuer_is_away(
    api: Api, home: Home, issuer: FakeIssuer, clock: FakeClock
) -> None:
    async def status() -> int:
        token = issuer.token(org=home.organization_id, role="viewer")
        return (await ask(api, token, organizationId=home.organization_id))[0]

    issuer.broken = True
    assert await status() == 503
    issuer.broken = False
    assert await status() == 503  # asked a moment ago
    clock.advance(AGAIN_SECONDS)
    assert await status() == 200
    issuer.broken = True
    clock.advance(OLD_SECONDS)
    assert await status() == 200
    clock.advance(DROPPED_SECONDS)
    assert await status() == 503


async def test_a_withdrawn_key_opens_nothing_any_more(
    api: Api, home: Home, issuer: FakeIssuer, clock: FakeClock
) -> None:
    claims: dict[str, Any] = {"org": home.organization_id, "role": "viewer"}
    old = issuer.keys[0]
    assert (await ask(api, issuer.token(**claims), organizationId=home.organization_id))[0] == 200
    issuer.keys = [new_key("second")]
    clock.advance(OLD_SECONDS)
    assert (await ask(api, issuer.token(old, **claims), organizationId=home.organization_id))[0] == 401


async def test_a_linked_account_has_its_own_roles_unless_the_issuer_says_otherwise(
    api: Api, home: Home, issuer: FakeIssuer, admin: Browser
) -> None:
    me = await admin.call("user.me", method="GET")

    async def link(tx: Tx) -> None:
        record = IdentityRecord(issuer=issuer.url, subject="ann", user_id=me["id"], created_at=tx.now)
        await identities.insert(tx, record)

    assert (await ask(api, issuer.token(jti="1"), "user.me"))[0] == 401
    await api.store.write(link)
    status, text = await ask(api, issuer.token(jti="2"), "user.me")
    assert status == 200
    assert me["id"] in text
    here = {"organizationId": home.organization_id}
    assert (await ask(api, issuer.token(), "user.tokens", **here))[0] == 200
    lowered = issuer.token(org=home.organization_id, role="viewer")
    assert (await ask(api, lowered, "user.tokens", **here))[0] == 403


async def test_who_has_no_account_has_nothing_of_their_own(api: Api, home: Home, issuer: FakeIssuer) -> None:
    token = issuer.token(org=home.organization_id, role="owner")
    for name in ("user.me", "session.all"):
        assert (await ask(api, token, name))[0] == 403
    headers = {"Authorization": f"Bearer {token}"}
    response = await api.client.post("/api/organization.create", json={"name": "mine"}, headers=headers)
    assert response.status_code == 403
    response = await api.client.post("/api/user.createToken", json={"name": "more"}, headers=headers)
    assert response.status_code == 403


@pytest.mark.parametrize(
    ("claims", "settings", "expected"),
    [
        ({}, {}, None),
        ({"org": "org_1", "role": "viewer"}, {}, {"org_1": "viewer"}),
        ({"org": ["org_1", "org_2"], "role": ["viewer", "ADMIN"]}, {}, {"org_1": "admin", "org_2": "admin"}),
        ({"org": "org_1", "role": "billing"}, {}, {"org_1": "billing"}),
        ({"org": "org_1"}, {}, {}),
        ({"org": "org_1", "role": {"admin": True}}, {}, {}),
        ({"org": 7, "role": "admin"}, {}, {}),
        (
            {"https://id.test/org": "org_1", "access": {"roles": ["owner"]}},
            {"organization_claim": "https://id.test/org", "role_claim": "access.roles"},
            {"org_1": "owner"},
        ),
    ],
)
def test_roles_are_read_from_the_claims_that_were_named(
    claims: dict[str, Any], settings: dict[str, str], expected: dict[str, Role] | None
) -> None:
    assert roles_in(claims, JwtSettings("https://id.test", AUDIENCE, **settings)) == expected
