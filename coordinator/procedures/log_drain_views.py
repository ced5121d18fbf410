"""What log drains are made of as the API shows and takes them: secrets go in and never come out."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from coordinator.errors import BadRequest
from coordinator.logs.drains.courier import DrainState, DrainStatus
from coordinator.logs.drains.targets import DeliveryError, problem, trust
from coordinator.procedures.inputs import Id, View
from coordinator.procedures.log_lines import Search
from coordinator.store.log_drains import (
    AuthType,
    DrainConfig,
    DrainFilter,
    DrainSecret,
    DrainType,
    Encoding,
    LogDrainRecord,
)
from shared.kit.clock import iso
from shared.spec.container import MASK, Part

DrainName = Annotated[str, Meta(min_length=2, max_length=64)]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]
Word = Annotated[str, Meta(max_length=256)]
HeaderName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$(?!\n)")]
HeaderValue = Annotated[str, Meta(max_length=4096, pattern=r"^[\x20-\x7e]*$(?!\n)")]
Headers = Annotated[dict[HeaderName, HeaderValue], Meta(max_length=20)]
LabelName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$(?!\n)")]
Labels = Annotated[dict[LabelName, Word], Meta(max_length=20)]
Facility = Annotated[int, Meta(ge=0, le=23)]
Certificate = Annotated[str, Meta(max_length=65536)]
RESERVED_HEADERS = {
    *("authorization", "connection", "content-encoding", "content-length", "content-type", "host"),
    *("te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
}


class DrainAuth(Part, frozen=True, kw_only=True):
    """`token`: of bearer. `username`, `password`: of basic. What was stored reads back as `***`, and `***` keeps it."""

    type: AuthType = "none"
    token: Annotated[str, Meta(max_length=8192, pattern=r"^[\x21-\x7e]*$(?!\n)")] = ""
    username: Annotated[str, Meta(max_length=256, pattern=r"^[^:\x00-\x1f\x7f]*$(?!\n)")] = ""
    password: Annotated[str, Meta(max_length=4096)] = ""


class DrainSelection(Part, frozen=True, kw_only=True):
    """Only lines of this project, environment or container, and that contain `search`."""

    project_id: Id | None = None
    environment_id: Id | None = None
    container_id: Id | None = None
    search: Search = ""


class CreateDrain(Part, frozen=True, kw_only=True):
    """`url`: http:// or https:// for loki, otlp and http, where the first two need no path; tcp://host:port, tls:// or udp:// for
    syslog. `headers`: sent along, such as X-Scope-OrgID; their values are secrets. `labels`: added to every line, but for syslog's.
    `encoding`: of otlp. `facility`: of syslog. `caCertificate`: PEM, when the other side's certificate is of nobody that machines
    know."""

    organization_id: Id
    name: DrainName
    type: DrainType
    url: Url
    auth: DrainAuth = DrainAuth()
    headers: Headers = {}
    labels: Labels = {}
    encoding: Encoding = "protobuf"
    gzip: bool = True
    facility: Facility = 16
    ca_certificate: Certificate = ""
    filter: DrainSelection = DrainSelection()
    enabled: bool = True


class UpdateDrain(Part, frozen=True, kw_only=True):
    """What is left out stays. Lines that are buffered go to where the drain leads now."""

    drain_id: Id
    name: DrainName | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    auth: DrainAuth | UnsetType = UNSET
    headers: Headers | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    encoding: Encoding | UnsetType = UNSET
    gzip: bool | UnsetType = UNSET
    facility: Facility | UnsetType = UNSET
    ca_certificate: Certificate | UnsetType = UNSET
    filter: DrainSelection | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class DrainStatusView(View, frozen=True):
    """Lines since the drain was made. `dropped`: lost wherever on the way. `failing`: the last try failed; others follow."""

    state: Literal["disabled", "delivering", "failing"]
    delivered: int
    dropped: int
    buffered: int
    last_error: str | None
    last_error_at: str | None
    last_delivered_at: str | None


class DrainView(View, frozen=True):
    """Secrets are shown as `***`."""

    id: str
    organization_id: str
    name: str
    type: str
    url: str
    auth: dict[str, str]
    headers: dict[str, str]
    labels: dict[str, str]
    encoding: str
    gzip: bool
    facility: int
    ca_certificate: str
    filter: dict[str, str | None]
    enabled: bool
    status: DrainStatusView
    created_at: str
    updated_at: str


class DrainTest(View, frozen=True):
    """`error`: what went wrong, null when the line was taken."""

    ok: bool
    error: str | None
    duration_ms: int


def view(record: LogDrainRecord, status: DrainStatus | None) -> DrainView:
    config = record.config
    return DrainView(
        id=record.id,
        organization_id=record.organization_id,
        name=record.name,
        type=record.type,
        url=config.url,
        auth=_auth_view(config),
        headers=dict.fromkeys(config.header_names, MASK),
        labels=config.labels,
        encoding=config.encoding,
        gzip=config.gzip,
        facility=config.facility,
        ca_certificate=config.ca,
        filter=_filter_view(config.filter),
        enabled=record.enabled,
        status=_status_view(status or DrainStatus(), record.enabled),
        created_at=iso(record.created_at),
        updated_at=iso(record.updated_at),
    )


def _auth_view(config: DrainConfig) -> dict[str, str]:
    match config.auth:
        case "bearer":
            return {"type": "bearer", "token": MASK}
        case "basic":
            return {"type": "basic", "username": config.username, "password": MASK}
        case "none":
            return {"type": "none"}


def _filter_view(filtered: DrainFilter) -> dict[str, str | None]:
    return {
        "projectId": filtered.project_id,
        "environmentId": filtered.environment_id,
        "containerId": filtered.container_id,
        "search": filtered.search,
    }


def _status_view(status: DrainStatus, enabled: bool) -> DrainStatusView:
    state: DrainState = "disabled" if not enabled else "delivering" if status.state == "disabled" else status.state
    return DrainStatusView(
        state=state,
        delivered=status.delivered,
        dropped=status.dropped,
        buffered=status.buffered,
        last_error=status.last_error,
        last_error_at=iso(status.last_error_at) if status.last_error_at is not None else None,
        last_delivered_at=iso(status.last_delivered_at) if status.last_delivered_at is not None else None,
    )


def with_auth(config: DrainConfig, secret: DrainSecret, auth: DrainAuth) -> tuple[DrainConfig, DrainSecret]:
    """Raises BadRequest."""
    credential = auth.token if auth.type == "bearer" else auth.password if auth.type == "basic" else ""
    if credential == MASK:
        if config.auth != auth.type or not secret.credential:
            raise BadRequest(f"auth: {MASK!r} stands for what is stored, and no {auth.type} credential is")
        credential = secret.credential
    if auth.type == "bearer" and not credential:
        raise BadRequest("auth.token: is required for bearer")
    if auth.type == "basic" and not auth.username:
        raise BadRequest("auth.username: is required for basic")
    username = auth.username if auth.type == "basic" else ""
    return (
        msgspec.structs.replace(config, auth=auth.type, username=username),
        msgspec.structs.replace(secret, credential=credential),
    )


def with_headers(config: DrainConfig, secret: DrainSecret, headers: Headers) -> tuple[DrainConfig, DrainSecret]:
    """Raises BadRequest."""
    values: dict[str, str] = {}
    for name, value in headers.items():
        if name.lower() in RESERVED_HEADERS:
            raise BadRequest(f"headers.{name}: is set by the drain itself")
        if value == MASK:
            if name not in secret.headers:
                raise BadRequest(f"headers.{name}: {MASK!r} stands for a stored value, and there is none")
            value = secret.headers[name]
        values[name] = value
    if len({name.lower() for name in values}) != len(values):
        raise BadRequest("headers: a name is given twice")
    return (
        msgspec.structs.replace(config, header_names=tuple(sorted(values))),
        msgspec.structs.replace(secret, headers=values),
    )


def filter_of(selection: DrainSelection) -> DrainFilter:
    return DrainFilter(
        project_id=selection.project_id,
        environment_id=selection.environment_id,
        container_id=selection.container_id,
        search=selection.search,
    )


def check(kind: DrainType, config: DrainConfig) -> None:
    """Reads certificates: not for the event loop. Raises BadRequest."""
    wrong = problem(kind, config.url)
    if wrong:
        raise BadRequest(f"url: {wrong}")
    if kind == "syslog" and (config.auth != "none" or config.header_names):
        raise BadRequest("auth: syslog has neither credentials nor headers")
    try:
        trust(config)
    except DeliveryError as error:
        raise BadRequest(str(error)) from error
