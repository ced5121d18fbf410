"""The node's owner has the last word."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from posixpath import normpath

import pytest

from agent.core.policy import Policy, RefusedByPolicy, admit, parse
from agent.daemon import _elsewhere
from shared.spec.container import Security
from shared.spec.image import registry_of
from shared.spec.instance import InstanceSpec, InstanceVolume

Real = Callable[[str], str]


def refusal(policy: Policy, spec: InstanceSpec, real: Real = normpath) -> str | None:
    try:
        admit(policy, spec, real)
    except RefusedByPolicy as refused:
        return str(refused)
    return None


def mounting(path: str) -> InstanceSpec:
    return InstanceSpec("nginx:1", volumes=[InstanceVolume(path, "/data", host=True)])


def test_what_stays_inside_is_never_refused() -> None:
    spec = InstanceSpec("nginx:1", volumes=[InstanceVolume("argosy_data", "/data")])
    assert refusal(Policy(), spec) is None


@pytest.mark.parametrize(
    ("security", "allowing"),
    [
        (Security(privileged=True), Policy(allow_privileged=True)),
        (Security(host_network=True), Policy(allow_host_network=True)),
        (Security(host_pid=True), Policy(allow_host_pid=True)),
        (Security(host_ipc=True), Policy(allow_host_ipc=True)),
    ],
)
def test_reaching_out_needs_its_own_permission(security: Security, allowing: Policy) -> None:
    spec = InstanceSpec("nginx:1", security=security)
    assert refusal(Policy(), spec) is not None
    assert refusal(allowing, spec) is None
    everything_else = Policy(
        allow_privileged=not allowing.allow_privileged,
        allow_host_network=not allowing.allow_host_network,
        allow_host_pid=not allowing.allow_host_pid,
        allow_host_ipc=not allowing.allow_host_ipc,
    )
    assert refusal(everything_else, spec) is not None


@pytest.mark.parametrize(
    ("allowed", "path", "admitted"),
    [
        ([], "/srv/data", False),
        (["/srv/data"], "/srv/data", True),
        (["/srv/data/"], "/srv/data", True),
        (["/srv/data"], "/srv/data/deep/er", True),
        (["/srv/data"], "/srv/database", False),
        (["/srv/data"], "/srv", False),
        (["/srv/data"], "/srv/data/../../etc", False),
        (["/srv/data"], "/srv/./data//x", True),
        (["/srv/data"], "//srv/data", True),
        (["/"], "/anything", True),
        (["/"], "/", True),
    ],
)
def test_host_paths(allowed: list[str], path: str, admitted: bool) -> None:
    assert (refusal(Policy(allow_host_paths=allowed), mounting(path)) is None) is admitted


def test_a_link_out_of_an_allowed_directory_is_seen_through() -> None:
    links = {"/srv/data/escape": "/etc"}
    policy = Policy(allow_host_paths=["/srv/data"])
    assert refusal(policy, mounting("/srv/data/escape")) is None
    assert refusal(policy, mounting("/srv/data/escape"), lambda path: links.get(path, path)) is not None


SEEN: Real = partial(os.path.realpath, strict=True)


def test_what_was_judged_is_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "allowed" / "inside").mkdir(parents=True)
    (tmp_path / "allowed" / "link").symlink_to("inside")
    (tmp_path / "allowed" / "escape").symlink_to("/etc")
    policy = Policy(allow_host_paths=["/not/there", str(tmp_path / "allowed")])
    admitted = admit(policy, mounting(str(tmp_path / "allowed" / "link")), SEEN)
    assert [volume.source for volume in admitted.volumes] == [str(tmp_path / "allowed" / "inside")]
    assert refusal(policy, mounting(str(tmp_path / "allowed" / "escape")), SEEN) is not None


def test_what_cannot_be_seen_is_refused(tmp_path: Path) -> None:
    """What the agent takes for a missing file may be one it may not look at, and a link."""
    policy = Policy(allow_host_paths=[str(tmp_path)])
    why = refusal(policy, mounting(str(tmp_path / "hidden" / "link")), SEEN)
    assert why is not None
    assert "No such file" in why

    def closed(path: str) -> str:
        raise PermissionError(13, "Permission denied")

    why = refusal(Policy(allow_host_paths=["/"]), mounting("/home/me/link"), closed)
    assert why is not None
    assert "Permission denied" in why


def test_no_host_path_of_an_engine_elsewhere() -> None:
    assert refusal(Policy(allow_host_paths=["/"]), mounting("/srv"), _elsewhere) is not None


@pytest.mark.parametrize("source", ["postgres-data", "ARGOSY_x", "x_argosy_y", ""])
def test_other_volumes_of_the_engine_are_nobody_elses_business(source: str) -> None:
    everything = Policy(allow_host_paths=["/"], allow_privileged=True)
    assert refusal(everything, InstanceSpec("nginx:1", volumes=[InstanceVolume(source, "/data")])) is not None


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("nginx", "docker.io"),
        ("team/nginx:1", "docker.io"),
        ("reg.example/x", "reg.example"),
        ("localhost/x", "localhost"),
        ("Registry/x", "Registry"),
        ("localhost:5000/x@sha256:00", "localhost:5000"),
        ("nginx:5000", "docker.io"),
    ],
)
def test_registry_of(image: str, registry: str) -> None:
    assert registry_of(image) == registry
    assert refusal(Policy(allow_registries=[registry]), InstanceSpec(image)) is None
    assert refusal(Policy(allow_registries=["other.example"]), InstanceSpec(image)) is not None


def test_the_file() -> None:
    assert parse("") == Policy()
    assert parse('allow_host_network = true\nallow_host_paths = ["/srv"]') == Policy(
        allow_host_network=True, allow_host_paths=["/srv"]
    )


@pytest.mark.parametrize(
    "text", ["allow_everything = true", "allow_privileged = 1", "not toml", 'allow_host_paths = ["srv"]']
)
def test_a_file_that_cannot_be_read_is_not_an_empty_one(text: str) -> None:
    with pytest.raises(ValueError, match="not a policy"):
        parse(text)
