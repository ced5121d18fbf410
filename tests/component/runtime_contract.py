"""What every runtime must do, whatever the engine: the fake and Docker pass the same tests, so the fake can be believed.

Only what the rest of the agent relies on is asserted. Waiting is for conditions, with a limit.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from agent.core.faults import RuntimeFault
from agent.core.observe import Observed
from agent.runtime.base import EngineEvent, Runtime
from shared.kit.ids import new_id
from shared.spec import reason
from shared.spec.container import EnvVar, Port
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec, InstanceVolume
from shared.wire.frames import LogLine

STEADY = ["sh", "-c", "trap 'exit 143' TERM; while :; do sleep 0.05; done"]
"""Runs until it is stopped."""
SPEAKING = [
    "sh",
    "-c",
    "trap 'exit 143' TERM; echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three; while :; do sleep 0.05; done",
]
FAILING = ["sh", "-c", "exit 3"]
MISSING = ["no-such-program"]
ANSWERING = ["sh", "-c", "echo fine; exit 4"]
HANGING = ["sleep", "1000"]
NO_SECRETS = InstanceSecrets()
PATIENCE = 20.0


@dataclass
class Bench:
    """A runtime and what its engine has: `image` is local, `pullable` can be pulled, `absent` is in no registry."""

    runtime: Runtime
    image: str
    pullable: str
    absent: str
    secrets: InstanceSecrets = NO_SECRETS
    made: list[str] = field(default_factory=list)

    def assignment(self, command: list[str], **fields: object) -> Assignment:
        spec = InstanceSpec(self.image, command=command, stop_grace_period=5, **fields)  # type: ignore[arg-type]
        return Assignment(new_id("ins"), "con_contract", "web", 0, 1, "0123456789abcdef", spec=spec)

    async def create(self, assignment: Assignment, secrets: InstanceSecrets = NO_SECRETS) -> str:
        engine_id = await self.runtime.create(assignment, secrets)
        if engine_id not in self.made:
            self.made.append(engine_id)
        return engine_id

    async def run(self, command: list[str], **fields: object) -> str:
        engine_id = await self.create(self.assignment(command, **fields))
        await self.runtime.start(engine_id)
        return engine_id

    async def seen(self, engine_id: str) -> Observed:
        observed = await self.runtime.inspect(engine_id)
        assert observed is not None, f"{engine_id} is gone"
        return observed

    async def until(self, engine_id: str, holds: Callable[[Observed], bool]) -> Observed:
        async with asyncio.timeout(PATIENCE):
            while not holds(observed := await self.seen(engine_id)):
                await asyncio.sleep(0.02)
        return observed

    async def tidy(self) -> None:
        for engine_id in self.made:
            await self.runtime.remove(engine_id)
        await self.runtime.close()


async def lines_of(
    bench: Bench,
    engine_id: str,
    count: int,
    *,
    tail: int | None = None,
    since: float | None = None,
    follow: bool = True,
) -> list[LogLine]:
    """The first `count` lines, or all there are."""
    found: list[LogLine] = []
    async with (
        asyncio.timeout(PATIENCE),
        aclosing(bench.runtime.logs(engine_id, tail=tail, since=since, until=None, follow=follow)) as lines,
    ):
        async for line in lines:
            found.append(line)
            if len(found) == count:
                break
    return found


async def event_of(events: AsyncGenerator[EngineEvent, None], instance_id: str) -> None:
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            if event.instance_id == instance_id:
                return
    raise AssertionError("the events ended")


class RuntimeContract:
    async def test_facts_name_the_engine(self, bench: Bench) -> None:
        facts = await bench.runtime.facts()
        assert facts.engine.name == "docker"
        assert facts.engine.version
        assert facts.platform.startswith("linux/")
        assert facts.data_root.startswith("/")

    async def test_a_life_from_creation_to_removal(self, bench: Bench) -> None:
        assignment = bench.assignment(STEADY)
        engine_id = await bench.create(assignment)
        created = await bench.seen(engine_id)
        assert (created.state, created.exit_code, created.started_at, created.pid) == ("created", None, None, 0)
        assert (created.instance_id, created.spec_hash) == (assignment.instance_id, assignment.spec_hash)
        assert created.image_id == await bench.runtime.image_id(bench.image)

        await bench.runtime.start(engine_id)
        running = await bench.seen(engine_id)
        assert running.state == "running"
        assert running.started_at is not None
        assert running.pid > 0
        assert running.ip

        await bench.runtime.stop(engine_id, 5)
        stopped = await bench.seen(engine_id)
        assert (stopped.state, stopped.exit_code, stopped.ports, stopped.pid, stopped.ip) == ("exited", 143, [], 0, "")
        assert stopped.finished_at is not None
        assert stopped.started_at is not None
        assert stopped.finished_at >= stopped.started_at

        await bench.runtime.remove(engine_id)
        assert await bench.runtime.inspect(engine_id) is None

    async def test_observe_lists_all_of_ours_in_any_state(self, bench: Bench) -> None:
        made = {
            "created": await bench.create(bench.assignment(STEADY)),
            "running": await bench.run(STEADY),
            "exited": await bench.run(FAILING),
        }
        await bench.until(made["exited"], lambda seen: seen.state == "exited")
        observed = {one.engine_id: one for one in await bench.runtime.observe()}
        assert {state: observed[engine_id].state for state, engine_id in made.items()} == {s: s for s in made}
        assert observed[made["exited"]].exit_code == 3
        assert observed[made["running"]] == await bench.seen(made["running"])

    async def test_everything_may_be_said_twice(self, bench: Bench) -> None:
        assignment = bench.assignment(STEADY)
        engine_id = await bench.create(assignment)
        assert await bench.create(assignment) == engine_id
        await bench.runtime.start(engine_id)
        pid = (await bench.seen(engine_id)).pid
        await bench.runtime.start(engine_id)
        assert (await bench.seen(engine_id)).pid == pid, "starting what runs must not restart it"
        await bench.runtime.stop(engine_id, 5)
        await bench.runtime.stop(engine_id, 5)
        await bench.runtime.remove(engine_id)
        await bench.runtime.remove(engine_id)
        await bench.runtime.stop(engine_id, 5)

    async def test_two_creations_at_once_of_different_instances(self, bench: Bench) -> None:
        first, second = await asyncio.gather(
            bench.create(bench.assignment(STEADY)), bench.create(bench.assignment(STEADY))
        )
        assert first != second

    async def test_a_crash_and_another_start_of_the_same(self, bench: Bench) -> None:
        engine_id = await bench.run(FAILING)
        crashed = await bench.until(engine_id, lambda seen: seen.state == "exited")
        assert (crashed.exit_code, crashed.out_of_memory) == (3, False)
        await bench.runtime.start(engine_id)
        again = await bench.until(
            engine_id, lambda seen: seen.state == "exited" and seen.started_at != crashed.started_at
        )
        assert again.engine_id == engine_id
        assert again.exit_code == 3

    async def test_removing_ends_what_runs(self, bench: Bench) -> None:
        engine_id = await bench.run(STEADY)
        await bench.runtime.remove(engine_id)
        assert await bench.runtime.inspect(engine_id) is None
        assert engine_id not in {one.engine_id for one in await bench.runtime.observe()}

    async def test_events_begin_with_a_look_at_everything_and_name_the_instance(self, bench: Bench) -> None:
        async with aclosing(bench.runtime.events()) as events:
            assert await anext(events) == EngineEvent(None)
            assignment = bench.assignment(STEADY)
            engine_id = await bench.create(assignment)
            await event_of(events, assignment.instance_id)
            await bench.runtime.start(engine_id)
            await event_of(events, assignment.instance_id)
            await bench.runtime.remove(engine_id)
            await event_of(events, assignment.instance_id)

    async def test_the_engine_picks_a_free_port_and_reports_it(self, bench: Bench) -> None:
        engine_id = await bench.run(STEADY, ports=[Port(8080), Port(9000, protocol="udp")])
        web, other = (await bench.seen(engine_id)).ports
        assert (web.port, web.protocol, other.port, other.protocol) == (8080, "tcp", 9000, "udp")
        assert web.host_port > 1024
        assert web.address == other.address == "10.0.0.1"

    async def test_a_taken_port_is_a_permanent_fault_and_a_free_one_starts_the_same(self, bench: Bench) -> None:
        holder = await bench.run(STEADY, ports=[Port(8080, 18080)])
        assert (await bench.seen(holder)).ports[0].host_port == 18080
        second = await bench.create(bench.assignment(STEADY, ports=[Port(8080, 18080)]))
        with pytest.raises(RuntimeFault) as caught:
            await bench.runtime.start(second)
        assert (caught.value.code, caught.value.temporary) == (reason.PORT_TAKEN, False)
        assert (await bench.seen(second)).state == "created"
        await bench.runtime.remove(holder)
        await bench.runtime.start(second)
        assert (await bench.seen(second)).state == "running"

    async def test_a_command_that_does_not_exist_is_a_permanent_fault(self, bench: Bench) -> None:
        engine_id = await bench.create(bench.assignment(MISSING))
        with pytest.raises(RuntimeFault) as caught:
            await bench.runtime.start(engine_id)
        assert (caught.value.code, caught.value.temporary) == (reason.INVALID, False)
        assert "no-such-program" in caught.value.message
        await bench.runtime.remove(engine_id)

    async def test_an_image_is_there_after_its_pull(self, bench: Bench) -> None:
        assert await bench.runtime.image_id(bench.pullable) is None
        seen: list[tuple[int, int]] = []
        await bench.runtime.pull(bench.pullable, bench.secrets, lambda done, known: seen.append((done, known)))
        assert await bench.runtime.image_id(bench.pullable) is not None
        assert seen == sorted(seen), "progress never goes back"
        assert all(done <= known for done, known in seen)

    async def test_an_image_no_registry_has_is_a_permanent_fault(self, bench: Bench) -> None:
        with pytest.raises(RuntimeFault) as caught:
            await bench.runtime.pull(bench.absent, bench.secrets, lambda _done, _known: None)
        assert (caught.value.code, caught.value.temporary) == (reason.IMAGE_NOT_FOUND, False)

    async def test_creating_without_the_image_asks_for_another_pull(self, bench: Bench) -> None:
        spec = InstanceSpec(bench.absent)
        with pytest.raises(RuntimeFault) as caught:
            await bench.runtime.create(Assignment(new_id("ins"), "con", "web", 0, 1, "hash", spec=spec), NO_SECRETS)
        assert (caught.value.code, caught.value.temporary) == (reason.IMAGE_NOT_FOUND, True)

    async def test_logs_tell_time_stream_and_text(self, bench: Bench) -> None:
        engine_id = await bench.run(SPEAKING)
        lines = await lines_of(bench, engine_id, 3)
        assert [(line.stream, line.text) for line in lines] == [(1, "one"), (2, "two"), (1, "three")]
        assert lines[0].at_ns < lines[1].at_ns < lines[2].at_ns
        started_at = (await bench.seen(engine_id)).started_at
        assert started_at is not None
        assert abs(lines[0].at_ns / 1e9 - started_at) < 5
        tail = await lines_of(bench, engine_id, 3, tail=1, follow=False)
        assert tail == lines[2:]
        since = await lines_of(bench, engine_id, 3, since=(lines[0].at_ns + lines[1].at_ns) / 2e9, follow=False)
        assert since == lines[1:]

    async def test_followed_logs_end_with_the_container_and_go_on_after_another_start(self, bench: Bench) -> None:
        engine_id = await bench.run(SPEAKING)
        following = asyncio.create_task(lines_of(bench, engine_id, 100))
        await lines_of(bench, engine_id, 3)
        await bench.runtime.stop(engine_id, 5)
        assert len(await following) == 3
        await bench.runtime.start(engine_id)
        assert [line.text for line in await lines_of(bench, engine_id, 6)] == ["one", "two", "three"] * 2

    async def test_logs_of_what_is_gone_are_a_fault(self, bench: Bench) -> None:
        with pytest.raises(RuntimeFault):
            await lines_of(bench, "0" * 64, 1, follow=False)

    async def test_a_command_inside_gives_its_code_and_output(self, bench: Bench) -> None:
        engine_id = await bench.run(STEADY)
        assert await bench.runtime.execute(engine_id, ANSWERING, 10) == (4, "fine\n")

    async def test_a_command_inside_that_hangs_runs_out_of_time(self, bench: Bench) -> None:
        engine_id = await bench.run(STEADY)
        with pytest.raises(TimeoutError):
            await bench.runtime.execute(engine_id, HANGING, 0.3)

    async def test_a_command_inside_what_does_not_run_is_a_temporary_fault(self, bench: Bench) -> None:
        engine_id = await bench.create(bench.assignment(STEADY))
        with pytest.raises(RuntimeFault) as caught:
            await bench.runtime.execute(engine_id, ANSWERING, 10)
        assert caught.value.temporary

    async def test_a_volume_outlives_its_container_and_goes_when_told(self, bench: Bench) -> None:
        volume = InstanceVolume(f"argosy-{new_id('vol')}", "/data")
        engine_id = await bench.create(bench.assignment(STEADY, volumes=[volume]))
        with pytest.raises(RuntimeFault) as caught:
            await bench.runtime.remove_volume(volume.source)
        assert caught.value.temporary, "it is in use: later it may not be"
        await bench.runtime.remove(engine_id)
        await bench.runtime.remove_volume(volume.source)
        await bench.runtime.remove_volume(volume.source)

    async def test_environment_and_secrets_are_accepted_together(self, bench: Bench) -> None:
        secrets = InstanceSecrets(env={"TOKEN": "s3cret"})
        engine_id = await bench.create(bench.assignment(STEADY, env=[EnvVar("MODE", "fast")]), secrets)
        await bench.runtime.start(engine_id)
        assert (await bench.seen(engine_id)).state == "running"
