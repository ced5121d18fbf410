"""The audit as an organisation's admin reads it, and that nothing is done without leaving a line in it."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from coordinator.procedures import auditing, records
from coordinator.procedures.table import TABLE
from coordinator.store.audit import Notary
from coordinator.store.containers import ContainerRecord
from coordinator.store.database import Tx
from coordinator.store.tables import audit
from shared.spec.container import EnvVar, Template
from tests.component.api.caller import Api, Home, make

HARMLESS = frozenset({"environment.requestApproval"})
"""What is asked with another method than GET and changes nothing."""


async def entries(api: Api, home: Home, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await api.call(
        "audit.all", method="GET", organizationId=home.organization_id, **wanted
    )
    return found


async def test_an_entry_tells_who_did_what_from_where(api: Api, home: Home) -> None:
    made = await make(api, home)
    me = await api.call("system.whoami", method="GET")
    newest = (await entries(api, home))[0]
    assert set(newest) == {
        "id",
        "sequence",
        "ts",
        "actor",
        "action",
        "resourceType",
        "resource",
        "before",
        "after",
        "detail",
        "ip",
        "hash",
    }
    assert (newest["action"], newest["resourceType"], newest["resource"]) == (
        "container.create",
        "container",
        made["id"],
    )
    assert newest["actor"] == me["userId"]
    assert newest["ip"] == "127.0.0.1"
    assert newest["detail"]["name"] == "web"
    one = await api.call("audit.one", method="GET", auditId=newest["id"])
    assert {name: one[name] for name in newest} == newest
    assert len(bytes.fromhex(one["signature"])) == 64


async def test_what_a_thing_was_and_is_now_is_told_by_digests(api: Api, home: Home) -> None:
    made = await make(api, home)
    for replicas in (2, 2, 3):
        await api.call("container.update", containerId=made["id"], replicas=replicas)
    await api.call("container.remove", 204, containerId=made["id"])
    removed, third, second, first, created = await entries(api, home, resourceId=made["id"])
    assert created["before"] is None
    assert first["before"] == created["after"] is not None
    assert second["before"] == first["after"] != first["before"]
    assert third["before"] == second["after"] != third["after"]
    assert removed["before"] == third["after"]
    project = await api.call("project.create", 201, organizationId=home.organization_id, name="short-lived")
    await api.call("project.remove", 204, projectId=project["id"])
    gone, born = await entries(api, home, resourceId=project["id"])
    assert (born["before"], gone["after"]) == (None, None)
    assert gone["before"] == born["after"]


@pytest.mark.parametrize("name", ["project", "environment", "cluster", "organization"])
async def test_every_noun_has_digests(api: Api, home: Home, name: str) -> None:
    (environment,) = await api.call("environment.all", method="GET", projectId=home.project_id)
    ids = {
        "project": home.project_id,
        "environment": environment["id"],
        "cluster": home.cluster_id,
        "organization": home.organization_id,
    }
    await api.call(f"{name}.update", **{f"{name}Id": ids[name], "name": "renamed"})
    newest = (await entries(api, home, resourceId=ids[name]))[0]
    assert None not in (newest["before"], newest["after"])
    assert newest["before"] != newest["after"]


def test_a_digest_shows_that_a_secret_changed_and_nothing_of_it() -> None:
    def record(value: str, **changes: Any) -> ContainerRecord:
        template = Template(image="web:1", env=[EnvVar(key="TOKEN", value=value, secret=True)])
        fields = {
            "id": "ctr_1",
            "organization_id": "org_1",
            "project_id": "proj_1",
            "environment_id": "env_1",
            "cluster_id": "cluster_1",
            "name": "web",
            "template": template,
            "declared_replicas": 1,
            "replicas": 1,
            "created_at": 0.0,
        }
        return ContainerRecord(**{**fields, **changes})

    concealed = records.digest(record("sealed:v1:abc"))
    assert concealed != records.digest(record("sealed:v1:xyz"))
    assert records.digest(record("guess")) == records.digest(record("another"))
    assert concealed == records.digest(record("sealed:v1:abc", version=7))
    assert concealed != records.digest(record("sealed:v1:abc", replicas=2))
    assert records.digest(None) == ""


async def test_entries_are_found_by_what_they_say(api: Api, home: Home) -> None:
    made = await make(api, home)
    await api.call("container.scale", containerId=made["id"], replicas=2)
    me = (await api.call("system.whoami", method="GET"))["userId"]
    every = await entries(api, home)
    scaled = [one for one in every if one["action"] == "container.scale"]
    assert await entries(api, home, action="container.scale") == scaled
    of_containers = [one for one in every if one["resourceType"] == "container"]
    assert await entries(api, home, resourceType="container") == of_containers
    assert [one["resource"] for one in await entries(api, home, resourceId=made["id"])] == [made["id"]] * 2
    mine = [one for one in every if one["actor"] == me]
    assert await entries(api, home, actorId=me) == mine
    assert await entries(api, home, actorId="user_nobody") == []
    assert await entries(api, home, since="2099-01-01T00:00:00Z") == []
    assert await entries(api, home, since="2000-01-01", until="2099-01-01") == every
    assert every[0] not in await entries(api, home, until=every[0]["ts"][:19] + "Z")


async def test_pages_follow_each_other_while_more_is_written(api: Api, home: Home) -> None:
    for index in range(5):
        await make(api, home, name=f"web-{index}")
    expected = [one["sequence"] for one in await entries(api, home)]
    seen: list[int] = []
    cursor: str | None = None
    while True:
        params = {"organizationId": home.organization_id, "limit": "2", **({"cursor": cursor} if cursor else {})}
        headers = {"Authorization": f"Bearer {api.token}"}
        response = await api.client.get("/api/audit.all", params=params, headers=headers)
        seen += [one["sequence"] for one in response.json()["result"]["data"]]
        cursor = response.headers.get("X-Next-Cursor")
        if cursor is None:
            break
        await make(api, home, name=f"later-{len(seen)}")
    assert seen == expected


async def test_the_proof_goes_through_the_door(api: Api, home: Home) -> None:
    await make(api, home)
    whole = await api.call("audit.verify", method="GET", organizationId=home.organization_id)
    assert set(whole) == {
        "ok",
        "entries",
        "from",
        "to",
        "head",
        "checkpoint",
        "brokenAt",
        "reason",
        "publicKey",
    }
    count = len(await entries(api, home, limit=200))
    assert (whole["ok"], whole["entries"], whole["brokenAt"], whole["checkpoint"]) == (True, count, None, None)
    await make(api, home, name="another")
    verify = {"organizationId": home.organization_id, "knownHead": whole["head"]}
    assert (await api.call("audit.verify", method="GET", **verify))["ok"]

    async def tampered(tx: Tx) -> None:
        last = select(func.max(audit.c.sequence)).where(audit.c.chain == home.organization_id).scalar_subquery()
        await tx.conn.execute(update(audit).where(audit.c.sequence == last).values(actor="user_x"))

    await api.store.write(tampered)
    broken = await api.call("audit.verify", method="GET", organizationId=home.organization_id)
    assert (broken["ok"], broken["brokenAt"]) == (False, whole["entries"] + 1)
    assert "was changed" in broken["reason"]


async def test_a_broken_chain_is_still_written_to(api: Api, home: Home) -> None:
    """Refusing would hand whoever can write the database a switch to turn everything off."""
    await make(api, home)

    async def emptied(tx: Tx) -> None:
        await tx.conn.execute(delete(audit))

    await api.store.write(emptied)
    await make(api, home, name="another")
    assert not (await api.call("audit.verify", method="GET", organizationId=home.organization_id))["ok"]


@pytest.mark.parametrize("role", ["developer", "viewer", "billing"])
async def test_only_admins_read_it(api: Api, home: Home, role: str) -> None:
    member = await api.as_user("member@example.test", role, home.organization_id)
    await make(api, home)
    for name in ("audit.all", "audit.verify"):
        await member.call(name, 403, method="GET", organizationId=home.organization_id)
    await member.call("audit.one", 403, method="GET", auditId=(await entries(api, home))[0]["id"])


async def test_an_entry_of_others_and_of_the_system_is_not_found(api: Api, home: Home) -> None:
    await make(api, home)
    (newest, *_) = await entries(api, home)
    stranger = await api.as_user("stranger@example.test")
    foreign = await stranger.call("audit.one", 404, method="GET", auditId=newest["id"])
    assert foreign == await stranger.call("audit.one", 404, method="GET", auditId="aud_none")

    async def of_the_system(tx: Tx) -> str:
        await api.services.notary.append(tx, "system.start", "system", organization_id=None, actor="system", detail={})
        found = await tx.conn.execute(
            select(audit.c.id).where(audit.c.chain == "system").order_by(audit.c.sequence.desc())
        )
        return str(found.scalars().first())

    hidden = await api.store.write(of_the_system)
    assert await api.call("audit.one", 404, method="GET", auditId=hidden) == foreign


# --- nothing is done without a line


def reachable(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The functions of ours that a function's source names, and those that theirs name, and so on."""
    rest, seen = [inspect.unwrap(function)], set()
    while rest:
        one = rest.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        rest += [found for found in _named(one) if found.__module__.startswith("coordinator.")]


def _named(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = getattr(function, "__globals__", {})
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name):
                found = names.get(name)
            case ast.Attribute(value=ast.Name(id=module), attr=name) if isinstance(names.get(module), ModuleType):
                found = getattr(names[module], name, None)
            case _:
                continue
        if isinstance(found, FunctionType):
            yield inspect.unwrap(found)


@pytest.mark.parametrize(
    "name", sorted(name for name, one in TABLE.items() if one.kind == "mutation" and name not in HARMLESS)
)
def test_every_mutation_leads_to_a_line_in_the_audit(name: str) -> None:
    found = set(reachable(TABLE[name].function))
    writes = {auditing.note, Notary.append}
    source = "".join(inspect.getsource(one) for one in found)
    assert found & writes or "notary.append(" in source, f"{name} notes nothing"


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_leaves_no_line_writes_nothing(name: str) -> None:
    source = "".join(inspect.getsource(one) for one in reachable(TABLE[name].function))
    assert "store.write(" not in source


async def test_a_line_is_written_in_the_transaction_of_what_it_tells(
    api: Api, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the line cannot be written, nothing was done."""

    async def full(*_: object, **__: object) -> None:
        raise RuntimeError("no line")

    made = await make(api, home)
    monkeypatch.setattr(Notary, "append", full)
    monkeypatch.setattr("coordinator.doors.answers.log.error", lambda *_, **__: None, raising=False)
    before = await api.call("container.one", method="GET", containerId=made["id"])
    calls: list[tuple[str, dict[str, Any]]] = [
        ("container.scale", {"containerId": made["id"], "replicas": 5}),
        ("container.update", {"containerId": made["id"], "image": "web:2"}),
        ("container.deploy", {"containerId": made["id"], "image": "web:2"}),
        ("container.restart", {"containerId": made["id"]}),
        ("container.stop", {"containerId": made["id"]}),
        ("container.remove", {"containerId": made["id"]}),
        ("project.create", {"organizationId": home.organization_id, "name": "another"}),
        ("project.update", {"projectId": home.project_id, "name": "another"}),
        ("environment.create", {"projectId": home.project_id, "name": "staging"}),
        ("cluster.update", {"clusterId": home.cluster_id, "name": "another"}),
        ("cluster.joinToken", {"clusterId": home.cluster_id}),
        ("organization.update", {"organizationId": home.organization_id, "name": "another"}),
        ("organization.create", {"name": "another"}),
    ]
    for name, data in calls:
        await api.call(name, 500, **data)
    assert await api.call("container.one", method="GET", containerId=made["id"]) == before
    assert [
        one["name"] for one in await api.call("project.all", method="GET", organizationId=home.organization_id)
    ] != ["another"]
    assert len(await api.call("organization.all", method="GET")) == 1
    assert len(await api.call("environment.all", method="GET", projectId=home.project_id)) == 1
