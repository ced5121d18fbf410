"""The prober against real sockets on the loopback and a fake runtime."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from agent.core.faults import EngineUnreachable
from agent.core.health import HealthState
from agent.core.observe import Observed
from agent.probes.failure import ProbeFailed
from agent.probes.http import probe_http
from agent.probes.prober import PROBES_AT_ONCE, Prober
from agent.probes.targets import Target, targets
from agent.probes.tcp import probe_tcp
from shared.kit.clock import SystemClock
from shared.spec.container import HealthCheck, Port, Security
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec, PortBinding
from tests.fakes.runtime import FakeRuntime

LOCAL = "127.0.0.1"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Web:
    """Answers what it is told to."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.port = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            await self.hold.wait()
            writer.write(self.answer)
            await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def listening(web: Web, port: int = 0) -> AsyncIterator[Web]:
    server = await asyncio.start_server(web.serve, LOCAL, port)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        web.hold.set()
        server.close()
        await server.wait_closed()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with listening(Web()) as web:
        yield web


async def failure(probe: Awaitable[None]) -> str:
    with pytest.raises(ProbeFailed) as caught:
        await probe
    return caught.value.message


# --- one probe


@pytest.mark.parametrize("status", [200, 204, 301, 399])
async def test_these_pass(web: Web, status: int) -> None:
    web.answer = b"HTTP/1.1 %d x\r\nLocation: http://elsewhere.invalid/\r\n\r\n" % status
    await probe_http(LOCAL, web.port, "/health?deep=1", 5)
    head = web.asked[0].split(b"\r\n")
    assert head[0] == b"GET /health?deep=1 HTTP/1.1"
    assert b"Host: 127.0.0.1:%d" % web.port in head


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_these_fail_in_words(web: Web, status: int) -> None:
    web.answer = b"HTTP/1.0 %d x\r\n\r\n" % status
    assert await failure(probe_http(LOCAL, web.port, "/", 5)) == f"answered {status}"


async def test_informational_answers_are_not_the_answer(web: Web) -> None:
    web.answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 503 No\r\n\r\n"
    assert await failure(probe_http(LOCAL, web.port, "/", 5)) == "answered 503"


async def test_the_body_does_not_matter(web: Web) -> None:
    web.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000
    await probe_http(LOCAL, web.port, "/", 5)


async def test_no_path_ends_the_request_line(web: Web) -> None:
    await probe_http(LOCAL, web.port, "/a b\r\nX: y/é", 5)
    assert web.asked[0].startswith(b"GET /a%20b%0D%0AX:%20y/%C3%A9 HTTP/1.1\r\nHost:")


async def test_silence(web: Web) -> None:
    web.hold.clear()
    assert await failure(probe_http(LOCAL, web.port, "/", 0.1)) == f"no answer from {LOCAL}:{web.port} in 0.1 s"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"\x00\x01\r\n", b"x" * 100_000])
async def test_what_is_not_http(web: Web, answer: bytes) -> None:
    web.answer = answer
    assert await failure(probe_http(LOCAL, web.port, "/", 5)) == f"{LOCAL}:{web.port} does not speak HTTP"


async def test_a_connection_closed_without_an_answer(web: Web) -> None:
    web.answer = b""
    assert "without an answer" in await failure(probe_http(LOCAL, web.port, "/", 5))


async def test_refused_and_accepted(web: Web) -> None:
    await probe_tcp(LOCAL, web.port, 5)
    async with listening(Web()) as other:
        free = other.port
    for probe in (probe_tcp(LOCAL, free, 5), probe_http(LOCAL, free, "/", 5)):
        assert await failure(probe) == f"connection refused on {LOCAL}:{free}"


# --- where


def spec(**fields: object) -> InstanceSpec:
    return InstanceSpec("web:1", **fields)  # type: ignore[arg-type]


def running(**fields: object) -> Observed:
    return Observed("engine_1", "ins_1", "00ff", "running", pid=7, **fields)  # type: ignore[arg-type]


BOUND = [PortBinding(8080, 49153, "10.0.0.1")]


def test_the_containers_own_address_is_first() -> None:
    found = targets(spec(), HealthCheck(port=8080), running(ip="172.17.0.2", ports=BOUND), direct=True)
    assert found == [Target("172.17.0.2", 8080), Target(LOCAL, 49153), Target("10.0.0.1", 49153)]


def test_a_remote_engine_is_reached_by_its_published_port_only() -> None:
    found = targets(spec(), HealthCheck(port=8080), running(ip="172.17.0.2", ports=BOUND), direct=False)
    assert found == [Target("10.0.0.1", 49153)]


def test_the_hosts_network() -> None:
    host = spec(security=Security(host_network=True))
    assert targets(host, HealthCheck(port=81), running(), direct=True) == [Target(LOCAL, 81)]


def test_without_a_port_of_its_own_the_first_declared_counts() -> None:
    declared = spec(ports=[Port(53, protocol="udp"), Port(8080), Port(9090)])
    found = targets(declared, HealthCheck(), running(ip="172.17.0.2"), direct=True)
    assert found == [Target("172.17.0.2", 8080)]
    assert targets(spec(), HealthCheck(), running(ip="172.17.0.2"), direct=True) == []


# --- the prober


class Senses:
    """A prober and what it told."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self.changes: list[str] = []
        self.prober = Prober(runtime, SystemClock(), self.changes.append)

    def watch(self, check: HealthCheck | None, observed: Observed, **fields: object) -> None:
        assignment = Assignment("ins_1", "con_1", "web", 0, 1, "00ff", spec=spec(health_check=check, **fields))
        self.prober.watch(assignment, observed)

    async def until(self, holds: Callable[[HealthState], bool]) -> HealthState:
        async with asyncio.timeout(15):
            while (state := self.prober.health("ins_1")) is None or not holds(state):
                await asyncio.sleep(0.005)
        return state


@pytest.fixture
async def runtime() -> FakeRuntime:
    fake = FakeRuntime()
    fake.images["web:1"] = "sha256:web"
    return fake


@pytest.fixture
async def senses(runtime: FakeRuntime) -> AsyncIterator[Senses]:
    senses = Senses(runtime)
    yield senses
    await senses.prober.close()


def local(started_at: float | None = None) -> Observed:
    return running(ip=LOCAL, started_at=started_at)


async def test_without_a_check_running_is_healthy(senses: Senses) -> None:
    senses.watch(None, local())
    state = senses.prober.health("ins_1")
    assert state is not None
    assert state.health == "healthy"
    assert senses.prober.health("ins_2") is None


async def test_ready_is_seen_long_before_the_interval(senses: Senses) -> None:
    clock = asyncio.get_running_loop().time
    async with listening(Web()) as gone:
        port = gone.port
    senses.watch(HealthCheck(port=port, interval=3600, start_period=60), local())
    state = await senses.until(lambda state: state.last_error != "")
    assert (state.health, state.last_error) == ("starting", f"connection refused on {LOCAL}:{port}")
    begun = clock()
    async with listening(Web(), port):
        await senses.until(lambda state: state.health == "healthy")
    assert clock() - begun < 5
    assert set(senses.changes) == {"ins_1"}


async def test_failures_count_at_the_interval(senses: Senses, web: Web) -> None:
    web.answer = b"HTTP/1.1 503 No\r\n\r\n"
    senses.watch(HealthCheck(port=web.port, interval=1, retries=2, start_period=0), local())
    state = await senses.until(lambda state: state.health == "unhealthy")
    assert state.last_error == "answered 503"
    assert state.failing_since is not None
    web.answer = b"HTTP/1.1 200 OK\r\n\r\n"
    await senses.until(lambda state: state.health == "healthy")
    assert len(senses.changes) >= 3


async def test_tcp(senses: Senses, web: Web) -> None:
    senses.watch(HealthCheck(type="tcp", port=web.port), local())
    await senses.until(lambda state: state.health == "healthy")


async def test_exec_by_the_runtime(senses: Senses, runtime: FakeRuntime) -> None:
    command = ["check"]
    runtime.executions[("check",)] = (3, "db: no\nconnection\n")
    assignment = Assignment("ins_1", "con_1", "web", 0, 1, "00ff", spec=spec())
    engine_id = await runtime.create(assignment, InstanceSecrets())
    await runtime.start(engine_id)
    observed = await runtime.inspect(engine_id)
    assert observed is not None
    runtime.fail("execute", EngineUnreachable("away"))
    senses.watch(HealthCheck(type="exec", command=command, interval=1, retries=1, start_period=0), observed)
    state = await senses.until(lambda state: state.health == "unhealthy")
    assert state.last_error == "the command ended with 3: db: no connection"
    assert state.failures == 1, "the engine's absence was not counted"
    runtime.executions[("check",)] = (0, "")
    await senses.until(lambda state: state.health == "healthy")


async def test_exec_that_hangs(senses: Senses, runtime: FakeRuntime) -> None:
    runtime.gates["execute"] = asyncio.Event()
    check = HealthCheck(type="exec", command=["check"], timeout=1, interval=1, retries=1, start_period=0)
    senses.watch(check, local())
    state = await senses.until(lambda state: state.health == "unhealthy")
    assert state.last_error == "the command did not end in 1 s"
    runtime.gates["execute"].set()


async def test_checks_that_hang_keep_no_other_from_being_asked(
    senses: Senses, runtime: FakeRuntime, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.probes.prober.SLOT_SECONDS", 0.05)
    runtime.gates["execute"] = asyncio.Event()
    hanging = spec(health_check=HealthCheck(type="exec", command=["check"], timeout=60))
    for number in range(PROBES_AT_ONCE):
        name = f"hanging_{number}"
        senses.prober.watch(Assignment(name, "con_2", "web", number, 1, "00ff", spec=hanging), local())
    async with asyncio.timeout(10):
        while runtime.count("execute") < PROBES_AT_ONCE:
            await asyncio.sleep(0.001)
    senses.watch(HealthCheck(type="tcp", port=web.port), local())
    await senses.until(lambda state: state.health == "healthy")


async def test_a_new_start_begins_anew_and_the_same_goes_on(senses: Senses, web: Web) -> None:
    now = SystemClock().wall()
    check = HealthCheck(port=web.port)
    senses.watch(check, local(started_at=now))
    await senses.until(lambda state: state.health == "healthy")
    senses.watch(check, local(started_at=now))
    state = senses.prober.health("ins_1")
    assert state is not None
    assert state.health == "healthy"
    senses.watch(check, running(started_at=None))
    state = senses.prober.health("ins_1")
    assert state is not None
    assert state.health == "healthy", "an engine that only lists it does not say it was started anew"
    web.hold.clear()
    senses.watch(check, local(started_at=now + 1))
    state = senses.prober.health("ins_1")
    assert state is not None
    assert state.health == "starting"
    web.hold.set()
    await senses.until(lambda state: state.health == "healthy")


async def test_what_runs_for_long_has_no_start_period_left(senses: Senses, web: Web) -> None:
    web.answer = b"HTTP/1.1 500 No\r\n\r\n"
    check = HealthCheck(port=web.port, start_period=600, retries=1)
    senses.watch(check, local(started_at=SystemClock().wall() - 3600))
    await senses.until(lambda state: state.health == "unhealthy")


async def test_an_address_out_of_reach_gives_way_to_the_published_port(senses: Senses, web: Web) -> None:
    # No connection can be made to the broadcast address: the kernel says the network is unreachable, on any machine.
    observed = running(ip="255.255.255.255", ports=[PortBinding(8080, web.port, LOCAL)])
    senses.watch(HealthCheck(port=8080, timeout=1), observed)
    await senses.until(lambda state: state.health == "healthy")


async def test_nothing_to_knock_at_is_said(senses: Senses) -> None:
    senses.watch(HealthCheck(port=8080), running())
    state = await senses.until(lambda state: bool(state.last_error))
    assert "not published" in state.last_error


async def test_forgotten_is_silent(senses: Senses, web: Web) -> None:
    web.hold.clear()
    senses.watch(HealthCheck(port=web.port), local())
    async with asyncio.timeout(10):
        while not web.asked:
            await asyncio.sleep(0.005)
    senses.prober.forget("ins_1")
    web.hold.set()
    await senses.prober.close()
    assert senses.prober.health("ins_1") is None
    assert senses.changes == []
