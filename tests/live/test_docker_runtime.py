"""The Docker runtime keeps the contract with a real engine, and what the contract cannot say: what exactly the engine was told,
as the docker SDK sees it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.core.faults import EngineUnreachable, RuntimeFault
from agent.runtime.base import LABEL_INSTANCE, LABEL_NODE, EngineEvent
from agent.runtime.docker import DockerRuntime
from agent.runtime.docker_spec import names
from shared.spec import reason
from shared.spec.container import EnvVar, Port, Security
from shared.spec.instance import InstanceSecrets, InstanceVolume
from shared.spec.node import InstanceSample
from tests.component.runtime_contract import NO_SECRETS, PATIENCE, STEADY, Bench, RuntimeContract, lines_of
from tests.hosts import images, registry
from tests.hosts.engines import Host, Lab

pytestmark = pytest.mark.live

PASSWORD = "a good password"
ROOT = Path(__file__).parents[2]


@dataclass
class Shelf:
    """References in a registry that asks for a password."""

    pullable: str
    absent: str
    address: str


@pytest.fixture(scope="module")
def host(lab: Lab) -> Host:
    host = lab.hosts[0]
    host.reset()
    return host


@pytest.fixture(scope="module")
def shelf(lab: Lab, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    address = f"{lab.ci_address}:5050"
    folder: Path = tmp_path_factory.mktemp("registry")
    with registry.start(folder, address, "sailor", PASSWORD, spawn=lab.ci_spawn) as started:
        started.push(host, images.TICK, "team/tick")
        yield Shelf(f"{address}/team/tick:1", f"{address}/team/none:1", address)


@pytest.fixture
async def bench(host: Host, shelf: Shelf) -> AsyncIterator[Bench]:
    witness = host.docker()
    if any(shelf.pullable in image.tags for image in witness.images.list()):
        witness.images.remove(shelf.pullable)
    runtime = DockerRuntime(host.docker_url, "node_contract", lambda: "10.0.0.1")
    secrets = InstanceSecrets(username="sailor", password=PASSWORD)
    bench = Bench(runtime, images.BUSYBOX, shelf.pullable, shelf.absent, secrets)
    yield bench
    if not host.engine_is_on:
        host.start_engine(host.engine_args)
    await bench.tidy()


def shown(host: Host, engine_id: str) -> dict[str, Any]:
    attributes: dict[str, Any] = host.docker().containers.get(engine_id).attrs
    return attributes


async def exhaust(events: AsyncIterator[EngineEvent]) -> None:
    async with asyncio.timeout(PATIENCE):
        async for _ in events:
            pass


class TestDockerRuntime(RuntimeContract):
    async def test_the_engine_is_told_what_was_declared(self, bench: Bench, host: Host) -> None:
        assignment = bench.assignment(
            STEADY,
            env=[EnvVar("MODE", "fast")],
            ports=[Port(8080, 18081)],
            cpu_millis=500,
            memory_bytes=64 * 2**20,
            labels={"team": "a", LABEL_NODE: "forged"},
            volumes=[InstanceVolume("argosy-told", "/data", read_only=True)],
        )
        engine_id = await bench.create(assignment, InstanceSecrets(env={"TOKEN": "s3cret"}))
        told = shown(host, engine_id)
        config, limits = told["Config"], told["HostConfig"]
        assert told["Name"] == f"/{names(assignment)[0]}"
        assert {"MODE=fast", "TOKEN=s3cret"} <= set(config["Env"])
        assert config["Cmd"] == STEADY
        assert config["Labels"]["team"] == "a"
        assert config["Labels"][LABEL_NODE] == "node_contract"
        assert config["StopTimeout"] == 5
        assert limits["NanoCpus"] == 500_000_000
        assert limits["Memory"] == limits["MemorySwap"] == 64 * 2**20
        assert limits["RestartPolicy"]["Name"] == "no"
        assert limits["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
        (mount,) = told["Mounts"]
        assert (mount["Name"], mount["Destination"], mount["RW"]) == ("argosy-told", "/data", False)
        assert host.docker().volumes.get("argosy-told").attrs["Labels"][LABEL_NODE] == "node_contract"
        await bench.runtime.remove(engine_id)
        await bench.runtime.remove_volume("argosy-told")
        assert "argosy-told" not in [volume.name for volume in host.docker().volumes.list()]

    async def test_somebody_elses_things_are_left_alone(self, bench: Bench, host: Host) -> None:
        witness = host.docker()
        assignment = bench.assignment(STEADY)
        stranger = witness.containers.create(images.BUSYBOX, name=names(assignment)[0])
        foreign = witness.containers.create(
            images.BUSYBOX, labels={LABEL_NODE: "node_other", LABEL_INSTANCE: assignment.instance_id}
        )
        witness.volumes.create("not-ours")
        try:
            engine_id = await bench.create(assignment)
            assert shown(host, engine_id)["Name"] == f"/{names(assignment)[1]}", "the short name was taken"
            assert {one.engine_id for one in await bench.runtime.observe()} == {engine_id}
            await bench.runtime.remove_volume("not-ours")
            assert witness.volumes.get("not-ours")
        finally:
            stranger.remove()
            foreign.remove()
            witness.volumes.get("not-ours").remove()

    async def test_out_of_memory_is_told_apart(self, bench: Bench) -> None:
        eats = ["sh", "-c", "x=a; while :; do x=$x$x; done"]
        engine_id = await bench.run(eats, memory_bytes=16 * 2**20)
        ended = await bench.until(engine_id, lambda seen: seen.state == "exited")
        assert ended.out_of_memory
        assert ended.exit_code == 137

    async def test_the_hosts_network_reports_the_declared_ports(self, bench: Bench) -> None:
        engine_id = await bench.run(STEADY, ports=[Port(18090)], security=Security(host_network=True))
        seen = await bench.seen(engine_id)
        assert seen.ip == ""
        assert [(port.port, port.host_port) for port in seen.ports] == [(18090, 18090)]

    async def test_what_it_uses_is_read_beside_the_engine(self, bench: Bench, host: Host) -> None:
        busy = ["sh", "-c", "trap 'exit 143' TERM; while :; do :; done"]
        engine_id = await bench.run(busy, memory_bytes=64 * 2**20, cpu_millis=200)
        command = [sys.executable, "-m", "tests.live.sampling", "unix:///run/docker.sock", "node_contract"]
        env = {"PYTHONPATH": str(ROOT)}
        sampled = await asyncio.to_thread(host.run, command, env=env, cwd=ROOT)
        (_,), (second,) = msgspec.json.decode(sampled.stdout, type=list[list[InstanceSample]])
        assert second.instance_id == (await bench.seen(engine_id)).instance_id
        assert 0.02 < second.cpu < 0.4, "a fifth of a processor"
        assert 0 < second.memory < second.memory_limit == 64 * 2**20

    async def test_refused_declarations_are_permanent(self, bench: Bench) -> None:
        for fields in (
            {"volumes": [InstanceVolume("/no/such/directory", "/data", host=True)]},
            {"memory_bytes": 2**20},
            {"cpu_millis": 9_999_000},
        ):
            with pytest.raises(RuntimeFault) as caught:
                await bench.create(bench.assignment(STEADY, **fields))
            assert (caught.value.code, caught.value.temporary) == (reason.INVALID, False), fields

    async def test_a_wrong_password_and_a_registry_that_is_away(self, bench: Bench, shelf: Shelf) -> None:
        wrong = InstanceSecrets(username="sailor", password="wrong")
        for image, secrets, code, temporary in (
            (shelf.pullable, wrong, reason.IMAGE_DENIED, False),
            (shelf.pullable, NO_SECRETS, reason.IMAGE_DENIED, False),
            (f"{shelf.address.rpartition(':')[0]}:5999/x:1", NO_SECRETS, reason.IMAGE_PULL_FAILED, True),
            ("registry.invalid/x:1", NO_SECRETS, reason.IMAGE_PULL_FAILED, True),
        ):
            with pytest.raises(RuntimeFault) as caught:
                await bench.runtime.pull(image, secrets, lambda _done, _known: None)
            assert (caught.value.code, caught.value.temporary) == (code, temporary), caught.value.message

    async def test_long_lines_are_cut_and_bytes_that_are_no_text_survive(self, bench: Bench) -> None:
        speaks = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'caf\\303\\251 \\377\\n'; sleep 1000"
        engine_id = await bench.run(["sh", "-c", speaks])
        long, odd = await lines_of(bench, engine_id, 2)
        assert len(long.text.encode()) == 16 * 1024
        assert long.text.startswith("x" * 16000)
        assert long.text.endswith("[… cut]")
        assert odd.text == "café \ufffd"

    async def test_a_command_that_ran_out_of_time_does_not_stay(self, bench: Bench) -> None:
        engine_id = await bench.run(STEADY)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await bench.runtime.execute(engine_id, ["sleep", "999"], 0.2)
        assert await bench.runtime.execute(engine_id, ["sh", "-c", "yes | head -c 100000"], 10) == (0, "y\n" * 512)

    async def test_an_engine_that_dies_is_unreachable_and_comes_back(self, bench: Bench, host: Host) -> None:
        engine_id = await bench.run(STEADY)
        events = bench.runtime.events()
        await anext(events)
        await asyncio.to_thread(host.kill_engine)
        with pytest.raises(EngineUnreachable):
            await exhaust(events)
        for call in (bench.runtime.facts(), bench.runtime.observe(), bench.runtime.start(engine_id)):
            with pytest.raises(EngineUnreachable):
                await call
        await asyncio.to_thread(host.start_engine, host.engine_args)
        assert await bench.runtime.inspect(engine_id) is not None
        async with asyncio.timeout(PATIENCE), aclosing(bench.runtime.events()) as again:
            assert (await anext(again)).instance_id is None
