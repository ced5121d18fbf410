"""Two organisations that know nothing of each other.

Every procedure that takes an id is called with one of the other organisation and with one that does not exist: the two answers are
the same, byte for byte, for every role and grant. And no answer about one's own things shows anything of the others'.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest

from coordinator.procedures.bearer import hash_secret, new_secret
from coordinator.procedures.table import TABLE, Procedure
from coordinator.store import grants, sessions, users
from coordinator.store.database import Tx
from coordinator.store.grants import GrantRecord
from coordinator.store.sessions import SessionRecord
from coordinator.store.users import ApiTokenRecord
from shared.kit.ids import new_id
from tests.component.api.caller import Api, Home, enrolled, make, running_instance

MARK = "bravo"
"""In the name of everything the other organisation has."""

FILLERS: dict[str, Any] = {
    "key": "KEY",
    "value": "v",
    "name": "fresh",
    "type": "Public",
    "role": "viewer",
    "permission": "view",
    "replicas": 1,
    "provider": "byo",
    "orchestrator": "docker",
    "url": "http://127.0.0.1:9/x",
    "token": "argosy_inv_nobodyhasthis",
    "code": "000000",
    "password": "something long 1",
}
"""Values for the fields that a procedure requires besides ids."""
MORE: dict[str, dict[str, Any]] = {
    "container.create": {"image": "web:1"},
    "invitation.create": {"email": "someone@example.test", "role": "viewer"},
    "log.createDrain": {"type": "http"},
    "registry.create": {"server": "registry.test"},
    "secret.update": {"value": "w"},
}
BESIDE = {"lastEventId"}
"""Called an id, and of nothing that anybody owns."""

FILTERS = {
    ("audit.all", "actorId"),
    ("audit.all", "resourceId"),
    ("container.all", "clusterId"),
    ("container.all", "environmentId"),
    ("project.deployments", "environmentId"),
    ("project.releases", "environmentId"),
    ("secret.all", "environmentId"),
    ("secret.all", "projectId"),
}
"""Of a list of one's own: what matches nothing shows nothing."""
PLACES = {
    ("container.create", "clusterId"),
    ("container.create", "environmentId"),
    ("container.create", "registryId"),
    ("container.update", "registryId"),
    ("environment.create", "clusterId"),
    ("environment.update", "clusterId"),
    ("project.create", "clusterId"),
}
"""Where something of one's own is to go: the field is named as wrong."""


@dataclass
class Side:
    """One organisation: `ids` by the names that fields call them."""

    api: Api
    ids: dict[str, str] = field(default_factory=dict)


async def settle(api: Api, name: str) -> Side:
    """Something of everything, owned by this caller."""
    organization = await api.call("organization.create", 201, name=name)
    owned = {"organizationId": organization["id"]}
    cluster = await api.call("cluster.create", 201, **owned, name=name, provider="byo", orchestrator="docker")
    project = await api.call("project.create", 201, **owned, name=name, clusterId=cluster["id"])
    home = Home(organization["id"], project["id"], cluster["id"])
    registry = await api.call("registry.create", 201, **owned, name=name, type="Public", server=f"{name}.test")
    made = await make(api, home, name=name, env=[{"key": "WHO", "value": name}])
    node_id = await enrolled(api, home, name)
    instance_id = await running_instance(api, home, made, node_id)
    secret = await api.call("secret.create", 201, **owned, key=name.upper(), value=name)
    drain = await api.call("log.createDrain", 201, **owned, name=name, type="http", url="http://127.0.0.1:9/x")
    (invited,) = await api.call("invitation.create", 201, **owned, email=f"guest@{name}.test", role="viewer")
    entries = await api.call("audit.all", method="GET", **owned)
    user_id = (await api.call("user.me", method="GET"))["id"]
    session_id, token_id = await _credentials(api, user_id)
    return Side(
        api,
        {
            **owned,
            "userId": user_id,
            "actorId": user_id,
            "projectId": project["id"],
            "environmentId": made["environmentId"],
            "clusterId": cluster["id"],
            "registryId": registry["id"],
            "containerId": made["id"],
            "resourceId": made["id"],
            "releaseId": made["release"]["id"],
            "deploymentId": made["deploymentId"],
            "nodeId": node_id,
            "instanceId": instance_id,
            "secretId": secret["id"],
            "drainId": drain["id"],
            "invitationId": invited["id"],
            "auditId": entries[0]["id"],
            "sessionId": session_id,
            "tokenId": token_id,
        },
    )


async def _credentials(api: Api, user_id: str) -> tuple[str, str]:
    async def unit(tx: Tx) -> tuple[str, str]:
        session = SessionRecord(
            id=new_id("sess"),
            user_id=user_id,
            hash=hash_secret(new_secret()),
            created_at=tx.now,
            last_used_at=tx.now,
            expires_at=tx.now + 3600,
        )
        token = ApiTokenRecord(
            id=new_id("tok"),
            user_id=user_id,
            name="t",
            hash=hash_secret(new_secret()),
            prefix="",
            created_by=user_id,
            created_at=tx.now,
        )
        await sessions.insert(tx, session)
        await users.insert_token(tx, token)
        return session.id, token.id

    return await api.store.write(unit)


@pytest.fixture
async def ours(api: Api) -> Side:
    api.services.broker.attach(_Nowhere())
    return await settle(await api.as_user("owner@alpha.test"), "alpha")


@pytest.fixture
async def theirs(api: Api, ours: Side) -> Side:
    return await settle(await api.as_user(f"owner@{MARK}.test"), MARK)


class _Nowhere:
    def send(self, node_id: str, frame: Any) -> bool:
        return True


def id_fields(procedure: Procedure) -> list[str]:
    names = (one.encode_name for one in msgspec.structs.fields(procedure.input))
    return [name for name in names if name.endswith("Id") and name not in BESIDE]


def body(procedure: Procedure, ids: dict[str, str], about: str = "") -> dict[str, Any]:
    """A call about one's own things, `about` among them."""
    required = [one.encode_name for one in msgspec.structs.fields(procedure.input) if one.required]
    named = [name for name in required if name in ids] + ([about] if about and about not in required else [])
    filled = {name: FILLERS[name] for name in required if name in FILLERS}
    return {**filled, **MORE.get(procedure.name, {}), **{name: ids[name] for name in named}}


async def send(caller: Api, procedure: Procedure, given: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {caller.token}"}
    return await caller.client.post(f"/api/{procedure.name}", json=given, headers=headers)


def missing(known: str) -> str:
    prefix, _, rest = known.partition("_")
    return f"{prefix}_{'0' * len(rest)}"


async def differences(caller: Api, ours: Side, theirs: Side, fields: list[tuple[Procedure, str]]) -> list[Any]:
    """Where the answer to a foreign id is not the one to an id that is nobody's, or tells of the others, or is no refusal."""
    wrong = []
    for procedure, name in fields:
        given = body(procedure, ours.ids, name)
        foreign = await send(caller, procedure, {**given, name: theirs.ids[name]})
        nobodys = await send(caller, procedure, {**given, name: missing(theirs.ids[name])})
        same = (foreign.status_code, foreign.content) == (nobodys.status_code, nobodys.content)
        tells = MARK.encode() in foreign.content or any(one.encode() in foreign.content for one in theirs.ids.values())
        if not same or tells or not _refuses(procedure, name, foreign, caller is ours.api):
            wrong.append((procedure.name, name, foreign.status_code, foreign.text, nobodys.status_code, nobodys.text))
    return wrong


def _refuses(procedure: Procedure, name: str, answer: httpx.Response, is_owner: bool) -> bool:
    """An owner is refused for no other reason than the id."""
    if (procedure.name, name) in FILTERS:
        return answer.status_code in (200, 400, 404) if is_owner else answer.status_code < 500
    if not is_owner or procedure.session_only:
        return answer.status_code in (400, 403, 404)
    return answer.status_code == (400 if (procedure.name, name) in PLACES else 404)


def every_id() -> Iterator[tuple[Procedure, str]]:
    for procedure in TABLE.values():
        for name in id_fields(procedure):
            yield procedure, name


async def test_a_foreign_id_is_answered_as_one_that_does_not_exist(ours: Side, theirs: Side) -> None:
    asked = list(every_id())
    assert {name for _, name in asked} <= set(theirs.ids)
    assert await differences(ours.api, ours, theirs, asked) == []


MEMBERS = [
    ("admin", "view"),
    ("developer", "view"),
    ("developer", "deploy"),
    ("developer", "manage"),
    ("viewer", "manage"),
    ("billing", "manage"),
    (None, "manage"),
]


async def test_no_role_and_no_grant_reaches_across(ours: Side, theirs: Side) -> None:
    """The grant is on the other organisation's cluster too, as somebody who has left would have it by an oversight."""
    first = [(procedure, id_fields(procedure)[0]) for procedure in TABLE.values() if id_fields(procedure)]
    for role, grant in MEMBERS:
        member = await _member(ours, theirs, role, grant)
        assert await differences(member, ours, theirs, first) == []
        for procedure, name in first:
            answer = await send(member, procedure, body(procedure, theirs.ids, name))
            assert answer.status_code in (400, 403, 404), (role, grant, procedure.name, answer.text)
            assert MARK not in answer.text, (role, grant, procedure.name)


async def _member(ours: Side, theirs: Side, role: str | None, grant: str) -> Api:
    member = await ours.api.as_user(f"{grant}@{role}.test", role, ours.ids["organizationId"])
    member_id = (await member.call("user.me", method="GET"))["id"]
    for side in (ours, theirs):
        record = GrantRecord(
            cluster_id=side.ids["clusterId"], user_id=member_id, permission=grant, granted_by="", created_at=0.0
        )
        await ours.api.store.write(partial(grants.put, record=record))
    return member


async def test_no_answer_about_ones_own_shows_anything_of_the_others(ours: Side, theirs: Side) -> None:
    for procedure in TABLE.values():
        if procedure.method != "GET" or procedure.kind == "subscription":
            continue
        answer = await send(ours.api, procedure, body(procedure, ours.ids))
        assert answer.status_code == 200, (procedure.name, answer.text)
        assert MARK not in answer.text, procedure.name
        assert not any(one in answer.text for one in theirs.ids.values()), procedure.name


async def test_a_service_token_opens_its_organisation_only(ours: Side, theirs: Side) -> None:
    secret = new_secret("svc")

    async def unit(tx: Tx) -> None:
        token = ApiTokenRecord(
            id=new_id("tok"),
            organization_id=ours.ids["organizationId"],
            name="ci",
            hash=hash_secret(secret),
            prefix="",
            created_by=ours.ids["userId"],
            created_at=tx.now,
        )
        await users.insert_token(tx, token)

    await ours.api.store.write(unit)
    robot = Api(ours.api.client, ours.api.services, secret)
    (listed,) = await robot.call("organization.all", method="GET")
    assert listed["id"] == ours.ids["organizationId"]
    await robot.call("container.one", method="GET", containerId=ours.ids["containerId"])
    await robot.call("container.one", 404, method="GET", containerId=theirs.ids["containerId"])
    error = await robot.call("organization.create", 403, name="mine")
    assert "token" in error["message"]
