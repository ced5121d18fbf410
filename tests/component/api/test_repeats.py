"""`Idempotency-Key`: once is once, whatever happens to the answer; and updates of what somebody else has changed meanwhile."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from coordinator.control.collector import Collector
from coordinator.procedures import auditing
from coordinator.store import containers, repeats
from coordinator.store.database import Store, StoreError, Tx
from coordinator.store.tables import audit, organization, repeat
from tests.component.api.caller import Api, Home, make
from tests.component.api.test_rates import limited

KEY = "a-key-of-our-own"


async def post(api: Api, procedure: str, data: dict[str, Any], **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.post(
        f"/api/{procedure}", json=data, headers={"Authorization": f"Bearer {api.token}", **named}
    )


async def create(api: Api, name: str = "Once", key: str = KEY) -> httpx.Response:
    return await post(api, "organization.create", {"name": name}, idempotency_key=key)


async def count(store: Store, table: Any) -> int:
    async with store.read() as conn:
        return int((await conn.execute(select(func.count()).select_from(table))).scalar() or 0)


async def test_a_retry_gets_the_first_answer_byte_for_byte(api: Api) -> None:
    first = await create(api)
    again = await create(api)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await count(api.store, organization) == 2


async def test_another_key_or_caller_is_another_call(api: Api) -> None:
    first = await create(api)
    assert (await create(api, key="b")).json() != first.json()
    other = await api.as_user("other@example.test")
    theirs = await create(other)
    assert theirs.status_code == 201
    assert theirs.json() != first.json()
    assert "Idempotent-Replayed" not in theirs.headers


async def test_the_same_key_for_another_input_or_procedure_is_refused(api: Api, home: Home) -> None:
    await create(api)
    for refused in (
        await create(api, "Twice"),
        await post(api, "project.create", {"organizationId": home.organization_id, "name": "x-1"}, idempotency_key=KEY),
    ):
        assert refused.status_code == 409
        assert "another input" in refused.json()["error"]["message"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ü", "a\tb"])
async def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    response = await api.client.post(
        "/api/organization.create",
        json={"name": "Once"},
        headers=[(b"Authorization", f"Bearer {api.token}".encode()), (b"Idempotency-Key", key.encode("latin-1"))],
    )
    assert response.status_code == 400
    assert "Idempotency-Key" in response.json()["error"]["message"]


async def test_what_was_refused_is_not_kept(api: Api, home: Home) -> None:
    data = {"containerId": "ctr_none", "replicas": 2}
    assert (await post(api, "container.scale", data, idempotency_key=KEY)).status_code == 404
    made = await make(api, home)
    await make(api, home, name="other")
    taken = {"containerId": made["id"], "name": "other"}
    assert (await post(api, "container.update", taken, idempotency_key="b")).status_code == 409
    assert await count(api.store, repeat) == 0
    free = {"containerId": made["id"], "name": "third"}
    assert (await post(api, "container.update", free, idempotency_key="b")).status_code == 200


async def test_an_answer_without_a_body_is_replayed_too(api: Api, home: Home) -> None:
    made = await make(api, home)
    for _ in range(2):
        response = await post(api, "container.remove", {"containerId": made["id"]}, idempotency_key=KEY)
        assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Idempotent-Replayed"] == "true"
    assert (await post(api, "container.remove", {"containerId": made["id"]})).status_code == 412


async def test_a_hundred_at_once_are_carried_out_once(api: Api) -> None:
    answers = await asyncio.gather(*(create(api) for _ in range(100)))
    assert {one.status_code for one in answers} == {201}
    assert len({one.content for one in answers}) == 1
    assert sum("Idempotent-Replayed" not in one.headers for one in answers) == 1
    assert await count(api.store, organization) == 2


async def test_two_replicas_carry_it_out_once(api: Api) -> None:
    """Each has its own door and knows nothing of what runs at the other's."""
    async with limited(api) as one, limited(api) as two:
        answers = await asyncio.gather(*(create(each) for each in (one, two, one, two)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert await count(api.store, organization) == 2


async def test_a_call_whose_answer_was_lost_is_not_made_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(repeats, "answer", lost)
        assert (await create(api)).status_code == 201

    async def aged(tx: Tx) -> None:
        await tx.conn.execute(update(repeat).values(created_at=tx.now - 60))

    await api.store.write(aged)
    again = await create(api)
    assert again.status_code == 409
    assert "its answer was lost" in again.json()["error"]["message"]
    assert await count(api.store, organization) == 2


async def test_a_call_that_failed_after_its_claim_leaves_neither(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr("coordinator.procedures.organization.note", broken)
        patch.setattr("coordinator.doors.answers.log", _Silent())
        assert (await create(api)).status_code == 500
    assert await count(api.store, repeat) == 0
    assert (await create(api)).status_code == 201


class _Silent:
    def error(self, *_: object, **__: object) -> None:
        """A traceback in a test's output says nothing."""


async def test_secrets_in_answers_rest_sealed(api: Api, home: Home) -> None:
    data = {"clusterId": home.cluster_id, "role": "worker"}
    first = await post(api, "cluster.joinToken", data, idempotency_key=KEY)
    secret = first.json()["result"]["data"]["token"]
    async with api.store.read() as conn:
        assert secret.encode() not in (await conn.execute(select(repeat.c.body))).scalar_one()
    again = await post(api, "cluster.joinToken", data, idempotency_key=KEY)
    assert again.content == first.content


async def test_answers_are_kept_for_a_day(api: Api) -> None:
    await create(api)

    async def aged(tx: Tx) -> None:
        await tx.conn.execute(update(repeat).values(created_at=tx.now - repeats.KEPT_SECONDS - 1))

    await api.store.write(aged)
    await Collector(api.store, api.services.clock)._trim()
    assert await count(api.store, repeat) == 0
    assert "Idempotent-Replayed" not in (await create(api)).headers


async def test_queries_and_strangers_have_no_use_for_a_key(api: Api) -> None:
    for _ in range(2):
        response = await post(api, "system.whoami", {}, idempotency_key=KEY)
        assert response.status_code == 200
        assert "Idempotent-Replayed" not in response.headers
    assert await count(api.store, repeat) == 0


async def test_calls_of_a_batch_do_not_take_each_others_answers(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Idempotency-Key": KEY}
    body = {"0": {"name": "First"}, "1": {"name": "Second"}}
    for _ in range(2):
        response = await api.client.post(
            "/api/trpc/organization.create,organization.create?batch=1", json=body, headers=headers
        )
        assert response.status_code in (200, 201, 207), response.text
        assert [one["result"]["data"]["name"] for one in response.json()] == ["First", "Second"]
    assert await count(api.store, organization) == 3


# --- ETag, If-Match, If-None-Match


async def one(api: Api, container_id: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.client.get(
        f"/api/container.one?containerId={container_id}", headers={"Authorization": f"Bearer {api.token}", **named}
    )


async def test_an_unchanged_thing_is_not_sent_again(api: Api, home: Home) -> None:
    made = await make(api, home)
    first = await one(api, made["id"])
    same = await one(api, made["id"], if_none_match=first.headers["ETag"])
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["ETag"] == first.headers["ETag"]
    assert (await one(api, made["id"], if_none_match=f'"x", W/{first.headers["ETag"]}')).status_code == 304
    await api.call("container.scale", containerId=made["id"], replicas=2)
    assert (await one(api, made["id"], if_none_match=first.headers["ETag"])).status_code == 200


async def test_an_update_of_what_was_seen_is_made_and_of_what_was_changed_refused(api: Api, home: Home) -> None:
    made = await make(api, home)
    seen = (await one(api, made["id"])).headers["ETag"]
    data = {"containerId": made["id"], "replicas": 2}
    updated = await post(api, "container.scale", data, if_match=seen)
    assert updated.status_code == 200
    refused = await post(api, "container.scale", {**data, "replicas": 3}, if_match=seen)
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "PRECONDITION_FAILED")
    again = await post(api, "container.scale", {**data, "replicas": 3}, if_match=updated.headers["ETag"])
    assert again.status_code == 200
    assert (await post(api, "container.scale", data, if_match="*")).status_code == 200
    generation = (await one(api, made["id"])).json()["result"]["data"]["generation"]
    assert (await post(api, "container.scale", data, if_match=f'"1", "{generation}"')).status_code == 200


async def test_what_the_system_does_meanwhile_is_no_change_of_the_declaration(api: Api, home: Home) -> None:
    made = await make(api, home)
    seen = (await one(api, made["id"])).headers["ETag"]

    async def moved(tx: Tx) -> None:
        assert await containers.change(tx, made["id"], desired="stopped")

    await api.store.write(moved)
    assert (await one(api, made["id"])).headers["ETag"] != seen
    assert (
        await post(api, "container.scale", {"containerId": made["id"], "replicas": 2}, if_match=seen)
    ).status_code == 200


@pytest.mark.parametrize("router", ["project", "environment", "cluster", "organization"])
async def test_other_things_are_compared_by_their_content(api: Api, home: Home, router: str) -> None:
    (environment,) = await api.call("environment.all", method="GET", projectId=home.project_id)
    ids = {
        "project": home.project_id,
        "environment": environment["id"],
        "cluster": home.cluster_id,
        "organization": home.organization_id,
    }
    field, token = f"{router}Id", {"Authorization": f"Bearer {api.token}"}
    got = await api.client.get(f"/api/{router}.one?{field}={ids[router]}", headers=token)
    seen = got.headers["ETag"]
    data = {field: ids[router], "name": "another-name"}
    assert (await post(api, f"{router}.update", data, if_match=seen)).status_code == 200
    stale = await post(api, f"{router}.update", {**data, "name": "a-third-name"}, if_match=seen)
    assert stale.status_code == 412


async def test_of_many_who_saw_the_same_one_is_carried_out(api: Api, home: Home) -> None:
    made = await make(api, home)
    seen = (await one(api, made["id"])).headers["ETag"]
    answers = await asyncio.gather(
        *(
            post(api, "container.update", {"containerId": made["id"], "replicas": count}, if_match=seen)
            for count in range(2, 12)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9


async def test_updates_without_a_condition_lose_no_generation(api: Api, home: Home) -> None:
    made = await make(api, home)
    before = made["generation"]
    answers = await asyncio.gather(
        *(api.call("container.update", containerId=made["id"], replicas=count) for count in range(1, 21))
    )
    assert sorted(answer["generation"] for answer in answers) == list(range(before + 1, before + 21))
    last = max(answers, key=lambda answer: answer["generation"])
    after = (await one(api, made["id"])).json()["result"]["data"]
    assert (after["generation"], after["replicas"]) == (before + 20, last["replicas"])


@pytest.mark.parametrize("header", ["7", '"', '"a" "b"', "'7'", '"é"', "", '"1",' * 500])
async def test_an_if_match_that_is_none_is_refused(api: Api, home: Home, header: str) -> None:
    made = await make(api, home)
    response = await api.client.post(
        "/api/container.scale",
        json={"containerId": made["id"], "replicas": 2},
        headers=[(b"Authorization", f"Bearer {api.token}".encode()), (b"If-Match", header.encode("latin-1"))],
    )
    assert response.status_code == 400
    assert "If-Match" in response.json()["error"]["message"]


async def test_a_foreign_thing_is_not_found_whatever_is_said_about_its_state(api: Api, home: Home) -> None:
    made = await make(api, home)
    stranger = await api.as_user("stranger@example.test")
    response = await post(stranger, "container.scale", {"containerId": made["id"], "replicas": 2}, if_match='"999"')
    assert response.status_code == 404


async def test_a_refused_condition_leaves_no_claim_on_the_key(api: Api, home: Home) -> None:
    made = await make(api, home)
    data = {"containerId": made["id"], "replicas": 2}
    refused = await post(api, "container.scale", data, if_match='"999"', idempotency_key=KEY)
    assert refused.status_code == 412
    assert await count(api.store, repeat) == 0
    assert (await post(api, "container.scale", data, if_match="*", idempotency_key=KEY)).status_code == 200


async def test_claim_and_change_are_one_transaction(api: Api, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither without the other: the claim is seen in the transaction that writes the audit entry."""
    seen: list[int] = []

    async def looking(tx: Tx, *args: Any, **detail: Any) -> None:
        await auditing.note(tx, *args, **detail)
        seen.append(int((await tx.conn.execute(select(func.count()).select_from(repeat))).scalar() or 0))

    monkeypatch.setattr("coordinator.procedures.container.note", looking)
    made = await make(api, home)
    await post(api, "container.remove", {"containerId": made["id"]}, idempotency_key=KEY)
    assert seen == [0, 1]
    assert await count(api.store, audit) >= 2
