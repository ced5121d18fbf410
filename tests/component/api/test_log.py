"""log.query and log.stream over nodes with the agent's own streams: selections, limits, who sees what, and coming back."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from coordinator.core.permissions import Role
from coordinator.procedures import log as log_procedures
from coordinator.procedures.container_logs import ReadLogs
from coordinator.procedures.context import Caller, Context
from coordinator.procedures.log import LogEvent, StreamLogs
from coordinator.procedures.table import TABLE, call
from shared.wire.frames import LogLine
from tests.component.api.caller import Api, Home, enrolled, make, running_instance
from tests.fakes.log_nodes import LogNodes
from tests.fakes.seeds import until

SECOND = 10**9
START = 1_700_000_000 * SECOND


@pytest.fixture
async def nodes(api: Api) -> AsyncIterator[LogNodes]:
    made = LogNodes(api.services.broker)
    yield made
    api.services.broker.close()
    await made.close()


async def container(api: Api, home: Home, node_id: str, name: str = "web", **fields: Any) -> tuple[str, str]:
    """(container, instance)."""
    made = await make(api, home, name=name, **fields)
    return made["id"], await running_instance(api, home, made, node_id)


def write(nodes: LogNodes, instance_id: str, at: int, *texts: str, stream: int = 1) -> None:
    nodes.log(instance_id).write(*(LogLine(START + at, stream, text) for text in texts))


async def query(api: Api, home: Home, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await api.call(
        "log.query", method="GET", organizationId=home.organization_id, **fields
    )
    return found


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [line["line"] for line in found if line["stream"] != "argosy"]


# --- query


async def test_lines_of_all_containers_in_order_of_time(api: Api, home: Home, nodes: LogNodes) -> None:
    n1, n2 = await enrolled(api, home, "n1"), await enrolled(api, home, "n2")
    web, i1 = await container(api, home, n1)
    db, i2 = await container(api, home, n2, "db")
    write(nodes, i1, 1, "a")
    write(nodes, i2, 2, "b", stream=2)
    write(nodes, i1, 3, "c")
    found = await query(api, home)
    assert [
        (line["line"], line["containerId"], line["instanceId"], line["nodeId"], line["stream"]) for line in found
    ] == [
        ("a", web, i1, n1, "stdout"),
        ("b", db, i2, n2, "stderr"),
        ("c", web, i1, n1, "stdout"),
    ]
    assert found[0]["ts"] == "2023-11-14T22:13:20.000000001Z"
    assert texts(await query(api, home, limit=2)) == ["b", "c"]
    assert texts(await query(api, home, containerId=db)) == ["b"]
    assert texts(await query(api, home, search="c")) == ["c"]
    assert texts(await query(api, home, projectId=home.project_id, limit=1)) == ["c"]


async def test_a_window_of_time_ends_where_it_says(api: Api, home: Home, nodes: LogNodes) -> None:
    """The newest lines of the window, however much was written after it."""
    node_id = await enrolled(api, home, "n1")
    _, instance_id = await container(api, home, node_id)
    for second in range(60):
        write(nodes, instance_id, second * SECOND, f"s{second}")
    window = {"since": "2023-11-14T22:13:30Z", "until": "2023-11-14T22:13:40Z"}
    assert texts(await query(api, home, limit=3, **window)) == ["s18", "s19", "s20"]
    assert texts(await query(api, home, search="s1", **window)) == [f"s{second}" for second in range(10, 20)]


async def test_a_node_that_is_away_is_said(api: Api, home: Home, nodes: LogNodes) -> None:
    n1, n2 = await enrolled(api, home, "n1"), await enrolled(api, home, "n2")
    _, i1 = await container(api, home, n1)
    db, i2 = await container(api, home, n2, "db")
    write(nodes, i1, 1, "a")
    nodes.away.add(n2)
    found = await query(api, home)
    assert texts(found) == ["a"]
    (notice,) = [line for line in found if line["stream"] == "argosy"]
    assert (notice["containerId"], notice["instanceId"], notice["nodeId"]) == (db, i2, n2)
    assert "not connected" in notice["line"]


async def test_more_instances_than_are_read_are_said(
    api: Api, home: Home, nodes: LogNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_procedures, "MAX_INSTANCES", 2)
    node_id = await enrolled(api, home, "n1")
    for number in range(3):
        _, instance_id = await container(api, home, node_id, f"web-{number}")
        write(nodes, instance_id, number, f"line {number}")
    found = await query(api, home)
    assert texts(found) == ["line 1", "line 2"]
    assert found[0]["stream"] == "argosy"
    assert found[0]["containerId"] is None
    assert "only 2 instances" in found[0]["line"]


async def test_what_takes_too_long_is_cut_and_said(
    api: Api, home: Home, nodes: LogNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_procedures, "QUERY_SECONDS", 0.1)
    n1, n2 = await enrolled(api, home, "n1"), await enrolled(api, home, "n2")
    _, i1 = await container(api, home, n1)
    _, i2 = await container(api, home, n2, "db")
    write(nodes, i1, 1, "a")
    nodes.log(i2)
    monkeypatch.setattr(nodes._node(n2), "subscribe", lambda _: None)
    found = await query(api, home)
    assert texts(found) == ["a"]
    assert "not read to its end" in next(line["line"] for line in found if line["stream"] == "argosy")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"since": "x"}, "since"),
        ({"search": "x" * 300}, "search"),
    ],
)
async def test_bad_input(api: Api, home: Home, fields: dict[str, Any], named: str) -> None:
    error = await api.call("log.query", 400, method="GET", organizationId=home.organization_id, **fields)
    assert error["message"].startswith(named)


async def test_who_sees_what(api: Api, home: Home, nodes: LogNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    node_id = await enrolled(api, home, "n1")
    web, instance_id = await container(api, home, node_id)
    write(nodes, instance_id, 1, "secret")
    stranger = await api.as_user("stranger@example.com")
    fields: dict[str, Any] = {"organizationId": home.organization_id}
    await stranger.call("log.query", 404, method="GET", **fields)
    await stranger.call("log.stream", 404, method="GET", **fields)
    viewer = await api.as_user("viewer@example.com", "viewer", home.organization_id)
    assert texts(await viewer.call("log.query", method="GET", **fields)) == ["secret"]
    billing = await api.as_user("billing@example.com", "billing", home.organization_id)
    await billing.call("log.query", 403, method="GET", **fields)
    own = await stranger.call("organization.create", 201, name="Elsewhere")
    mine: dict[str, Any] = {"organizationId": own["id"]}
    assert await stranger.call("log.query", method="GET", **mine) == []
    foreigners: list[dict[str, Any]] = [{"containerId": web}, {"projectId": home.project_id}]
    for foreign in foreigners:
        await stranger.call("log.query", 404, method="GET", **mine, **foreign)
    # A cluster that the caller may not look into is left out.
    monkeypatch.setattr(log_procedures, "may", lambda role, need, grant=None: False)
    assert await viewer.call("log.query", method="GET", **fields) == []


# --- stream


def context(api: Api, home: Home, role: Role = "viewer", last_event_id: str = "") -> Context:
    caller = Caller("user_x", "x@example.com", {home.organization_id: role})
    return Context(api.services, caller, last_event_id=last_event_id)


async def events(api: Api, home: Home, *, last_event_id: str = "", **fields: Any) -> AsyncIterator[LogEvent]:
    data = StreamLogs(organization_id=home.organization_id, **fields)
    stream = await call(TABLE["log.stream"], context(api, home, last_event_id=last_event_id), data)
    found: AsyncIterator[LogEvent] = stream.events
    return found


async def some(found: AsyncIterator[LogEvent], count: int) -> list[LogEvent]:
    got = []
    async with asyncio.timeout(20):
        async for event in found:
            if event.stream != "argosy":
                got.append(event)
            if len(got) == count:
                return got
    raise AssertionError(f"the stream ended after {got}")


async def test_a_stream_is_a_subscription_whose_events_carry_ids(api: Api, home: Home, nodes: LogNodes) -> None:
    assert TABLE["log.stream"].kind == "subscription"
    node_id = await enrolled(api, home, "n1")
    web, instance_id = await container(api, home, node_id)
    write(nodes, instance_id, 1, "old", "new")
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "text/event-stream"}
    asked = {"organizationId": home.organization_id, "tail": "1"}

    async def close_soon() -> None:
        async def read() -> bool:
            return bool(nodes.sent)

        await until(read)
        await asyncio.sleep(0.6)
        api.services.broker.close()

    closing = asyncio.create_task(close_soon())
    response = await api.client.get("/api/log.stream", params=asked, headers=headers)
    await closing
    frame = next(part for part in response.text.split("\n\n") if "data: " in part)
    identity, data = frame.split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert identity == f"id: {event['cursor']}"
    assert (event["line"], event["containerId"]) == ("new", web)


async def test_new_containers_are_joined_from_their_first_line(
    api: Api, home: Home, nodes: LogNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_procedures, "LOOK_SECONDS", 0.01)
    node_id = await enrolled(api, home, "n1")
    _, i1 = await container(api, home, node_id)
    write(nodes, i1, 1, "a")
    found = await events(api, home, tail=5)
    async with aclosing(found):  # type: ignore[type-var]
        assert [event.line for event in await some(found, 1)] == ["a"]
        made = await make(api, home, name="db")
        nodes.log("unused")
        i2 = await running_instance(api, home, made, node_id)
        write(nodes, i2, -5, "its first", "its second")
        joined = await some(found, 2)
        assert [event.line for event in joined] == ["its first", "its second"]
        assert joined[0].container_id == made["id"]
    back = await events(api, home, cursor=joined[0].cursor)
    async with aclosing(back):  # type: ignore[type-var]
        assert [event.line for event in await some(back, 1)] == ["its second"]


TOTAL = 900


async def flow(nodes: LogNodes, rng: random.Random, node_ids: list[str], targets: list[str], late: Any) -> None:
    """So many lines, several of one time; halfway another instance appears, and now and then a node is away for a moment."""
    at = 0
    for number in range(TOTAL):
        if number == TOTAL // 2:
            targets.append(await late())
        at += rng.choice([0, 1, 1000])
        write(nodes, rng.choice(targets), at, str(number), stream=rng.choice([1, 2]))
        if rng.random() < 0.05:
            await asyncio.sleep(rng.random() * 0.01)
        if rng.random() < 0.01:
            node_id = rng.choice(node_ids)
            nodes.leave(node_id)
            nodes.come_back(node_id)


async def read_a_little(found: AsyncIterator[LogEvent], most: int, got: list[str], cursor: str) -> str:
    """The cursor of the last event."""
    leave_at = min(TOTAL, len(got) + most)
    async with aclosing(found):  # type: ignore[type-var]
        async for event in found:
            cursor = event.cursor or cursor
            if event.stream != "argosy":
                got.append(event.line)
            if len(got) >= leave_at:
                break
    return cursor


@pytest.mark.parametrize("seed", range(6))
async def test_readers_that_come_back_miss_nothing_and_see_nothing_twice(
    seed: int, api: Api, home: Home, nodes: LogNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines flow all the time, many of one time; readers leave wherever they are, nodes too, and come back by cursor or header."""
    monkeypatch.setattr(log_procedures, "LOOK_SECONDS", 0.01)
    rng = random.Random(seed)
    node_ids = [await enrolled(api, home, f"n{number}") for number in range(2)]
    targets = [(await container(api, home, rng.choice(node_ids), f"web-{number}"))[1] for number in range(3)]
    for instance_id in targets:
        nodes.log(instance_id)

    async def late() -> str:
        return (await container(api, home, node_ids[0], "late"))[1]

    got: list[str] = []
    cursor, flowing = "", None
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        while len(got) < TOTAL:
            by_header = rng.random() < 0.5
            came_back = {"last_event_id": cursor} if by_header else {"cursor": cursor}
            found = await events(api, home, tail=1000, **came_back)
            flowing = flowing or group.create_task(flow(nodes, rng, node_ids, targets, late))
            cursor = await read_a_little(found, rng.randrange(1, 300), got, cursor)
    assert sorted(map(int, got)) == list(range(TOTAL))


async def test_a_container_is_followed_again_in_the_same_way(api: Api, home: Home, nodes: LogNodes) -> None:
    node_id = await enrolled(api, home, "n1")
    web, instance_id = await container(api, home, node_id)
    write(nodes, instance_id, 1, "a", "b", "c")

    async def follow(cursor: str) -> Any:
        data = ReadLogs(container_id=web, follow=True, tail=2, cursor=cursor)
        return (await call(TABLE["container.logs"], context(api, home), data)).events

    async with aclosing(await follow("")) as first:
        event = (await some(first, 1))[0]
        assert event.line == "b"
    write(nodes, instance_id, 1, "d")
    async with aclosing(await follow(event.cursor)) as second:
        assert [each.line for each in await some(second, 2)] == ["c", "d"]
    assert set(msgspec.to_builtins(event)) == {"ts", "instanceId", "nodeId", "stream", "line", "dropped", "cursor"}


@pytest.mark.parametrize("cursor", ["AAAA", "x", "AQAAAAAAAAABAAAA"])
async def test_a_cursor_that_is_none_is_bad_input(api: Api, home: Home, nodes: LogNodes, cursor: str) -> None:
    for name in ("cursor", "lastEventId"):
        asked: dict[str, Any] = {"organizationId": home.organization_id, name: cursor}
        error = await api.call("log.stream", 400, method="GET", **asked)
        assert error["message"].startswith("cursor: ")
    headers = {"Authorization": f"Bearer {api.token}", "Last-Event-ID": cursor}
    params = {"organizationId": home.organization_id}
    assert (await api.client.get("/api/log.stream", params=params, headers=headers)).status_code == 400
