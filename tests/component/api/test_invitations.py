"""Invitations: for one address, seven days, one use; and who may invite whom."""

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from coordinator.procedures import bearer
from coordinator.store import invitations
from coordinator.store.database import Tx
from coordinator.store.invitations import LIFETIME_SECONDS
from coordinator.store.tables import invitation
from tests.component.api.caller import Api, Home


def token_of(made: dict[str, Any]) -> str:
    start, _, token = made["link"].partition("#")
    assert start == "http://coordinator.test/invitation"
    return str(token)


async def invite(api: Api, home: Home, email: str, role: str = "developer", expect: int = 201) -> Any:
    made = await api.call("invitation.create", expect, organizationId=home.organization_id, email=email, role=role)
    return made if expect >= 400 else made[0]


async def expire(api: Api, invitation_id: str) -> None:
    async def unit(tx: Tx) -> None:
        past = update(invitation).where(invitation.c.id == invitation_id).values(expires_at=tx.now - 1)
        await tx.conn.execute(past)

    await api.store.write(unit)


async def test_an_invitation_is_accepted_once_by_its_address(api: Api, home: Home) -> None:
    made = await invite(api, home, "New.Person@Example.test")
    assert (made["email"], made["role"], made["status"]) == ("new.person@example.test", "developer", "pending")
    assert made["delivery"] == "link"
    guest = await api.as_user("new.person@example.test")
    (waiting,) = await guest.call("invitation.pending", method="GET")
    assert (waiting["organizationId"], waiting["role"]) == (home.organization_id, "developer")
    assert "token" not in str(waiting)
    await guest.call("project.all", 404, method="GET", organizationId=home.organization_id)
    joined = await guest.call("invitation.accept", token=token_of(made))
    assert joined == {"organizationId": home.organization_id, "role": "developer"}
    await guest.call("project.all", method="GET", organizationId=home.organization_id)
    error = await guest.call("invitation.accept", 412, token=token_of(made))
    assert "accepted" in error["message"]
    assert await guest.call("invitation.pending", method="GET") == []


async def test_only_a_hash_of_the_token_is_kept(api: Api, home: Home) -> None:
    token = token_of(await invite(api, home, "new@example.test"))
    async with api.store.read() as conn:
        for table in ("invitation", "audit", "change"):
            assert token not in str((await conn.exec_driver_sql(f"SELECT * FROM {table}")).all())
        assert await invitations.of_token(conn, bearer.hash_secret(token)) is not None


async def test_somebody_elses_invitation_opens_nothing(api: Api, home: Home) -> None:
    made = await invite(api, home, "new@example.test")
    thief = await api.as_user("thief@example.test")
    for procedure in ("invitation.accept", "invitation.reject"):
        error = await thief.call(procedure, 403, token=token_of(made))
        assert "new@example.test" not in error["message"]
        assert (await thief.call(procedure, 404, token="argosy_inv_nobodyever"))["code"] == "NOT_FOUND"
    assert await thief.call("invitation.pending", method="GET") == []


async def test_whoever_has_an_account_joins_at_once(api: Api, home: Home) -> None:
    known = await api.as_user("known@example.test")
    made = await invite(api, home, "KNOWN@example.test", "viewer")
    assert (made["status"], made["link"], made["delivery"]) == ("accepted", None, "")
    await known.call("project.all", method="GET", organizationId=home.organization_id)
    error = await invite(api, home, "known@example.test", expect=409)
    assert "a member already" in error["message"]


async def test_several_are_invited_together_or_not_at_all(api: Api, home: Home) -> None:
    several = partial(api.call, "invitation.create", organizationId=home.organization_id)
    people = [{"email": f"p{number}@example.test", "role": "viewer"} for number in range(3)]
    made = await several(201, invitations=people)
    assert [one["email"] for one in made] == [one["email"] for one in people]
    error = await several(409, invitations=[{"email": "p9@example.test", "role": "viewer"}, people[0]])
    assert "p0@example.test" in error["message"]
    listed = await api.call("invitation.all", method="GET", organizationId=home.organization_id)
    assert len(listed) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "email:"),
        ({"email": "a@example.test"}, "role:"),
        ({"email": "no address", "role": "viewer"}, "email: is no e-mail address"),
        ({"email": "a@example.test", "role": "king"}, "role:"),
        ({"invitations": [{"email": "a@x.test", "role": "viewer"}], "email": "b@x.test", "role": "viewer"}, "email:"),
        (
            {"invitations": [{"email": "a@x.test", "role": "viewer"}, {"email": "A@x.test", "role": "viewer"}]},
            "invitations:",
        ),
        ({"invitations": [{"email": f"p{n}@x.test", "role": "viewer"} for n in range(51)]}, "invitations:"),
        ({"email": "a@example.test", "role": "viewer", "projectIds": []}, "projectIds: unknown field"),
    ],
)
async def test_bad_invitations_are_refused(api: Api, home: Home, fields: dict[str, Any], message: str) -> None:
    error = await api.call("invitation.create", 400, organizationId=home.organization_id, **fields)
    assert error["message"].startswith(message)


async def test_only_owners_invite_admins_and_owners(api: Api, home: Home) -> None:
    admin = await api.as_user("boss@example.test", "admin", home.organization_id)
    for role in ("owner", "admin"):
        assert "only owners" in (await invite(admin, home, "new@example.test", role, 403))["message"]
    await invite(admin, home, "new@example.test", "billing")
    senior = await invite(api, home, "senior@example.test", "owner")
    await admin.call("invitation.resend", 403, invitationId=senior["id"])
    await admin.call("invitation.revoke", 403, method="DELETE", invitationId=senior["id"])
    developer = await api.as_user("dev@example.test", "developer", home.organization_id)
    await invite(developer, home, "other@example.test", "viewer", 403)


async def test_an_expired_invitation_opens_nothing_until_it_is_sent_again(api: Api, home: Home) -> None:
    made = await invite(api, home, "new@example.test")
    await expire(api, made["id"])
    guest = await api.as_user("new@example.test")
    assert await guest.call("invitation.pending", method="GET") == []
    assert "expired" in (await guest.call("invitation.accept", 412, token=token_of(made)))["message"]
    (listed,) = await api.call("invitation.all", method="GET", organizationId=home.organization_id, status="expired")
    assert (listed["id"], listed["status"]) == (made["id"], "expired")
    again = await api.call("invitation.resend", invitationId=made["id"])
    assert again["status"] == "pending"
    await guest.call("invitation.accept", 404, token=token_of(made))
    await guest.call("invitation.accept", token=token_of(again))
    await api.call("invitation.resend", 412, invitationId=made["id"])


async def test_an_invitation_lives_seven_days(api: Api, home: Home) -> None:
    made = await invite(api, home, "new@example.test")
    async with api.store.read() as conn:
        record = await invitations.get(conn, made["id"])
    assert record is not None
    assert record.expires_at - record.created_at == LIFETIME_SECONDS == 7 * 24 * 3600


async def test_a_revoked_or_rejected_invitation_opens_nothing(api: Api, home: Home) -> None:
    guest_of: dict[str, tuple[Api, Any]] = {}
    for name in ("revoked", "rejected"):
        made = await invite(api, home, f"{name}@example.test")
        guest_of[name] = (await api.as_user(f"{name}@example.test"), made)
    await api.call("invitation.revoke", 204, method="DELETE", invitationId=guest_of["revoked"][1]["id"])
    guest, made = guest_of["rejected"]
    await guest.call("invitation.reject", 204, token=token_of(made))
    for name, (caller, invited) in guest_of.items():
        assert name in (await caller.call("invitation.accept", 412, token=token_of(invited)))["message"]
    await invite(api, home, "another@example.test")
    shown = await api.call("invitation.all", method="GET", organizationId=home.organization_id, status="revoked")
    assert [one["status"] for one in shown] == ["revoked"]


async def test_of_two_uses_at_once_one_counts(api: Api, home: Home) -> None:
    made = await invite(api, home, "new@example.test")
    guest = await api.as_user("new@example.test")

    async def accept() -> int:
        headers = {"Authorization": f"Bearer {guest.token}"}
        body = {"token": token_of(made)}
        return (await guest.client.post("/api/invitation.accept", json=body, headers=headers)).status_code

    assert sorted(await asyncio.gather(*(accept() for _ in range(4)))) == [200, 412, 412, 412]


async def test_an_address_that_is_invited_already_is_told_so(api: Api, home: Home) -> None:
    made = await invite(api, home, "new@example.test")
    assert "resend" in (await invite(api, home, "new@example.test", expect=409))["message"]
    await expire(api, made["id"])
    assert (await invite(api, home, "new@example.test"))["id"] != made["id"]


async def test_an_account_whose_address_nobody_has_proven_is_asked_like_a_stranger(api: Api, home: Home) -> None:
    """Whoever invites an address and is shown the link can make an account for it: it must not become somebody's by that."""
    (link,) = await api.call(
        "invitation.create", 201, organizationId=home.organization_id, email="cfo@corp.test", role="viewer"
    )
    await api.call(
        "session.signUp", 201, token=link["link"].partition("#")[2], name="Not them", password="a long secret"
    )
    corp = await api.call("organization.create", 201, name="corp")
    (made,) = await api.call("invitation.create", 201, organizationId=corp["id"], email="cfo@corp.test", role="admin")
    assert made["status"] == "pending"
    members = await api.call("orgTeam.all", method="GET", organizationId=corp["id"])
    assert "cfo@corp.test" not in {one["email"] for one in members}
