"""Readings from the kernel's files of both control group generations, and nothing where nothing can be said."""

import os
from pathlib import Path

import pytest

from agent import VERSION
from agent.core.observe import Observed
from agent.metrics import facts
from agent.metrics.cgroups import Accounts, Cgroups
from agent.metrics.host import HostSampler
from agent.metrics.instances import InstanceSampler
from shared.spec.node import Engine

ENGINE_ID = "ab" * 32
PID = 4242
NET = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 9999       9    0    0    0     0          0         0     9999       9    0    0    0     0       0          0
  eth0: 1000       9    0    0    0     0          0         0      300       9    0    0    0     0       0          0
  eth1:   11       9    0    0    0     0          0         0        7       9    0    0    0     0       0          0
"""


class Machine:
    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.mount = root / "cgroup"

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(self, cgroup: str) -> None:
        self.write(self.proc / str(PID) / "cgroup", cgroup)
        self.write(self.proc / str(PID) / "net" / "dev", NET)

    def first(self, path: str = f"/custom/{ENGINE_ID}", usage: int = 2_500_000_000, limit: int = 2**26) -> None:
        controllers = ("memory", "cpu,cpuacct", "blkio", "pids", "name=systemd")
        self.process("".join(f"{n}:{names}:{path}\n" for n, names in enumerate(controllers, 1)) + "0::/elsewhere\n")
        at = {name: self.mount / name / path.lstrip("/") for name in ("memory", "cpuacct", "blkio")}
        self.write(at["memory"] / "memory.stat", "cache 500\ninactive_file 1\ntotal_inactive_file 400\n")
        self.write(at["memory"] / "memory.usage_in_bytes", "1400\n")
        self.write(at["memory"] / "memory.limit_in_bytes", f"{limit}\n")
        self.write(at["cpuacct"] / "cpuacct.usage", f"{usage}\n")
        self.write(
            at["blkio"] / "blkio.throttle.io_service_bytes",
            "8:0 Read 4096\n8:0 Write 10\n8:0 Sync 1\n8:16 Read 4\n8:16 Write 2\nTotal 4112\n",
        )

    def second(self, limit: str = "67108864") -> None:
        path = f"/system.slice/docker-{ENGINE_ID}.scope"
        self.process(f"0::{path}\n")
        at = self.mount / path.lstrip("/")
        self.write(at / "memory.stat", "anon 1\ninactive_file 400\n")
        self.write(at / "memory.current", "1400\n")
        self.write(at / "memory.max", f"{limit}\n")
        self.write(at / "cpu.stat", "usage_usec 2500000\nuser_usec 1\n")
        self.write(at / "io.stat", "8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=4 wbytes=2\n")

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(self.proc, self.mount)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


EXPECTED = Accounts(cpu_seconds=2.5, memory=1000, memory_limit=2**26, block_read=4100, block_write=12)


def running(**fields: object) -> Observed:
    seen = {"started_at": 100.0, "pid": PID, "ip": "172.17.0.2"} | fields
    return Observed(ENGINE_ID, "ins_1", "00ff", "running", **seen)  # type: ignore[arg-type]


def test_first_generation_under_any_parent(machine: Machine) -> None:
    machine.first()
    assert machine.cgroups.accounts(PID, ENGINE_ID) == EXPECTED


def test_second_generation(machine: Machine) -> None:
    machine.second()
    assert machine.cgroups.accounts(PID, ENGINE_ID) == EXPECTED


@pytest.mark.parametrize("generation", ["first", "second"])
def test_no_limit_is_0(machine: Machine, generation: str) -> None:
    machine.first(limit=9223372036854771712) if generation == "first" else machine.second(limit="max")
    accounts = machine.cgroups.accounts(PID, ENGINE_ID)
    assert accounts is not None
    assert accounts.memory_limit == 0


def test_block_accounts_may_be_missing(machine: Machine) -> None:
    machine.first()
    for file in machine.mount.rglob("blkio.throttle*"):
        file.unlink()
    accounts = machine.cgroups.accounts(PID, ENGINE_ID)
    assert accounts is not None
    assert (accounts.block_read, accounts.memory) == (0, 1000)


def test_another_process_with_the_number_is_not_believed(machine: Machine) -> None:
    machine.first(path="/docker/" + "cd" * 32)
    assert machine.cgroups.accounts(PID, ENGINE_ID) is None


def test_a_path_from_another_namespace_is_not_believed(machine: Machine) -> None:
    machine.first(path=f"/../{ENGINE_ID}")
    assert machine.cgroups.accounts(PID, ENGINE_ID) is None


def test_a_process_that_is_gone(machine: Machine) -> None:
    assert machine.cgroups.accounts(PID, ENGINE_ID) is None
    assert machine.cgroups.network(PID) == (0, 0)
    assert InstanceSampler(machine.cgroups).sample([running()], 200.0) == []


def test_samples(machine: Machine) -> None:
    machine.first()
    sampler = InstanceSampler(machine.cgroups)
    (first,) = sampler.sample([running()], 110.0)
    assert first.cpu == 0.25, "2.5 s of processor in the 10 s since its start"
    assert (first.memory, first.memory_limit) == (1000, 2**26)
    assert (first.net_rx, first.net_tx, first.block_read, first.block_write) == (1011, 307, 4100, 12)
    machine.first(usage=7_500_000_000)
    (second,) = sampler.sample([running()], 120.0)
    assert second.cpu == 0.5


def test_a_restart_begins_a_new_account(machine: Machine) -> None:
    machine.first(usage=9_000_000_000)
    sampler = InstanceSampler(machine.cgroups)
    sampler.sample([running()], 110.0)
    machine.first(usage=1_000_000_000)
    (again,) = sampler.sample([running(started_at=118.0)], 120.0)
    assert again.cpu == 0.0, "the same number and a smaller account: never negative"
    machine.write(machine.proc / "77" / "cgroup", (machine.proc / str(PID) / "cgroup").read_text())
    (other,) = sampler.sample([running(pid=77, started_at=118.0)], 122.0)
    assert other.cpu == 0.25


def test_the_hosts_network_is_not_an_instances(machine: Machine) -> None:
    machine.second()
    (sample,) = InstanceSampler(machine.cgroups).sample([running(ip="")], 110.0)
    assert (sample.net_rx, sample.net_tx) == (0, 0)


def test_what_does_not_run_has_no_sample(machine: Machine) -> None:
    machine.first()
    assert InstanceSampler(machine.cgroups).sample([running(pid=0)], 110.0) == []


def test_this_very_process() -> None:
    """The real kernel's files, under whatever this machine has."""
    line = next(
        text
        for text in Path("/proc/self/cgroup").read_text().splitlines()
        if ":memory:" in text or text.startswith("0::")
    )
    name = line.split(":", 2)[2].strip("/").split("/")[-1]
    accounts = Cgroups().accounts(os.getpid(), name)
    if accounts is not None:  # the root group of the second generation keeps no accounts
        assert accounts.cpu_seconds > 0
        assert accounts.memory > 0
    received, sent = Cgroups().network(os.getpid())
    assert received >= 0
    assert sent >= 0


def test_facts() -> None:
    engine = Engine("docker", "26.1", "1.45")
    told = facts.collect(engine, "linux/arm64", "/", address="10.0.0.1", labels={"zone": "a"})
    assert (told.platform, told.address, told.labels, told.engine) == ("linux/arm64", "10.0.0.1", {"zone": "a"}, engine)
    assert told.cpu_millis >= 1000
    assert told.memory_bytes > 2**26
    assert 0 < told.disk_free <= told.disk_bytes
    assert told.boot_id
    assert told.hostname
    assert told.agent_version == VERSION


def test_facts_without_an_engine() -> None:
    told = facts.collect(Engine(), "", "", address="")
    assert told.platform.startswith("linux/")
    assert told.disk_bytes > 0


def test_an_unseen_data_root_is_judged_by_what_is_above_it() -> None:
    assert facts.disk_usage("/no/such/place/anywhere")[0] == facts.disk_usage("/")[0]


def test_source_address() -> None:
    assert facts.source_address("127.0.0.1") == "127.0.0.1"
    assert facts.source_address("no-such-host.invalid") == ""


def test_host_sample() -> None:
    sampler = HostSampler(lambda: "/")
    sample = sampler.sample(123.0)
    assert sample.at == 123.0
    assert 0 <= sample.cpu <= (os.cpu_count() or 1)
    assert 0 < sample.memory_used < sample.memory_total
    assert sample.disk_free > 0


def test_a_start_of_the_machine_is_marked_by_its_first_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(facts, "_FIRST_PROCESS", stat)
    fields = " ".join(str(number) for number in range(3, 53))
    stat.write_text(f"1 (odd) name) {fields}\n")
    mark = facts.boot_mark()
    assert mark.endswith("/22")
    assert mark == facts.boot_mark()
    stat.write_text(f"1 (init) {fields}\n".replace(" 22 ", " 23 "))
    assert facts.boot_mark() != mark
    stat.unlink()
    assert facts.boot_mark().endswith("/")
