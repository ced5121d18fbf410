"""What those learn who may not know much: the public, and members without a view of things."""

import pytest

from coordinator.store.database import Store
from coordinator.store.errors import StoreError
from tests.component.api.caller import Api, Home, make


async def test_a_databases_own_words_stay_in_the_log(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: Store) -> None:
        raise StoreError("connection to db.internal as argosy refused")

    monkeypatch.setattr(Store, "ping", away)
    response = await api.client.get("/api/system.health")
    assert response.json()["result"]["data"]["database"] == "the database does not answer"

    def unreadable(_: Store) -> None:
        raise StoreError("connection to db.internal as argosy refused")

    monkeypatch.setattr(Store, "read", unreadable)
    error = await api.call("organization.all", 503, method="GET")
    assert error["message"] == "the database does not answer: try again"


@pytest.mark.parametrize(("role", "seen"), [("viewer", True), ("billing", False)])
async def test_metrics_are_for_those_who_may_see_what_they_count(api: Api, home: Home, role: str, seen: bool) -> None:
    await make(api, home)
    member = await api.as_user("member@example.test", role, home.organization_id)
    answer = await api.client.get("/metrics", headers={"Authorization": f"Bearer {member.token}"})
    assert (home.organization_id in answer.text) is seen
