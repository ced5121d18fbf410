"""What this node lets others ask of it: the node's owner has the last word, not the coordinator.

The defaults refuse whatever reaches out of the container. A policy file can only allow more of it, one thing at a time; there is
no way for a coordinator to change it.
"""

from collections.abc import Callable
from posixpath import normpath

import msgspec
from msgspec import Struct, field

from shared.spec.instance import InstanceSpec


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """The policy file, TOML. `allow_host_paths` lists directories of the node: each allows itself and all below it, `/` allows
    everything. `allow_registries` empty means any; else an image's registry must be in it (`docker.io` is the default one)."""

    allow_privileged: bool = False
    allow_host_network: bool = False
    allow_host_pid: bool = False
    allow_host_ipc: bool = False
    allow_host_paths: list[str] = field(default_factory=list)
    allow_registries: list[str] = field(default_factory=list)


def parse(text: str) -> Policy:
    """Raises ValueError with the field and the rule: a node with a policy it cannot read must not start with another one."""
    try:
        policy = msgspec.toml.decode(text, type=Policy)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a policy: {error}") from error
    for path in policy.allow_host_paths:
        if not path.startswith("/"):
            raise ValueError(f"not a policy: {path!r} in allow_host_paths is not an absolute path")
    return policy


def refusal(policy: Policy, spec: InstanceSpec, real: Callable[[str], str] = normpath) -> str | None:
    """Why the policy forbids it, None when it does not.

    Paths are judged as `real` resolves them. The default resolves `..`; who can see the node's file system passes
    `os.path.realpath`, so that a link a container left in an allowed directory does not lead out of it.
    """
    security = spec.security
    for asked, allowed, words in (
        (security.privileged, policy.allow_privileged, "privileged containers"),
        (security.host_network, policy.allow_host_network, "the host's network"),
        (security.host_pid, policy.allow_host_pid, "the host's process ids"),
        (security.host_ipc, policy.allow_host_ipc, "the host's shared memory"),
    ):
        if asked and not allowed:
            return f"this node's policy does not allow {words}"
    for volume in spec.volumes:
        if volume.host and not _path_allowed(policy, volume.source, real):
            return f"this node's policy does not allow its path {volume.source!r}"
    registry = registry_of(spec.image)
    if policy.allow_registries and registry not in policy.allow_registries:
        return f"this node's policy does not allow images from {registry!r}"
    return None


def registry_of(image: str) -> str:
    """The registry an image name means, by the rule every engine follows: the first part is a registry only when it looks like a
    host name."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return "docker.io"


def _path_allowed(policy: Policy, path: str, real: Callable[[str], str]) -> bool:
    wanted = _canonical(real(path))
    return any(_within(wanted, _canonical(real(allowed))) for allowed in policy.allow_host_paths)


def _within(path: str, directory: str) -> bool:
    return directory == "/" or path == directory or path.startswith(f"{directory}/")


def _canonical(path: str) -> str:
    return "/" + normpath(path).lstrip("/")
