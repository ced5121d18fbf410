"""A machine with systemd, as install.sh will meet it: boots, reboots, loses its power, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import claims
from tests.hosts.errors import CommandFailedError, PoweredOffError
from tests.hosts.machine import Machine
from tests.hosts.process import sh

# The base root is made once for all runs on this computer; that time counts against the first test.
pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as machine:
        machine.boot()
        yield machine


def boot_time(machine: Machine) -> str:
    return machine.run(["systemctl", "show", "--value", "-p", "UserspaceTimestampMonotonic"]).stdout


def test_systemd_runs_it(machine: Machine) -> None:
    assert machine.run(["cat", "/proc/1/comm"]).stdout == "systemd\n"
    assert machine.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert machine.run(["hostname"]).stdout == "m1\n"


def test_it_has_a_network_of_its_own(machine: Machine) -> None:
    assert machine.address in machine.run(["ip", "-4", "addr"]).stdout
    assert machine.run(["ip", "route", "show", "default"]).stdout == ""
    sh("busybox", "ping", "-c1", "-W2", machine.address)


def test_a_unit_survives_a_reboot_and_a_power_cut(machine: Machine) -> None:
    unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    machine.run(["sh", "-c", "cat >/etc/systemd/system/probe.service"], stdin=unit)
    machine.run(["systemctl", "enable", "--now", "--quiet", "probe"])
    before = boot_time(machine)
    machine.reboot()
    assert boot_time(machine) != before
    assert machine.run(["systemctl", "is-active", "probe"]).stdout == "active\n"
    machine.kill()
    assert not machine.is_on
    with pytest.raises(PoweredOffError):
        machine.run(["true"])
    machine.boot()
    assert machine.run(["systemctl", "is-active", "probe"]).stdout == "active\n"
    machine.power_off()
    assert not machine.is_on
    machine.boot()


def test_a_checkout_arrives_as_a_clean_copy(machine: Machine) -> None:
    checkout = Path(__file__).parents[2]
    machine.copy_in(checkout, "/root/project")
    files = machine.run(["ls", "-A", "/root/project"]).stdout.split()
    assert "pyproject.toml" in files
    assert not {".venv", ".git"} & set(files)
    machine.copy_in(checkout / "pyproject.toml", "/root/other/name.toml")
    assert machine.run(["cat", "/root/other/name.toml"]).stdout == (checkout / "pyproject.toml").read_text()


def test_cgroups_can_be_made_inside(machine: Machine) -> None:
    trees = machine.run(["sh", "-c", "awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts"]).stdout.split()
    for tree in trees:
        machine.run(["sh", "-c", f"mkdir {tree}/probe && rmdir {tree}/probe"])


def test_a_failing_command_says_so(machine: Machine) -> None:
    with pytest.raises(CommandFailedError, match="nothing here"):
        machine.run(["sh", "-c", "echo nothing here; exit 4"])
    assert machine.run(["sh", "-c", "exit 4"], check=False).returncode == 4


def test_a_machine_leaves_nothing() -> None:
    rules = sh("iptables", "-S") + sh("iptables", "-t", "nat", "-S")
    with Machine("m2", nat=True) as machine:
        machine.boot()
        claim = machine.claim.id
        assert machine.run(["ip", "route", "show", "default"]).stdout.startswith("default via")
        assert machine.claim.net in sh("iptables", "-t", "nat", "-S")
    assert claims.marked(claim) == []
    assert claims.cgroups(f"argosy-{claim}*") == []
    assert list(claims.ROOT.glob(claim)) == []
    assert claim not in sh("ip", "-o", "link")
    assert claim not in Path("/proc/mounts").read_text()
    assert sh("iptables", "-S") + sh("iptables", "-t", "nat", "-S") == rules
