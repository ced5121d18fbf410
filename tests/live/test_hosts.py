"""The ground under the live tests, tested: do the hosts behave as separate machines, and does nothing of them remain?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped, unused-ignore]
import docker.errors  # type: ignore[import-untyped, unused-ignore]
import httpx
import pytest

from tests.hosts import claims, dns, images, packages, registry
from tests.hosts.engines import Host, Lab
from tests.hosts.errors import CommandFailedError, LabError, PoweredOffError
from tests.hosts.postgres import Postgres
from tests.hosts.process import alive, processes, sh, wait_until

pytestmark = pytest.mark.live


@pytest.fixture
def one() -> Iterator[Host]:
    """A host of its own with a small disk, for tests that would spoil a shared one."""
    with Lab(hosts=1, disk_mib={"h1": 48}, images=[images.busybox_tar()]) as lab:
        yield lab.hosts[0]


def names(host: Host, **options: Any) -> set[str]:
    return {container.name for container in host.docker().containers.list(**options)}


def get(url: str) -> int | None:
    """The status, or None when nobody answers."""
    try:
        return httpx.get(url, timeout=1).status_code
    except httpx.TransportError:
        return None


def run_web(host: Host, name: str = "web") -> str:
    """A URL of the web image's /health on the host, seen to answer."""
    host.docker().containers.run(images.WEB_1, name=name, detach=True, ports={"8080/tcp": 8080})
    url = f"http://{host.address}:8080/health"
    wait_until(lambda: get(url) == 200, 10, f"{url}")
    return url


# --- hosts are separate machines


def test_each_engine_sees_only_its_own_containers(clean_lab: Lab) -> None:
    first, second, third = clean_lab.hosts
    first.docker().containers.run(images.BUSYBOX, name="only-here", detach=True)
    assert names(first) == {"only-here"}
    assert names(second, all=True) == names(third, all=True) == set()


def test_hosts_have_identities_of_their_own(clean_lab: Lab) -> None:
    def distinct(command: list[str]) -> int:
        return len({host.run(command).stdout for host in clean_lab.hosts})

    assert distinct(["hostname"]) == 3
    assert distinct(["cat", "/etc/machine-id"]) == 3
    assert distinct(["cat", "/proc/sys/kernel/random/boot_id"]) == 3
    assert len({host.docker().info()["ID"] for host in clean_lab.hosts}) == 3


def test_what_a_host_writes_to_etc_and_var_lib_is_its_own(clean_lab: Lab) -> None:
    first, second, _ = clean_lab.hosts
    for folder in ("/etc", "/var/lib"):
        first.run(["touch", f"{folder}/argosy-probe"])
        assert second.run(["ls", f"{folder}/argosy-probe"], check=False).returncode != 0
        assert not Path(folder, "argosy-probe").exists()


def test_the_environment_of_this_shell_does_not_get_in(clean_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://nowhere:1")
    monkeypatch.setenv("ARGOSY_PROBE", "1")
    assert "ARGOSY_PROBE" not in clean_lab.hosts[0].run(["env"]).stdout
    assert clean_lab.hosts[0].run(["docker", "ps", "-q"]).stdout == ""


def test_a_published_port_answers_the_test_and_ci(clean_lab: Lab) -> None:
    url = run_web(clean_lab.hosts[0])
    assert get(url) == 200
    assert clean_lab.ci_run(["curl", "-fsS", "-m", "2", url]).stdout == "ok\n"
    assert clean_lab.hosts[1].run(["curl", "-fsS", "-m", "2", url]).stdout == "ok\n"


def test_a_server_in_ci_is_reached_from_everywhere(clean_lab: Lab) -> None:
    server = clean_lab.ci_spawn([sys.executable, "-m", "http.server", "8420", "--bind", clean_lab.ci_address])
    try:
        url = f"http://{clean_lab.ci_address}:8420/"
        wait_until(lambda: get(url) == 200, 10, url)
        assert clean_lab.hosts[2].run(["curl", "-fsS", "-m", "2", "-o", "/dev/null", url]).returncode == 0
    finally:
        server.end()


def test_names_of_hosts_resolve_and_all_others_fail_fast(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    assert clean_lab.host("h2").address in host.run(["getent", "hosts", "h2"]).stdout
    before = time.monotonic()
    with pytest.raises(docker.errors.ContainerError):
        host.docker().containers.run(images.BUSYBOX, ["nslookup", "no.such.name"], remove=True)
    assert time.monotonic() - before < 5  # unanswered, it would be ten


def test_a_lab_has_no_way_out(clean_lab: Lab) -> None:
    """Not even with routes set on purpose, by way of the root namespace, from one lab into another."""
    host = clean_lab.hosts[0]
    assert "default" not in host.run(["ip", "route"]).stdout
    with Lab(hosts=0) as other:
        other.ci_run(["ip", "route", "add", f"{clean_lab.claim.net}.0/24", "via", other.root_address])
        host.run(["ip", "route", "add", f"{other.claim.net}.0/24", "via", clean_lab.root_address])
        other.ci_spawn([sys.executable, "-m", "http.server", "8420"])
        url = f"http://{other.ci_address}:8420/"
        wait_until(lambda: get(url) == 200, 10, url)
        assert host.run(["curl", "-sS", "-m", "0.5", url], check=False).returncode == 28
        host.run(["ip", "route", "del", f"{other.claim.net}.0/24"])


# --- faults


def test_a_cut_host_is_unreachable_and_healed_comes_back(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    url = run_web(host)
    host.cut()
    assert get(url) is None
    assert clean_lab.ci_run(["curl", "-sS", "-m", "0.5", url], check=False).returncode != 0
    assert names(host) == {"web"}  # the engine knows nothing of it
    host.heal()
    wait_until(lambda: get(url) == 200, 10, "the healed host")


def test_a_partition_parts_only_the_two(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    url = run_web(host)
    clean_lab.switch.block("ci", "h1")
    assert clean_lab.ci_run(["curl", "-sS", "-m", "0.5", url], check=False).returncode != 0
    assert get(url) == 200
    clean_lab.switch.clear_faults()
    assert clean_lab.ci_run(["curl", "-fsS", "-m", "2", url]).stdout == "ok\n"


def test_a_power_cut_stops_all_and_keeps_the_disk(clean_lab: Lab) -> None:
    host, other, _ = clean_lab.hosts
    url = run_web(host)
    pid = seen_from_here(host, "httpd")
    agent = host.spawn(["sleep", "1000"])
    real = agent.real_pid
    before = boot_id(host)
    host.power_off()
    assert not host.is_on
    assert not alive(pid)
    assert not alive(real)
    assert agent.wait(5) == -signal.SIGKILL
    with pytest.raises(PoweredOffError):
        host.run(["true"])
    still = boot_id(other)
    host.power_on()
    assert boot_id(host) != before
    assert boot_id(other) == still
    container = host.docker().containers.get("web")
    assert container.status == "exited"
    container.start()
    wait_until(lambda: get(url) == 200, 3, "the web server after the power cut")


def boot_id(host: Host) -> str:
    return host.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout


def seen_from_here(host: Host, program: str) -> int:
    """The pid, in the root namespace, of a container's process: the one that is inside this host's cgroups."""
    for pid in processes():
        with contextlib.suppress(OSError):
            name, groups = (Path(f"/proc/{pid}/{file}").read_text() for file in ("comm", "cgroup"))
            if name.strip() == program and f"{host.lab.claim.tag}-{host.name}/" in groups:
                return pid
    raise ProcessLookupError(program)


def test_a_killed_engine_leaves_its_containers_running(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    run_web(host)
    pid = host.engine_pid
    host.kill_engine()
    assert not alive(pid)
    assert not host.engine_answers()
    host.run(["pgrep", "-x", "httpd"])  # the container's process lives on
    host.start_engine()
    assert names(host, all=True) == {"web"}


def test_with_live_restore_a_killed_engine_adopts_its_containers(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    host.stop_engine()
    host.start_engine(["--live-restore"])
    run_web(host)
    started = host.docker().containers.get("web").attrs["State"]["StartedAt"]
    host.kill_engine()
    host.start_engine(["--live-restore"])
    container = host.docker().containers.get("web")
    assert (container.status, container.attrs["State"]["StartedAt"]) == ("running", started)
    host.reset()
    assert names(host, all=True) == set()
    assert host.engine_args == ()


def test_reset_mends_everything(clean_lab: Lab) -> None:
    first, second, third = clean_lab.hosts
    first.docker().containers.run(images.STUBBORN, name="left-over", detach=True, volumes=["kept:/data"])
    first.docker().networks.create("left-over")
    first.docker().images.get(images.WEB_2).tag("made-by-a-test")
    first.docker().images.remove(images.WEB_1)
    left = second.spawn(["sleep", "1000"])
    second.kill_engine()
    third.power_off()
    first.cut()
    clean_lab.reset()
    assert left.poll() is not None
    for host in clean_lab.hosts:
        assert host.engine_answers()
        assert names(host, all=True) == set()
        assert host.docker().volumes.list() == []
        assert {network.name for network in host.docker().networks.list()} == {"bridge", "host", "none"}
        assert {tag for image in host.docker().images.list() for tag in image.tags} == set(images.IMAGES) - {
            images.PYTHON
        }
        clean_lab.ci_run(["busybox", "ping", "-c1", "-W2", host.address])


def test_a_small_disk_fills(one: Host) -> None:
    fill = ["dd", "if=/dev/zero", "of=/filler", "bs=1M", "count=100"]
    with pytest.raises(docker.errors.ContainerError) as full:
        one.docker().containers.run(images.BUSYBOX, fill, remove=True)
    assert b"No space left on device" in full.value.stderr
    one.power_off()
    one.power_on()
    assert one.docker().images.get(images.BUSYBOX)
    assert str(one.directory) not in Path("/proc/self/mounts").read_text()


def test_signals_reach_the_process_and_not_its_way_in(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    trap = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    process = host.spawn(["sh", "-c", trap], env={"WHO": "me"}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert b"WHO=me" in Path(f"/proc/{process.real_pid}/environ").read_bytes()
    process.terminate()
    assert process.wait(5) == 7
    assert process.stdout.read() == "told\n"
    process.end()


def test_a_spawned_process_can_be_killed_by_its_real_pid(clean_lab: Lab) -> None:
    process = clean_lab.hosts[0].spawn(["sleep", "1000"])
    os.kill(process.real_pid, signal.SIGKILL)
    assert process.wait(5) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        _ = process.real_pid


def test_a_command_that_fails_or_hangs_says_so(clean_lab: Lab) -> None:
    host = clean_lab.hosts[0]
    with pytest.raises(CommandFailedError, match="no good") as failed:
        host.run(["sh", "-c", "echo no good >&2; exit 3"])
    assert failed.value.status == 3
    before = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "30"], timeout=0.3)
    assert time.monotonic() - before < 5


def test_a_registry_with_a_password(clean_lab: Lab, tmp_path: Path) -> None:
    first, second, _ = clean_lab.hosts
    address = f"{clean_lab.ci_address}:5000"
    with registry.start(tmp_path / "registry", address, "alice", "sesame", spawn=clean_lab.ci_spawn) as store:
        reference = store.push(first, images.WEB_2, "team/web", "2")
        assert "@sha256:" in reference
        with pytest.raises(docker.errors.APIError, match="no basic auth credentials"):
            second.docker().images.pull(reference)
        pulled = second.docker().images.pull(reference, auth_config=store.credentials)
        assert pulled.attrs["RepoDigests"] == [reference]
        store.credentials = {"username": "alice", "password": "guess"}
        with pytest.raises(registry.PushFailedError):
            store.push(first, images.WEB_2, "team/web", "2")


def test_an_open_registry_here(tmp_path: Path) -> None:
    with registry.start(tmp_path, "127.0.0.1:0") as store:
        assert store.process.poll() is None


async def test_databases_come_and_go(postgres: Postgres) -> None:
    url = postgres.create_database("t_hosts")
    assert url.startswith("postgresql+asyncpg://")
    connection = await asyncpg.connect(postgres.url("t_hosts", "postgresql"))
    assert await connection.fetchval("SELECT current_database()") == "t_hosts"
    await connection.close()
    postgres.drop_database("t_hosts")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(postgres.url("t_hosts", "postgresql"))
    with pytest.raises(LabError):
        postgres.create_database('x"; DROP TABLE y')


def test_dns_answers_what_it_knows() -> None:
    def query(name: str) -> bytes:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0\x00\x01\x00\x01"

    known = dns.answer(query("h1"), {"h1": "10.1.2.3"})
    assert known is not None
    assert known.endswith(bytes([10, 1, 2, 3]))
    unknown = dns.answer(query("example.org"), {"h1": "10.1.2.3"})
    assert unknown is not None
    assert unknown[3] & 0xF == dns.NXDOMAIN
    assert dns.answer(b"short", {}) is None


# --- nothing is left


def traces(claim: str) -> dict[str, list[str]]:
    """Everything on this machine that bears the claim's name."""
    return {
        "processes": [str(pid) for pid in claims.marked(claim)],
        "folders": [path.name for path in claims.ROOT.glob(f"{claim}*")],
        "cgroups": [str(path) for path in claims.cgroups(f"argosy-{claim}*")],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if claim in line],
        "links": [line for line in sh("ip", "-o", "link").splitlines() if claim in line],
        "rules": [line for line in sh("nft", "list", "ruleset").splitlines() if claim in line],
        "loops": [line for line in sh("losetup", "--all").splitlines() if claim in line],
    }


def namespace(pid: int, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def namespaces() -> set[str]:
    """All that some process is in; those without one are gone, as ours have no names."""
    found = set()
    for pid in processes():
        for kind in ("net", "pid", "mnt"):
            with contextlib.suppress(OSError):
                found.add(namespace(pid, kind))
    return found


def test_a_lab_leaves_nothing() -> None:
    with Lab(hosts=2, disk_mib={"h2": 48}, images=[images.busybox_tar()]) as lab:
        claim, boxes = lab.claim.id, [lab.switch.box, lab.ci.box, *(host.box for host in lab.hosts)]
        ours = {namespace(box.pid, kind) for box in boxes for kind in ("net", "pid", "mnt")}
        run_web(lab.hosts[0])
        lab.hosts[1].spawn(["sleep", "1000"])
        lab.ci_spawn(["sleep", "1000"])
        assert traces(claim)["processes"]
        assert ours <= namespaces()
    assert not any(traces(claim).values()), traces(claim)
    assert not ours & namespaces()


KILLED_RUN = """
import os, signal
from tests.hosts.engines import Lab
lab = Lab(hosts=1).__enter__()
lab.hosts[0].spawn(["sleep", "1000"])
print(lab.claim.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_run_clears_up_after_a_killed_one(lab: Lab) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED_RUN], cwd=root, capture_output=True, text=True, check=False)
    claim = killed.stdout.strip()
    assert traces(claim)["processes"], killed.stderr
    assert traces(claim)["links"]
    claims.sweep()
    assert not any(traces(claim).values()), traces(claim)
    assert lab.hosts[0].is_on  # and whatever is alive is left alone


def test_every_package_has_a_proof() -> None:
    assert all(packages.installed(package) for package in packages.PACKAGES)
    printed = subprocess.run([sys.executable, "-m", "tests.hosts.packages"], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == []  # nothing is left to install
