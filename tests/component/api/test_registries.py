"""Registries: what may be declared, that credentials never come back, and that rotating them reaches the nodes and nothing else."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from coordinator.hub.assignments import Recipient
from coordinator.hub.outbox import Outbox
from coordinator.store import audit, instances
from coordinator.store.vault import Vault
from shared.kit.seal import SealingKey
from shared.spec.instance import Assignment, InstanceSecrets, Phase
from shared.wire.codec import decode_from_hub
from shared.wire.frames import AssignmentDelta, AssignmentSet
from tests.component.api.caller import Api, Home, enrolled, make, running_instance
from tests.fakes.registries import logins
from tests.fakes.token_server import FakeRegistry, serving

PASSWORD = "pull-me-if-you-can-3Vb"
LOGIN = {"username": "robot", "password": PASSWORD}
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
ACCESS = {"accessKeyId": "AKIA1", "secretAccessKey": "s"}


async def add(api: Api, home: Home, expect: int = 201, **fields: Any) -> Any:
    declared = {"name": "one", "type": "GHCR", "credentials": LOGIN, **fields}
    declared = {key: value for key, value in declared.items() if value is not None}
    return await api.call("registry.create", expect, organizationId=home.organization_id, **declared)


class Node:
    """What one node is told. `key` opens what is sealed to it."""

    def __init__(self, api: Api, node_id: str) -> None:
        self._key = SealingKey.generate()
        self._outbox = Outbox(api.store, api.services.vault, Recipient(node_id, self._key.public), None, [])

    async def told(self) -> dict[str, tuple[Assignment, InstanceSecrets]]:
        found: dict[str, tuple[Assignment, InstanceSecrets]] = {}
        for data in (await self._outbox.next()).frames:
            frame = decode_from_hub(data)
            assert isinstance(frame, AssignmentSet | AssignmentDelta)
            for one in frame.assignments:
                assert one.spec is not None
                plain = self._key.open(one.spec.sealed, one.instance_id.encode()) if one.spec.sealed else b"\x80"
                found[one.instance_id] = one, msgspec.msgpack.decode(plain, type=InstanceSecrets)
        return found


async def test_credentials_go_in_and_never_come_out(api: Api, home: Home) -> None:
    made = await add(api, home)
    assert (made["server"], made["hasCredentials"], made["checkedAt"], made["checkError"]) == (
        "ghcr.io",
        True,
        None,
        "",
    )
    shown = [
        made,
        await api.call("registry.one", method="GET", registryId=made["id"]),
        await api.call("registry.all", method="GET", organizationId=home.organization_id),
        await api.call("registry.update", registryId=made["id"], name="two", credentials={**LOGIN, "username": "r2"}),
    ]
    async with api.store.read() as conn:
        noted = await audit.of_organization(conn, home.organization_id)
    assert PASSWORD not in str(shown)
    assert PASSWORD not in str(noted)
    await add(api, home, 409, name="two")
    viewer = await api.as_user("viewer@example.com", "viewer", home.organization_id)
    await viewer.call("registry.all", 403, method="GET", organizationId=home.organization_id)
    stranger = await api.as_user("stranger@example.com")
    await stranger.call("registry.test", 404, registryId=made["id"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": "Custom"}, "server"),
        ({"type": "ACR"}, "server"),
        ({"type": "GAR"}, "server"),
        ({"type": "ECR", "credentials": ACCESS}, "server"),
        ({"type": "ECR", "credentials": ACCESS, "server": "evil.example"}, "server"),
        ({"type": "Custom", "server": "https://registry.example"}, "server"),
        ({"type": "Custom", "server": "registry.example/path"}, "server"),
        ({"type": "Custom", "server": "registry.example:0"}, "server"),
        ({"type": "Custom", "server": "user@registry.example"}, "server"),
        ({"credentials": None}, "credentials"),
        ({"credentials": {"username": "robot"}}, "credentials.password"),
        ({"credentials": {"password": "x"}}, "credentials.username"),
        ({"credentials": {**LOGIN, "username": "a:b"}}, "credentials.username"),
        ({"credentials": {**LOGIN, "region": "eu-central-1"}}, "credentials.region"),
        ({"credentials": {**LOGIN, "password": "é" * 2049}}, "credentials.password"),
        ({"type": "Public"}, "credentials"),
        ({"type": "ECR", "server": ECR}, "credentials.username"),
        ({"type": "ECR", "server": ECR, "credentials": {**ACCESS, "region": "x.evil.example/"}}, "credentials.region"),
        ({"type": "GCR", "credentials": {"jsonKey": "not json"}}, "credentials.jsonKey"),
        ({"type": "GCR", "credentials": {"jsonKey": "[1]"}}, "credentials.jsonKey"),
        ({"type": "Other"}, "type"),
    ],
)
async def test_what_cannot_be_a_registry_is_refused_by_field(
    api: Api, home: Home, fields: dict[str, Any], field: str
) -> None:
    error = await add(api, home, 400, **fields)
    assert error["message"].startswith(f"{field}: "), error["message"]


async def test_every_type_has_its_form(api: Api, home: Home) -> None:
    google = {"jsonKey": '{"type": "service_account",\n "project_id": "p"}'}
    forms: list[dict[str, Any]] = [
        {"type": "GHCR"},
        {"type": "Docker"},
        {"type": "Quay"},
        {"type": "ACR", "server": "Shop.azurecr.io"},
        {"type": "GCR", "credentials": google},
        {"type": "GAR", "server": "europe-docker.pkg.dev", "credentials": google},
        {"type": "ECR", "server": ECR, "credentials": ACCESS},
        {"type": "Custom", "server": "index.docker.io"},
        {"type": "Public", "credentials": None},
    ]
    made = [await add(api, home, name=str(number), **form) for number, form in enumerate(forms)]
    assert [one["server"] for one in made] == [
        "ghcr.io",
        "docker.io",
        "quay.io",
        "shop.azurecr.io",
        "gcr.io",
        "europe-docker.pkg.dev",
        ECR,
        "docker.io",
        "docker.io",
    ]
    page = await api.call("registry.all", method="GET", organizationId=home.organization_id, limit=4)
    assert [one["name"] for one in page] == ["0", "1", "2", "3"]


async def test_the_test_really_logs_in_and_what_came_of_it_is_kept(api: Api, home: Home) -> None:
    fake = FakeRegistry(username="robot", password=PASSWORD)
    async with serving(fake.app()) as address:
        made = await add(api, home, type="Custom", server=address, insecure=True)
        check = await api.call("registry.test", registryId=made["id"])
        assert (check["ok"], check["error"]) == (True, "")
        fake.password = "rotated"
        check = await api.call("registry.test", registryId=made["id"])
        assert not check["ok"]
        assert "incorrect username or password" in check["error"]
    shown = await api.call("registry.one", method="GET", registryId=made["id"])
    assert (shown["checkedAt"], shown["checkError"]) == (check["checkedAt"], check["error"])
    renewed = await api.call("registry.update", registryId=made["id"], credentials={**LOGIN, "password": "rotated"})
    assert (renewed["checkedAt"], renewed["checkError"]) == (None, ""), "what was checked is no more"


async def test_a_rotated_password_reaches_the_nodes_and_nothing_restarts(api: Api, home: Home) -> None:
    node_id = await enrolled(api, home, "n1")
    first = await add(api, home)
    made = await make(api, home, image="ghcr.io/shop/web:1")
    other = await make(api, home, name="other", image="quay.io/shop/web:1")
    there = await running_instance(api, home, made, node_id)
    elsewhere = await running_instance(api, home, other, node_id)
    node = Node(api, node_id)
    told = await node.told()
    assert (told[there][1].username, told[there][1].password) == ("robot", PASSWORD)
    assert told[elsewhere][1] == InstanceSecrets()
    await api.call("registry.update", registryId=first["id"], credentials={**LOGIN, "password": "rotated"})
    again = await node.told()
    assert list(again) == [there], "only what pulls from there is told again"
    assert again[there][1].password == "rotated"
    before, after = told[there][0], again[there][0]
    assert before.spec is not None
    assert after.spec is not None
    unsealed = msgspec.structs.replace(before.spec, sealed=after.spec.sealed)
    assert after == msgspec.structs.replace(before, spec=unsealed), "only the sealed part changed"
    shown = await api.call("container.one", method="GET", containerId=made["id"])
    assert shown["pendingChanges"] == []
    assert await node.told() == {}
    await api.call("registry.update", registryId=first["id"], name="renamed")
    assert await node.told() == {}, "a name is not told"
    await api.call("registry.remove", 204, method="DELETE", registryId=first["id"])
    assert (await node.told())[there][1] == InstanceSecrets()
    async with api.store.read() as conn:
        record = await instances.get(conn, there)
    assert record is not None
    assert (record.phase, record.attempt, record.goal) == (Phase.RUNNING, 0, "run")


async def test_which_registry_applies(api: Api, home: Home) -> None:
    node_id = await enrolled(api, home, "n1")
    by_host = await add(api, home, name="a", credentials={"username": "by-host", "password": "x"})
    named = await add(api, home, name="b", credentials={"username": "by-name", "password": "x"})
    await add(api, home, name="c", type="Docker", credentials={"username": "hub", "password": "x"})
    image = "ghcr.io/shop/web:1"
    forms: dict[str, dict[str, Any]] = {
        "by-host": {"image": image},
        "by-name": {"image": image, "registryId": named["id"]},
        "own": {"image": image, "credentials": {"username": "own", "password": "x"}},
        "hub": {"image": "web:1"},
        "": {"image": "registry.example/web:1"},
    }
    expected: dict[str, str] = {}
    for number, (username, form) in enumerate(forms.items()):
        made = await make(api, home, name=f"web-{number}", **form)
        expected[await running_instance(api, home, made, node_id)] = username
    source = {"type": "registry", "image": image, "registryId": named["id"]}
    made = await api.call(
        "container.create", 201, projectId=home.project_id, clusterId=home.cluster_id, name="sourced", source=source
    )
    assert made["registryId"] == named["id"]
    expected[await running_instance(api, home, made, node_id)] = "by-name"
    node = Node(api, node_id)
    assert {key: secrets.username for key, (_, secrets) in (await node.told()).items()} == expected
    error = await api.call("registry.update", 400, registryId=named["id"], server="quay.io")
    assert error["message"].startswith("credentials: are to be given again")
    error = await api.call("registry.update", 400, registryId=named["id"], insecure=True)
    assert error["message"].startswith("credentials: are to be given again")
    login = {"username": "moved", "password": "other"}
    await api.call("registry.update", registryId=named["id"], server="quay.io", credentials=login)
    moved = await node.told()
    usernames = {secrets.username for _, secrets in moved.values()}
    assert "" in usernames, "nothing is sent to another server than its own"
    assert "by-name" not in usernames
    assert by_host["server"] == "ghcr.io"


async def test_a_registry_that_does_not_fit_is_refused(api: Api, home: Home) -> None:
    mine = await add(api, home)
    fits = {"image": "ghcr.io/shop/web:1", "registryId": mine["id"]}
    error = await make(api, home, expect=400, **{**fits, "image": "quay.io/shop/web:1"})
    assert error["message"] == "registryId: is of ghcr.io, and the image is from quay.io"
    error = await make(api, home, expect=400, **fits, credentials=LOGIN)
    assert error["message"].startswith("registryId: give either")
    error = await make(api, home, expect=400, **{**fits, "registryId": "reg_none"})
    assert error["message"] == "registryId: no such registry in this organisation"
    other = await api.as_user("else@example.com")
    theirs = await other.call("organization.create", 201, name="Others")
    foreign = await add(other, replace(home, organization_id=theirs["id"]))
    error = await make(api, home, expect=400, **{**fits, "registryId": foreign["id"]})
    assert error["message"] == "registryId: no such registry in this organisation"
    made = await make(api, home, **fits)
    await api.call("container.deploy", 400, containerId=made["id"], image="quay.io/shop/web:2")


async def test_another_organisations_registry_never_applies(api: Api, home: Home) -> None:
    other = await api.as_user("else@example.com")
    theirs = await other.call("organization.create", 201, name="Others")
    await add(other, replace(home, organization_id=theirs["id"]))
    node_id = await enrolled(api, home, "n1")
    made = await make(api, home, image="ghcr.io/shop/web:1")
    there = await running_instance(api, home, made, node_id)
    assert (await Node(api, node_id).told())[there][1] == InstanceSecrets()


def test_nothing_that_holds_a_secret_shows_it() -> None:
    vault = Vault(b"master-key-bytes-" + b"k" * 15)
    assert "master-key" not in repr(vault)
    secrets = InstanceSecrets({"A": PASSWORD}, "me", PASSWORD)
    assert PASSWORD not in repr(secrets)
    assert PASSWORD not in repr([logins()])


async def test_what_is_inherited_is_told_under_what_the_container_sets_itself(api: Api, home: Home) -> None:
    node_id = await enrolled(api, home, "n1")
    for key, value, secret in (("A", "1", False), ("B", "hush", True), ("C", "hidden", True)):
        where = {"organizationId": home.organization_id}
        await api.call("secret.create", 201, key=key, value=value, secret=secret, **where)
    made = await make(api, home, env=[{"key": "C", "value": "own"}, {"key": "D", "value": "4"}])
    there = await running_instance(api, home, made, node_id)
    assignment, secrets = (await Node(api, node_id).told())[there]
    assert assignment.spec is not None
    assert {var.key: var.value for var in assignment.spec.env} == {"A": "1", "C": "own", "D": "4"}
    assert secrets.env == {"B": "hush"}
