"""Invitations as the tests of signing up need them."""

from typing import Any
from urllib.parse import urlsplit

from tests.component.api.caller import Home
from tests.component.api.identity.browser import Browser


async def invite(admin: Browser, home: Home, email: str, role: str = "developer") -> Any:
    (made,) = await admin.call("invitation.create", 201, organizationId=home.organization_id, email=email, role=role)
    return made


def token_of(invitation: dict[str, Any]) -> str:
    """What follows the `argosy_inv_` mark in its link, with the mark."""
    fragment = urlsplit(str(invitation["link"])).fragment
    return fragment[fragment.index("argosy_inv_") :]
