"""The link of an invitation leads to a page that makes the account; what the page calls is called here as it does."""

import re

import pytest

from tests.component.api.caller import Api, Home

PAGE = "/invitation"


async def test_the_link_of_an_invitation_is_served_with_everything_it_loads(api: Api, home: Home) -> None:
    (made,) = await api.call(
        "invitation.create", 201, organizationId=home.organization_id, email="ann@example.test", role="viewer"
    )
    path, _, token = made["link"].removeprefix("http://coordinator.test").partition("#")
    assert path == PAGE
    page = await api.client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for part in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert (await api.client.get(part)).status_code == 200
    script = (await api.client.get("/invitation/page.js")).text
    assert "'/api/session.signUp'" in script
    answer = await api.client.post(
        "/api/session.signUp", json={"token": token, "name": "Ann", "password": "correct horse battery"}
    )
    assert answer.status_code == 201, answer.text
    members = await api.call("orgTeam.all", method="GET", organizationId=home.organization_id)
    assert [one["role"] for one in members if one["email"] == "ann@example.test"] == ["viewer"]


@pytest.mark.parametrize("part", ["", "/page.js", "/page.css"])
async def test_it_runs_and_calls_nothing_from_elsewhere(api: Api, part: str) -> None:
    answer = await api.client.get(PAGE + part)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", answer.text)
    again = await api.client.get(PAGE + part, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
