"""What this node lets others ask of it: the node's owner has the last word, not the coordinator.

The defaults refuse whatever reaches out of the container. A policy file can only allow more of it, one thing at a time; there is
no way for a coordinator to change it.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from posixpath import normpath

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from shared.spec.image import registry_of
from shared.spec.instance import VOLUME_PREFIX, InstanceSpec, InstanceVolume


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


class RefusedByPolicy(Exception):
    """Why the policy forbids something, in a sentence for people."""


def admit(policy: Policy, spec: InstanceSpec, real: Callable[[str], str] = normpath) -> InstanceSpec:
    """What may run: the same with its host paths resolved, so that what was judged is what is mounted. Raises RefusedByPolicy.

    Paths are judged as `real` resolves them. The default resolves `..`; who can see the node's file system passes a strict
    `os.path.realpath`, so that a link a container left in an allowed directory does not lead out of it. Where `real` raises
    OSError the path cannot be seen, and might be such a link.
    """
    security = spec.security
    for asked, allowed, words in (
        (security.privileged, policy.allow_privileged, "privileged containers"),
        (security.host_network, policy.allow_host_network, "the host's network"),
        (security.host_pid, policy.allow_host_pid, "the host's process ids"),
        (security.host_ipc, policy.allow_host_ipc, "the host's shared memory"),
    ):
        if asked and not allowed:
            raise RefusedByPolicy(f"this node's policy does not allow {words}")
    registry = registry_of(spec.image)
    if policy.allow_registries and registry not in policy.allow_registries:
        raise RefusedByPolicy(f"this node's policy does not allow images from {registry!r}")
    return replace(spec, volumes=[_admitted(policy, volume, real) for volume in spec.volumes])


def _admitted(policy: Policy, volume: InstanceVolume, real: Callable[[str], str]) -> InstanceVolume:
    if not volume.host:
        if volume.source.startswith(VOLUME_PREFIX):
            return volume
        raise RefusedByPolicy(f"the volume {volume.source!r} of this node is not Argosy's")
    if not policy.allow_host_paths:
        raise RefusedByPolicy(f"this node's policy does not allow its path {volume.source!r}")
    try:
        wanted = _canonical(real(volume.source))
    except OSError as error:
        why = error.strerror or error
        raise RefusedByPolicy(f"this node cannot judge its path {volume.source!r}: {why}") from error
    if not any(_within(wanted, root) for root in _roots(policy, real)):
        raise RefusedByPolicy(f"this node's policy does not allow its path {volume.source!r}")
    return replace(volume, source=wanted)


def _roots(policy: Policy, real: Callable[[str], str]) -> Iterator[str]:
    for allowed in policy.allow_host_paths:
        with suppress(OSError):  # what is not there, or not to be seen, allows nothing
            yield _canonical(real(allowed))


def _within(path: str, directory: str) -> bool:
    return directory == "/" or path == directory or path.startswith(f"{directory}/")


def _canonical(path: str) -> str:
    return "/" + normpath(path).lstrip("/")
