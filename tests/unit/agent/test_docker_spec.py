"""An assignment as the engine is told it, and an inspected container as the agent sees it."""

from typing import Any

import pytest

from agent.core.observe import Observed
from agent.runtime import base
from agent.runtime.docker_observed import listed, observed
from agent.runtime.docker_spec import engine_config, labels, names, pull_reference, registry_auth
from shared.spec.container import EnvVar, Port, Security
from shared.spec.instance import Assignment, InstanceSecrets, InstanceSpec, InstanceVolume, PortBinding

NONE = InstanceSecrets()


def assignment(**fields: Any) -> Assignment:
    spec = InstanceSpec("nginx:1", **fields)
    return Assignment("ins_0123456789abcdef", "con_1", "web", 2, 7, "00ff", spec=spec)


def config(log_driver: str = "json-file", secrets: InstanceSecrets = NONE, **fields: Any) -> dict[str, Any]:
    return engine_config(assignment(**fields), secrets, "node_1", log_driver)


def test_names_are_for_people() -> None:
    assert names(assignment()) == ("web-2-abcdef", "web-2-ins_0123456789abcdef")


def test_labels_cannot_be_forged() -> None:
    told = labels(assignment(labels={base.LABEL_NODE: "other", "team": "a"}), "node_1")
    assert told == {
        "team": "a",
        base.LABEL_NODE: "node_1",
        base.LABEL_INSTANCE: "ins_0123456789abcdef",
        base.LABEL_CONTAINER: "con_1",
        base.LABEL_SLOT: "2",
        base.LABEL_REVISION: "7",
        base.LABEL_SPEC: "00ff",
    }


def test_the_least() -> None:
    told = config()
    assert "Cmd" not in told, "the image's own command stands"
    host = told["HostConfig"]
    assert host["RestartPolicy"] == {"Name": "no"}
    assert not {"NanoCpus", "Memory", "MemorySwap", "Privileged", "NetworkMode", "PidMode", "IpcMode", "Init"} & set(
        host
    )


def test_ports() -> None:
    told = config(ports=[Port(80), Port(443, 8443), Port(53, protocol="udp")])
    assert told["ExposedPorts"] == {"80/tcp": {}, "443/tcp": {}, "53/udp": {}}
    assert told["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}],
        "443/tcp": [{"HostIp": "", "HostPort": "8443"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
    }


def test_environment_secrets_win() -> None:
    told = config(env=[EnvVar("A", "1"), EnvVar("KEY", "", secret=True)], secrets=InstanceSecrets(env={"KEY": "s=3 c"}))
    assert sorted(told["Env"]) == ["A=1", "KEY=s=3 c"]


def test_limits_and_command() -> None:
    told = config(command=["a", "b c"], cpu_millis=250, memory_bytes=2**26, stop_grace_period=3)
    assert told["Cmd"] == ["a", "b c"]
    assert told["StopTimeout"] == 3
    host = told["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (250_000_000, 2**26, 2**26)


def test_volumes() -> None:
    named, mount = config(
        volumes=[InstanceVolume("argosy-v", "/v"), InstanceVolume("/srv", "/s", host=True, read_only=True)]
    )["HostConfig"]["Mounts"]
    owner = {base.LABEL_NODE: "node_1", base.LABEL_CONTAINER: "con_1", base.LABEL_SLOT: "2"}
    assert named == {
        "Type": "volume",
        "Source": "argosy-v",
        "Target": "/v",
        "ReadOnly": False,
        "VolumeOptions": {"Labels": owner},
    }
    assert mount == {"Type": "bind", "Source": "/srv", "Target": "/s", "ReadOnly": True}


def test_security_as_asked() -> None:
    host = config(security=Security(privileged=True, host_network=True, host_pid=True, host_ipc=True))["HostConfig"]
    assert (host["Privileged"], host["NetworkMode"], host["PidMode"], host["IpcMode"]) == (True, "host", "host", "host")


def test_another_log_driver_of_the_engine_stands() -> None:
    assert config()["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert "LogConfig" not in config(log_driver="journald")["HostConfig"]


def test_registry_credentials() -> None:
    secrets = InstanceSecrets(username="u", password="p")
    assert registry_auth("nginx", NONE) == {}
    assert registry_auth("team/x:1", secrets)["serveraddress"] == "https://index.docker.io/v1/"
    assert registry_auth("reg.example:5000/x:1", secrets) == {
        "username": "u",
        "password": "p",
        "serveraddress": "reg.example:5000",
    }


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("nginx", "latest"),
        ("reg:5000/nginx", "latest"),
        ("nginx:1", None),
        ("nginx@sha256:00", None),
        ("r/n:1@sha256:0", None),
    ],
)
def test_a_pull_never_means_every_tag(image: str, tag: str | None) -> None:
    assert pull_reference(image) == ({"fromImage": image} | ({"tag": tag} if tag else {}))


def inspected(status: str, **state: Any) -> dict[str, Any]:
    never = "0001-01-01T00:00:00Z"
    return {
        "Id": "e" * 64,
        "Image": "sha256:1",
        "State": {
            "Status": status,
            "ExitCode": 0,
            "Pid": 0,
            "StartedAt": never,
            "FinishedAt": never,
            "Error": "",
            **state,
        },
        "Config": {"Labels": {base.LABEL_INSTANCE: "ins_1", base.LABEL_SPEC: "00ff"}},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {
            "Ports": {
                "80/tcp": [{"HostIp": "::", "HostPort": "49154"}, {"HostIp": "0.0.0.0", "HostPort": "49153"}],
                "53/udp": [{"HostIp": "::", "HostPort": "49160"}],
                "9000/tcp": None,
            },
            "Networks": {"bridge": {"IPAddress": "172.17.0.3"}},
        },
    }


def test_a_running_one() -> None:
    seen = observed(inspected("running", Pid=42, StartedAt="2026-01-02T03:04:05.123456789Z"), "10.0.0.1")
    assert seen == Observed(
        "e" * 64,
        "ins_1",
        "00ff",
        "running",
        started_at=1767323045.123456,
        ports=[PortBinding(53, 49160, "10.0.0.1", "udp"), PortBinding(80, 49153, "10.0.0.1")],
        image_id="sha256:1",
        pid=42,
        ip="172.17.0.3",
    )


def test_an_ended_one_keeps_no_address() -> None:
    told = inspected("exited", ExitCode=137, OOMKilled=True, FinishedAt="2026-01-02T03:04:05Z")
    seen = observed(told, "10.0.0.1")
    assert (seen.state, seen.exit_code, seen.out_of_memory, seen.finished_at) == ("exited", 137, True, 1767323045.0)
    assert (seen.ports, seen.pid, seen.ip) == ([], 0, "")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("created", "created"),
        ("paused", "running"),
        ("restarting", "exited"),
        ("removing", "dead"),
        ("dead", "dead"),
        ("?", "dead"),
    ],
)
def test_states(status: str, state: str) -> None:
    assert observed(inspected(status), "").state == state
    assert listed({"Id": "e", "State": status, "Labels": {base.LABEL_INSTANCE: "ins_1"}}).state == state


def test_why_it_never_started() -> None:
    seen = observed(inspected("created", ExitCode=127, Error="no such thing"), "")
    assert (seen.error, seen.exit_code, seen.started_at) == ("no such thing", None, None)


def test_the_hosts_network() -> None:
    told = inspected("running", Pid=42)
    told["HostConfig"] = {"NetworkMode": "host", "PortBindings": {"443/tcp": [{}], "80/tcp": [{}]}}
    told["NetworkSettings"] = {"Ports": {}, "Networks": {"host": {"IPAddress": ""}}}
    seen = observed(told, "10.0.0.1")
    assert seen.ip == ""
    assert seen.ports == [PortBinding(80, 80, "10.0.0.1"), PortBinding(443, 443, "10.0.0.1")]
