"""A courier between a real buffer and real endpoints: retries, refusals, slowness, restarts."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from coordinator.logs.drains.courier import Courier
from coordinator.logs.drains.lines import Line, Origin
from coordinator.logs.drains.making import make_target
from coordinator.logs.drains.spool import Spool
from coordinator.store.log_drains import DrainConfig, DrainFilter, DrainSecret, DrainType, LogDrainRecord
from shared.kit.backoff import Backoff
from shared.kit.clock import SystemClock
from tests.fakes.receiver import Receiver
from tests.fakes.seeds import until

ORIGIN = Origin("org_1", "proj_1", "shop", "env_1", "production", "ctr_1", "web", "inst_1", "node_1")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().running() as started:
        yield started


def record(url: str, kind: DrainType = "http", **config: object) -> LogDrainRecord:
    return LogDrainRecord(
        id="drain_1",
        organization_id="org_1",
        name="mine",
        type=kind,
        config=msgspec.convert({"url": url, **config}, DrainConfig),
        created_by="user_1",
        created_at=0.0,
        updated_at=0.0,
    )


@asynccontextmanager
async def carrying(
    declared: LogDrainRecord, directory: Path, secret: DrainSecret | None = None, limit: int = 1 << 20
) -> AsyncIterator[Courier]:
    spool = await asyncio.to_thread(Spool.open, directory, limit)
    target = await asyncio.to_thread(make_target, declared.type, declared.config, secret or DrainSecret())
    backoff = Backoff(base=0.01, ceiling=0.05, draw=lambda: 1.0)
    courier = Courier(declared, spool, target, SystemClock(), backoff)
    task = asyncio.create_task(courier.run())
    try:
        yield courier
    finally:
        await courier.farewell(task)
        await courier.close()
        await asyncio.to_thread(spool.close)


async def give(courier: Courier, *texts: str) -> None:
    for number, text in enumerate(texts):
        courier.offer(ORIGIN, Line(1_700_000_000 * 10**9 + number, 0, 1, text))
    await courier.store(courier.take_pending())


async def delivered(courier: Courier, count: int) -> None:
    async def enough() -> bool:
        return courier.status.delivered >= count

    await until(enough, f"{count} lines arrived")


async def test_lines_arrive_with_their_headers(receiver: Receiver, tmp_path: Path) -> None:
    declared = record(receiver.url + "/in?x=1", auth="bearer", header_names=["X-Tenant"])
    secret = DrainSecret(credential="s3cret-token", headers={"X-Tenant": "acme"})
    async with carrying(declared, tmp_path, secret) as courier:
        await give(courier, "a", "b")
        await delivered(courier, 2)
        status = courier.status
    (request,) = receiver.accepted
    assert receiver.lines() == ["a", "b"]
    assert request.path == "/in"
    assert request.headers["authorization"] == "Bearer s3cret-token"
    assert request.headers["x-tenant"] == "acme"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["content-encoding"] == "gzip"
    assert (status.state, status.delivered, status.dropped, status.buffered) == ("delivering", 2, 0, 0)
    assert status.last_delivered_at is not None
    assert status.last_error is None


async def test_basic_auth_and_no_compression(receiver: Receiver, tmp_path: Path) -> None:
    declared = record(receiver.url, auth="basic", username="me", gzip=False)
    async with carrying(declared, tmp_path, DrainSecret(credential="pa:ss")) as courier:
        await give(courier, "a")
        await delivered(courier, 1)
    assert receiver.requests[0].headers["authorization"] == "Basic bWU6cGE6c3M="
    assert "content-encoding" not in receiver.requests[0].headers
    assert receiver.lines() == ["a"]


async def test_a_failing_endpoint_is_tried_again_in_order_and_says_why(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers.extend([(500, {}, "on fire"), (429, {"Retry-After": "0"}, ""), (401, {}, "who are you")])
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, "a")
        await give(courier, "b")
        await delivered(courier, 2)
        assert courier.status.last_error is not None
        assert courier.status.last_error.endswith("answered 401: who are you")
        assert courier.status.state == "delivering"
    assert receiver.lines() == ["a", "b"]
    assert len(receiver.requests) >= 4


async def test_while_it_fails_the_state_says_so_and_lines_wait(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers.extend([(503, {}, "")] * 10_000)
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, "a", "b")

        async def failing() -> bool:
            return courier.status.state == "failing"

        await until(failing)
        assert (courier.status.buffered, courier.status.delivered) == (2, 0)
        receiver.answers.clear()
        await delivered(courier, 2)
        assert courier.status.state == "delivering"


async def test_retry_after_is_kept(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers.append((503, {"Retry-After": "1"}, ""))
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, "a")
        began = asyncio.get_running_loop().time()
        await delivered(courier, 1)
        assert asyncio.get_running_loop().time() - began >= 0.9


async def test_what_is_refused_for_good_is_dropped_and_counted(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers.append((400, {}, "entry too far behind"))
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, "bad")

        async def dropped() -> bool:
            return courier.status.dropped == 1

        await until(dropped)
        assert "entry too far behind" in (courier.status.last_error or "")
        await give(courier, "good")
        await delivered(courier, 1)
    assert receiver.lines() == ["good"]


async def test_too_large_a_batch_is_halved_until_it_fits(receiver: Receiver, tmp_path: Path) -> None:
    receiver.body_limit = 3000
    texts = [f"{number:04d}" for number in range(100)]
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, *texts)
        await delivered(courier, 100)
        await give(courier, "x" * 5000, "fits")
        await delivered(courier, 101)
        assert courier.status.dropped == 1, "one line that is too large by itself"
    assert receiver.lines() == [*texts, "fits"]


async def test_secrets_never_show_in_errors(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers.append((403, {}, "bad token s3cret-token for acme-key"))
    secret = DrainSecret(credential="s3cret-token", headers={"X-Key": "acme-key"})
    async with carrying(record(receiver.url, auth="bearer"), tmp_path, secret) as courier:
        await give(courier, "a")
        await delivered(courier, 1)
        assert courier.status.last_error is not None
        assert courier.status.last_error.endswith("bad token *** for ***")


async def test_redirects_are_not_followed(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers.append((307, {"Location": receiver.url + "/elsewhere"}, ""))
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, "a")
        await delivered(courier, 1)
        assert "answered 307" in (courier.status.last_error or "")
    assert {request.path for request in receiver.requests} == {"/"}


async def test_nobody_there_then_somebody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    async with carrying(record(f"http://127.0.0.1:{port}"), tmp_path) as courier:
        await give(courier, "a", "b")

        async def failing() -> bool:
            return courier.status.state == "failing"

        await until(failing)
        assert f"127.0.0.1:{port}" in (courier.status.last_error or "")
        async with Receiver().running(port) as late:
            await delivered(courier, 2)
            assert late.lines() == ["a", "b"]


async def test_a_restart_delivers_what_was_buffered_once_each(receiver: Receiver, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    async with carrying(record(f"http://127.0.0.1:{port}"), tmp_path) as courier:
        for number in range(20):
            await give(courier, f"line {number}")
    async with carrying(record(receiver.url), tmp_path) as courier:
        assert courier.status.buffered + courier.status.delivered == 20
        await delivered(courier, 20)
    async with carrying(record(receiver.url), tmp_path) as courier:
        assert (courier.status.buffered, courier.status.delivered) == (0, 20)
    assert receiver.lines() == [f"line {number}" for number in range(20)]


async def test_a_full_buffer_drops_the_oldest_and_tells_the_other_side(receiver: Receiver, tmp_path: Path) -> None:
    receiver.open.clear()
    async with carrying(record(receiver.url), tmp_path, limit=256 * 1024) as courier:
        for number in range(600):
            await give(courier, f"{number:04d} " + "x" * 1000)
        assert courier.status.dropped > 0
        receiver.open.set()

        async def empty() -> bool:
            return courier.status.buffered == 0

        await until(empty)
        status = courier.status
    assert status.delivered + status.dropped == 600
    numbers = [int(line[:4]) for line in receiver.lines()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 599
    (notice,) = receiver.notices()
    assert notice["dropped"] == status.dropped
    assert f"{status.dropped} lines were dropped" in notice["line"]


async def test_an_orderly_stop_waits_for_what_is_under_way(receiver: Receiver, tmp_path: Path) -> None:
    receiver.open.clear()
    async with carrying(record(receiver.url), tmp_path) as courier:
        await give(courier, "a")

        async def asked() -> bool:
            return bool(receiver.requests)

        await until(asked)
        asyncio.get_running_loop().call_later(0.2, receiver.open.set)
    async with carrying(record(receiver.url), tmp_path) as courier:
        assert courier.status.delivered == 1
    assert receiver.lines() == ["a"]


async def test_filters(receiver: Receiver, tmp_path: Path) -> None:
    declared = record(receiver.url, filter={"container_id": "ctr_1", "search": "yes"})
    async with carrying(declared, tmp_path) as courier:
        other = msgspec.structs.replace(ORIGIN, container_id="ctr_2")
        courier.offer(other, Line(1, 0, 1, "yes, of another"))
        courier.offer(ORIGIN, Line(1, 0, 1, "no"))
        courier.offer(ORIGIN, Line(1, 0, 0, "a gap is told whatever is searched for", 3))
        await give(courier, "oh yes")
        await delivered(courier, 2)
        assert courier.status.dropped == 3
        assert not courier.wants(other)
    assert receiver.lines() == ["oh yes"]
    assert [notice["dropped"] for notice in receiver.notices()] == [3]
    assert DrainFilter() == DrainConfig(url="").filter


async def test_loki(receiver: Receiver, tmp_path: Path) -> None:
    async with carrying(record(receiver.url, "loki", labels={"a": "b"}), tmp_path) as courier:
        await give(courier, "x")
        await delivered(courier, 1)
    (request,) = receiver.accepted
    assert request.path == "/loki/api/v1/push"
    assert msgspec.json.decode(request.body)["streams"][0]["stream"]["a"] == "b"


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
async def test_otlp_with_a_partial_refusal(receiver: Receiver, tmp_path: Path, encoding: str) -> None:
    if encoding == "json":
        receiver.answers.append((200, {}, '{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}'))
    else:
        told = ExportLogsServiceResponse()
        told.partial_success.rejected_log_records = 1
        told.partial_success.error_message = "too old"
        receiver.answers.append((200, {}, told.SerializeToString().decode()))
    async with carrying(record(receiver.url, "otlp", encoding=encoding), tmp_path) as courier:
        await give(courier, "x", "y")
        await delivered(courier, 1)
        status = courier.status
    assert (status.delivered, status.dropped) == (1, 1)
    assert "too old" in (status.last_error or "")
    (request,) = receiver.accepted
    assert request.path == "/v1/logs"
    if encoding == "protobuf":
        assert request.headers["content-type"] == "application/x-protobuf"
        (found,) = ExportLogsServiceRequest.FromString(request.body).resource_logs
        assert [each.body.string_value for each in found.scope_logs[0].log_records] == ["x", "y"]
