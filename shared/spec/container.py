"""What a user declares: an image to keep running, with everything it needs, on any engine.

The limits stated here are the ones the API documents and enforces. `problems` holds the rules that span several fields.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from shared.spec.quantity import byte_count, cpu_millis

MAX_REPLICAS = 100
MAX_ENV_BYTES = 32 * 1024
"""Keys and values together: an assignment must fit one 64 KiB frame."""
MAX_PASSWORD = 4096
MAX_SENT_BYTES = 56 * 1024
"""Of all that a node is told of a declaration. What is added on the way (ids, names of volumes, sealing) fits into the rest of the
frame."""
MASK = "***"
"""What a secret value reads back as; writing it back keeps the stored value."""

ContainerType = Literal["deployment", "statefulset"]
RestartPolicy = Literal["always", "on-failure", "never"]

Name = Annotated[str, Meta(min_length=2, max_length=64, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$(?!\n)")]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[int, Meta(ge=1, le=3600)]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
AbsolutePath = Annotated[str, Meta(min_length=2, max_length=512, pattern=r"^/")]
LabelKey = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$(?!\n)")
]
Labels = Annotated[dict[LabelKey, Annotated[str, Meta(max_length=256)]], Meta(max_length=64)]
RegistryId = Annotated[str, Meta(max_length=64, pattern=r"^reg_[A-Za-z0-9_-]+$(?!\n)")]
ImageName = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$(?!\n)")]

_CONSTRAINT = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9._/-]*)(?P<op>==|!=)(?P<value>[A-Za-z0-9._/-]+)")
_RESERVED_LABEL = "argosy."


class Part(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """Any piece of a declaration: camelCase as in the API, unknown fields refused."""


class EnvVar(Part, frozen=True):
    """`secret` values rest encrypted, travel sealed to the node, and read back as `***`."""

    key: Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$(?!\n)")]
    value: Annotated[str, Meta(max_length=2 * MAX_ENV_BYTES)] = ""  # a third longer once concealed: see `problems`
    secret: bool = False

    def __repr__(self) -> str:
        return f"EnvVar({self.key!r}, {MASK if self.secret else self.value!r})"


class Resources(Part, frozen=True):
    """Limits are enforced by the engine; requests are what placement reserves and default to the limits."""

    cpu_limit: str | None = None
    memory_limit: str | None = None
    cpu_request: str | None = None
    memory_request: str | None = None


class HealthCheck(Part, frozen=True):
    """Run by the agent, from outside: no curl is needed in the image. Seconds throughout.

    Until the first success it is tried more often than `interval`, so that a ready instance is not kept waiting. An instance
    is unhealthy after `retries` failures in a row that fall outside `start_period`.
    """

    type: Literal["http", "tcp", "exec"] = "http"
    path: Annotated[str, Meta(max_length=1024, pattern=r"^/")] = "/"
    port: PortNumber | None = None
    command: Annotated[list[Text], Meta(max_length=64)] = field(default_factory=list)
    interval: Seconds = 10
    timeout: Seconds = 5
    retries: Annotated[int, Meta(ge=1, le=100)] = 3
    start_period: Annotated[int, Meta(ge=0, le=3600)] = 10


class Port(Part, frozen=True):
    """`host_port` None: the engine picks a free one and the instance reports it."""

    port: PortNumber
    host_port: PortNumber | None = None
    protocol: Literal["tcp", "udp"] = "tcp"


class Volume(Part, frozen=True):
    """A named volume of the container, one for each slot, kept on its node; or with `host_path` a directory of the node itself,
    which nodes refuse unless their own policy allows it. `size_gb` is the free space a node must have when it first gets it."""

    name: Name
    mount_path: AbsolutePath
    size_gb: Annotated[int, Meta(ge=1, le=65536)] | None = None
    host_path: AbsolutePath | None = None
    read_only: bool = False


class Placement(Part, frozen=True):
    """`constraints` read `label==value` or `label!=value`, also on `node.id`, `node.hostname`, `node.platform`.
    `spread` is a node label whose values share the replicas evenly; `pack` fills nodes one by one instead of spreading."""

    constraints: Annotated[list[Annotated[str, Meta(max_length=400)]], Meta(max_length=32)] = field(
        default_factory=list
    )
    spread: LabelKey | None = None
    node_ids: Annotated[list[Text], Meta(max_length=1000)] = field(default_factory=list)
    pack: bool = False
    max_per_node: Annotated[int, Meta(ge=1, le=MAX_REPLICAS)] | None = None
    platform: Annotated[str, Meta(pattern=r"^[a-z0-9]+/[a-z0-9]+$(?!\n)", max_length=64)] | None = None


class Strategy(Part, frozen=True):
    """How a release replaces the one before. `max_surge` more than declared may run, `max_unavailable` of the declared may be
    missing, at any moment. `monitor`: seconds a finished rollout stays watched. `progress_deadline`: seconds without any
    slot getting ahead before it counts as failed."""

    type: Literal["rolling", "recreate"] = "rolling"
    max_surge: Annotated[int, Meta(ge=0, le=MAX_REPLICAS)] = 1
    max_unavailable: Annotated[int, Meta(ge=0, le=MAX_REPLICAS)] = 0
    auto_rollback: bool = True
    monitor: Annotated[int, Meta(ge=0, le=3600)] = 5
    progress_deadline: Annotated[int, Meta(ge=5, le=86400)] = 600


class Security(Part, frozen=True):
    """What a node refuses by default, even from its coordinator; its own policy file may allow it."""

    privileged: bool = False
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False


class RegistryCredentials(Part, frozen=True):
    """Used to pull the image; the password is kept as a secret value is."""

    username: Text
    password: Annotated[str, Meta(min_length=1, max_length=2 * MAX_PASSWORD)]  # as for `EnvVar.value`

    def __repr__(self) -> str:
        return f"RegistryCredentials({self.username!r}, {MASK})"


class Declaration(Part, frozen=True):
    """Everything about a container that a user declares besides its image, name and number of replicas."""

    type: ContainerType = "deployment"
    port: PortNumber | None = None
    ports: Annotated[list[Port], Meta(max_length=64)] = field(default_factory=list)
    env: Annotated[list[EnvVar], Meta(max_length=512)] = field(default_factory=list)
    command: Annotated[list[Annotated[str, Meta(max_length=8192)]], Meta(max_length=256)] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)
    health_check: HealthCheck | None = None
    volumes: Annotated[list[Volume], Meta(max_length=32)] = field(default_factory=list)
    placement: Placement = field(default_factory=Placement)
    strategy: Strategy = field(default_factory=Strategy)
    restart_policy: RestartPolicy = "always"
    stop_grace_period: Annotated[int, Meta(ge=0, le=600)] = 10
    labels: Labels = field(default_factory=dict)
    security: Security = field(default_factory=Security)


class Template(Declaration, frozen=True, kw_only=True):
    """What a release freezes: everything that makes an instance what it is. `registry_id`: the organisation's registry that the
    image is pulled from, with what its credentials are at that time."""

    image: ImageName
    credentials: RegistryCredentials | None = None
    registry_id: RegistryId | None = None


def problems(template: Template) -> Iterator[tuple[str, str]]:
    """Broken rules that a single field's type cannot state, as (field, sentence)."""
    yield from _quantity_problems(template.resources)
    yield from _health_problems(template)
    yield from _duplicate_problems(template)
    for index, text in enumerate(template.placement.constraints):
        if _CONSTRAINT.fullmatch(text) is None:
            yield f"placement.constraints[{index}]", "must read 'label==value' or 'label!=value'"
    for key in template.labels:
        if key.startswith(_RESERVED_LABEL):
            yield f"labels.{key}", f"labels that begin with {_RESERVED_LABEL!r} are Argosy's own"
    strategy = template.strategy
    if strategy.type == "rolling" and strategy.max_surge == 0 and strategy.max_unavailable == 0:
        yield "strategy.maxSurge", "maxSurge and maxUnavailable cannot both be 0: nothing could ever be replaced"
    if sum(len(var.key) + len(var.value.encode()) for var in template.env) > MAX_ENV_BYTES:
        yield "env", f"keys and values together may not exceed {MAX_ENV_BYTES} bytes"
    if template.credentials is not None and template.registry_id is not None:
        yield "registryId", "give either the registry or credentials of the container's own"
    if template.credentials is not None and len(template.credentials.password.encode()) > MAX_PASSWORD:
        yield "credentials.password", f"may not exceed {MAX_PASSWORD} bytes"
    if sum(len(word.encode()) for word in template.command) > 16 * 1024:
        yield "command", "may not exceed 16384 bytes in all"
    yield from _size_problems(template)


def constraint_parts(text: str) -> tuple[str, bool, str]:
    """(label key, whether it must be equal, value) of a valid constraint."""
    match = _CONSTRAINT.fullmatch(text)
    assert match is not None, "constraints are validated before they are stored"
    return match["key"], match["op"] == "==", match["value"]


def all_ports(template: Template) -> list[Port]:
    """The declared ports, with the short form `port` as one that gets a free host port."""
    if template.port is None or any(port.port == template.port and port.protocol == "tcp" for port in template.ports):
        return list(template.ports)
    return [Port(port=template.port), *template.ports]


def cpu_request(resources: Resources) -> int:
    """Thousandths of a processor that placement reserves; 0 when nothing was declared."""
    text = resources.cpu_request or resources.cpu_limit
    return cpu_millis(text) if text else 0


def memory_request(resources: Resources) -> int:
    """Bytes that placement reserves; 0 when nothing was declared."""
    text = resources.memory_request or resources.memory_limit
    return byte_count(text) if text else 0


def _quantity_problems(resources: Resources) -> Iterator[tuple[str, str]]:
    parsed: dict[str, int] = {}
    for name, text, parse in (
        ("cpuLimit", resources.cpu_limit, cpu_millis),
        ("cpuRequest", resources.cpu_request, cpu_millis),
        ("memoryLimit", resources.memory_limit, byte_count),
        ("memoryRequest", resources.memory_request, byte_count),
    ):
        try:
            if text is not None:
                parsed[name] = parse(text)
        except ValueError as error:
            yield f"resources.{name}", str(error)
    if parsed.get("memoryLimit", 6 * 2**20) < 6 * 2**20:
        yield "resources.memoryLimit", "must be at least 6Mi: no engine starts a process in less"
    for limit, request in (("cpuLimit", "cpuRequest"), ("memoryLimit", "memoryRequest")):
        if limit in parsed and request in parsed and parsed[request] > parsed[limit]:
            yield f"resources.{request}", f"must not exceed {limit}"


def _health_problems(template: Template) -> Iterator[tuple[str, str]]:
    check = template.health_check
    if check is None:
        return
    if check.type == "exec":
        if not check.command:
            yield "healthCheck.command", "is required for the type 'exec'"
    elif check.port is None and template.port is None:
        yield "healthCheck.port", f"is required for the type {check.type!r} when the container has no port"
    if check.type != "exec" and check.command:
        yield "healthCheck.command", "belongs to the type 'exec' only"


def _size_problems(template: Template) -> Iterator[tuple[str, str]]:
    """Each field has its own limits; together they could still outgrow a frame, and the node would never hear of it."""
    sizes = {
        "command": template.command,
        "credentials": template.credentials,
        "env": template.env,
        "healthCheck": template.health_check,
        "labels": template.labels,
        "ports": template.ports,
        "volumes": template.volumes,
    }
    measured = {name: len(msgspec.msgpack.encode(value)) for name, value in sizes.items()}
    total = sum(measured.values())
    if total > MAX_SENT_BYTES:
        largest = max(measured, key=lambda name: measured[name])
        rule = f"a node is told at most {MAX_SENT_BYTES} bytes of a declaration"
        yield largest, f"{rule}; this one has {total}, of which {measured[largest]} are here"


def _duplicate_problems(template: Template) -> Iterator[tuple[str, str]]:
    bound = [(port.host_port, port.protocol) for port in template.ports if port.host_port is not None]
    for name, values in (
        ("env", [var.key for var in template.env]),
        ("ports", [(port.port, port.protocol) for port in template.ports]),
        ("ports", bound),
        ("volumes", [volume.name for volume in template.volumes]),
        ("volumes", [volume.mount_path for volume in template.volumes]),
    ):
        seen: set[object] = set()
        for value in values:
            if value in seen:
                yield name, f"{value!r} is declared twice"
            seen.add(value)
