"""Streams of the tenants door: deployments as they go, lines of a release, and readers that come back."""

import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from coordinator.store import containers, deployments
from coordinator.store.database import Tx
from coordinator.store.deployments import DeploymentEvent
from shared.wire.frames import LogLine
from tests.component.api.caller import Api, Home, enrolled, make, running_instance
from tests.component.api.tenants import Tenants, at
from tests.fakes.log_nodes import LogNodes
from tests.fakes.seeds import until

START = 1_700_000_000 * 10**9


@pytest.fixture
def here(api: Api, home: Home) -> Tenants:
    return at(api, home)


@pytest.fixture
async def nodes(api: Api) -> AsyncIterator[LogNodes]:
    made = LogNodes(api.services.broker)
    yield made
    api.services.broker.close()
    await made.close()


def write(nodes: LogNodes, instance_id: str, at_ns: int, *texts: str) -> None:
    nodes.log(instance_id).write(*(LogLine(START + at_ns, 1, text) for text in texts))


def lines(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["line"] for frame in frames if frame["type"] == "log"]


class Story:
    """A deployment that is told about as the rollouts do it."""

    def __init__(self, here: Tenants, deployment_id: str) -> None:
        self._here = here
        self.id = deployment_id
        self.path = f"./deployments/{deployment_id}/stream"
        self._events: list[DeploymentEvent] = []

    async def tell(self, *messages: str, keep: int = 100, **changes: Any) -> None:
        told = self._events[-1].seq if self._events else 0
        self._events += [DeploymentEvent(float(told + nth), text, told + nth) for nth, text in enumerate(messages, 1)]
        self._events = self._events[-keep:]

        async def unit(tx: Tx) -> None:
            assert await deployments.change(tx, self.id, events=self._events, **changes)

        await self._here.api.store.write(unit)

    async def end(self, status: str, error: str = "") -> None:
        await self.tell("over", status=status, active=False, error=error, finished_at=9.0)


@pytest.fixture
async def story(here: Tenants, home: Home) -> Story:
    return Story(here, (await make(here.api, home))["deploymentId"])


# --- deployments


async def test_a_deployment_is_told_until_it_has_ended(here: Tenants, story: Story) -> None:
    await story.tell("began")
    reading = await here.follow(story.path)
    assert reading.exchange.headers["content-type"].startswith("text/event-stream")
    assert await reading.some(2) == [
        {"type": "log", "seq": 1, "ts": "1970-01-01T00:00:01.000Z", "line": "began", "id": "1"},
        {"type": "status", "status": "in_progress", "id": "1"},
    ]
    await story.tell("went on", "and on")
    assert [frame["id"] for frame in (await reading.some(4))[2:]] == ["2", "3"]
    await story.end("failed", "it would not start")
    await reading.exchange.ended()
    assert reading.frames()[4:] == [
        {"type": "log", "seq": 4, "ts": "1970-01-01T00:00:04.000Z", "line": "over", "id": "4"},
        {"type": "status", "status": "failed", "id": "4"},
        {"type": "done", "status": "failed", "error": "it would not start", "id": "4"},
    ]


async def test_what_has_ended_is_told_at_once(here: Tenants, story: Story) -> None:
    await story.tell("began")
    await story.end("succeeded")
    reading = await here.follow(story.path)
    await reading.exchange.ended()
    assert [frame["type"] for frame in reading.frames()] == ["log", "log", "status", "done"]


async def test_a_reader_of_a_deployment_comes_back_where_it_was(here: Tenants, story: Story) -> None:
    """By header, which is newer than what the address says; events that are no longer kept keep their numbers."""
    await story.tell("a", "b")
    first = await here.follow(story.path)
    assert lines(await first.some(3)) == ["a", "b"]
    last = (await first.leave())[-1]["id"]
    await story.tell("c", "d", keep=3)
    second = await here.follow(f"{story.path}?after=1", last)
    assert lines(await second.some(3)) == ["c", "d"]
    await second.leave()
    third = await here.follow(f"{story.path}?after=3")
    assert lines(await third.some(2)) == ["d"]
    await third.leave()


@pytest.mark.parametrize("place", ["x", "-1", "1.5", "9" * 30])
async def test_a_place_that_is_none_is_bad_input(here: Tenants, story: Story, place: str) -> None:
    for query, header in ((f"?after={place}", ""), ("", place)):
        answer = await (await here.follow(story.path + query, header)).exchange.ended()
        assert answer.status == 400
        assert b'"statusCode":400' in answer.body
        assert b'"message":"after: ' in answer.body


async def test_the_stream_ends_with_the_readers_right_to_it(here: Tenants, home: Home, story: Story) -> None:
    viewer = await here.api.as_user("view@example.test", "viewer", home.organization_id)
    reading = await Tenants(viewer, here.tenant_id).follow(story.path)
    await reading.some(1)
    me = await viewer.call("user.me", method="GET")
    await here.api.call("orgTeam.remove", 204, method="DELETE", organizationId=home.organization_id, userId=me["id"])
    await reading.exchange.ended()
    assert [frame["type"] for frame in reading.frames()] == ["status"], "without `done`: asked again, it says why"


async def test_the_stream_ends_when_the_coordinator_stops_and_says_it_is_not_done(here: Tenants, story: Story) -> None:
    reading = await here.follow(story.path)
    await reading.some(1)
    here.api.services.broker.close()
    await reading.exchange.ended()
    assert [frame["type"] for frame in reading.frames()] == ["status"]


# --- lines of a release


async def release_with_lines(here: Tenants, home: Home, nodes: LogNodes) -> tuple[dict[str, Any], list[str], str]:
    """(container, instances on two nodes, the path of the lines)."""
    made = await make(here.api, home)
    found = []
    for slot in range(2):
        node_id = await enrolled(here.api, home, f"n{slot}")
        found.append(await running_instance(here.api, home, made, node_id, slot))
        nodes.log(found[-1])
    return made, found, f"./releases/{made['release']['id']}/runtime-logs"


async def test_lines_are_read_from_the_last_one_on(here: Tenants, home: Home, nodes: LogNodes) -> None:
    _, (first, second), path = await release_with_lines(here, home, nodes)
    write(nodes, first, 1, "a", "b")
    write(nodes, second, 2, "c")
    write(nodes, first, 3, "d")
    whole = await here.get(path)
    assert [line["line"] for line in whole] == ["a", "b", "c", "d"]
    assert set(whole[0]) == {"ts", "instanceId", "nodeId", "stream", "line", "dropped", "cursor"}
    assert [line["line"] for line in await here.get(path, limit=2)] == ["c", "d"]
    assert await here.get(path, after=whole[3]["cursor"]) == []
    for number in range(3):
        rest = await here.get(path, after=whole[number]["cursor"])
        assert [line["line"] for line in rest] == ["a", "b", "c", "d"][number + 1 :]
    (next_one,) = await here.get(path, after=whole[0]["cursor"], limit=1)
    assert next_one == whole[1]
    write(nodes, second, 3, "e")
    assert [line["line"] for line in await here.get(path, after=whole[3]["cursor"])] == ["e"]


async def test_only_what_runs_the_release_is_read(here: Tenants, home: Home, nodes: LogNodes) -> None:
    made, (first, second), path = await release_with_lines(here, home, nodes)
    deployed = await here.api.call("container.deploy", containerId=made["id"], image="web:2")
    later = await here.api.call("container.deployment", method="GET", deploymentId=deployed["deploymentId"])
    node_id = await enrolled(here.api, home, "n9")
    new = {**made, "release": {"id": later["releaseId"]}}
    newer = await running_instance(here.api, home, new, node_id, 2)
    write(nodes, first, 1, "old")
    write(nodes, newer, 2, "new")
    nodes.log(second)
    assert [line["line"] for line in await here.get(path)] == ["old"]
    there = f"./releases/{later['releaseId']}/runtime-logs"
    assert [line["line"] for line in await here.get(there)] == ["new"]


async def test_a_node_that_is_away_is_said(here: Tenants, home: Home, nodes: LogNodes) -> None:
    _, (first, second), path = await release_with_lines(here, home, nodes)
    write(nodes, first, 1, "a")
    nodes.away.add((await here.api.call("cluster.nodes", method="GET", clusterId=home.cluster_id))[1]["id"])
    found = await here.get(path)
    assert [line["line"] for line in found if line["stream"] != "argosy"] == ["a"]
    (notice,) = [line for line in found if line["stream"] == "argosy"]
    assert notice["instanceId"] == second
    assert "not connected" in notice["line"]


async def test_lines_are_streamed_instances_are_joined_and_the_end_is_said(
    here: Tenants, home: Home, nodes: LogNodes
) -> None:
    made, (first, _), path = await release_with_lines(here, home, nodes)
    write(nodes, first, 1, "a")
    reading = await here.follow(f"{path}/stream")
    (frame,) = await reading.some(1)
    assert set(frame) == {"type", "cursor", "ts", "instanceId", "nodeId", "stream", "line", "dropped", "id"}
    assert (frame["type"], frame["line"], frame["id"]) == ("log", "a", frame["cursor"])
    node_id = await enrolled(here.api, home, "n9")
    late = await running_instance(here.api, home, made, node_id, 2)
    write(nodes, late, 2, "b")
    assert lines(await reading.some(2)) == ["a", "b"]
    await here.api.call("container.remove", 204, containerId=made["id"])
    await here.api.store.write(partial(_purged, container_id=made["id"]))
    await reading.exchange.ended()
    assert reading.frames()[2:] == [{"type": "done", "status": None, "error": None}]


async def _purged(tx: Any, container_id: str) -> None:
    await tx.conn.exec_driver_sql(f"UPDATE instance SET phase = 512 WHERE container_id = '{container_id}'")
    assert await containers.purge(tx, container_id)


async def test_when_the_coordinator_stops_nothing_is_done(here: Tenants, home: Home, nodes: LogNodes) -> None:
    _, (first, _), path = await release_with_lines(here, home, nodes)
    write(nodes, first, 1, "a")
    reading = await here.follow(f"{path}/stream")
    await reading.some(1)
    here.api.services.broker.close()
    await reading.exchange.ended()
    assert [frame["type"] for frame in reading.frames()] == ["log"]


@pytest.mark.parametrize("seed", range(3))
async def test_readers_that_come_back_miss_no_line_and_see_none_twice(
    seed: int, here: Tenants, home: Home, nodes: LogNodes
) -> None:
    """Many lines of one time, on two nodes; readers leave wherever they are and come back by header or address, or just ask."""
    _, targets, path = await release_with_lines(here, home, nodes)
    rng = random.Random(seed)
    got: list[str] = []
    cursor, at_ns, written = "", 0, 0
    while written < 200 or len(got) < written:
        for _ in range(min(rng.randrange(1, 40), 200 - written)):
            at_ns += rng.choice([0, 0, 1])
            write(nodes, rng.choice(targets), at_ns, str(written))
            written += 1
        if rng.random() < 0.3:
            behind = {"after": cursor, "limit": rng.randrange(1, 60)} if cursor else {"limit": 500}
            found = await here.get(path, **behind)
        else:
            by_header = rng.random() < 0.5
            query = "?limit=500" if by_header or not cursor else f"?after={cursor}"
            reading = await here.follow(f"{path}/stream{query}", cursor if by_header else "")
            found = await reading.some(min(written - len(got), rng.randrange(0, 30)))
            await reading.leave()
        for line in found:
            got.append(line["line"])
            cursor = line["cursor"]
    assert sorted(map(int, got)) == list(range(200))


@pytest.mark.parametrize("cursor", ["AAAA", "x", "!"])
async def test_a_cursor_that_is_none_is_refused(here: Tenants, home: Home, nodes: LogNodes, cursor: str) -> None:
    _, _, path = await release_with_lines(here, home, nodes)
    assert (await here.get(path, 400, after=cursor))["message"].startswith("after: ")
    answer = await (await here.follow(f"{path}/stream", cursor)).exchange.ended()
    assert (answer.status, b'"message":"after: ' in answer.body) == (400, True)


async def test_whoever_asks_for_the_head_only_holds_no_stream(here: Tenants, story: Story) -> None:
    watching = len(here.api.store.changes._subscriptions)
    asked = await here.ask("HEAD", story.path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"].startswith("text/event-stream")
    assert len(here.api.store.changes._subscriptions) == watching


async def test_nothing_is_left_of_readers_that_have_gone(here: Tenants, story: Story) -> None:
    watching = len(here.api.store.changes._subscriptions)
    open_ones = [await here.follow(story.path) for _ in range(3)]
    for one in open_ones:
        await one.some(1)
        await one.leave()

    async def unwatched() -> bool:
        return len(here.api.store.changes._subscriptions) == watching

    await until(unwatched, "the end of what woke them")
