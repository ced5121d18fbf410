"""OpenTelemetry's logs over HTTP (`/v1/logs`), in both encodings of its protocol: Protocol Buffers and JSON.

A resource is an instance; its attributes are OpenTelemetry's own words where it has some. Of the container's lines no severity is
claimed: stderr is where many programs write everything.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from coordinator import VERSION
from coordinator.logs.drains import protobuf
from coordinator.logs.drains.lines import NOTICE, STREAM_WORDS, Entry, Line, Origin
from coordinator.store.log_drains import Encoding

PATH = "/v1/logs"
CONTENT_TYPES: dict[Encoding, str] = {"protobuf": "application/x-protobuf", "json": "application/json"}
_WARN = 13
_SCOPE = "argosy"


def encode(entries: list[Entry], labels: Mapping[str, str], encoding: Encoding) -> bytes:
    """An ExportLogsServiceRequest."""
    grouped: dict[Origin, list[Line]] = {}
    for origin, line in entries:
        grouped.setdefault(origin, []).append(line)
    match encoding:
        case "json":
            made = [_resource_logs_json(origin, lines, labels) for origin, lines in grouped.items()]
            return msgspec.json.encode({"resourceLogs": made})
        case "protobuf":
            return b"".join(
                protobuf.message(1, _resource_logs(origin, lines, labels)) for origin, lines in grouped.items()
            )


def rejected(body: bytes, encoding: Encoding) -> tuple[int, str]:
    """How many records an ExportLogsServiceResponse says were refused, and why. An answer that is none says nothing."""
    if not body:
        return 0, ""
    try:
        match encoding:
            case "json":
                partial = json.loads(body).get("partialSuccess") or {}
                return int(partial.get("rejectedLogRecords", 0)), str(partial.get("errorMessage", ""))
            case "protobuf":
                told = protobuf.fields(body).get(1, b"")
                found = protobuf.fields(told) if isinstance(told, bytes) else {}
                count, message = found.get(1, 0), found.get(2, b"")
                text = message.decode("utf-8", "replace") if isinstance(message, bytes) else ""
                return (count if isinstance(count, int) else 0), text
    except (ValueError, AttributeError, TypeError):
        return 0, ""


def _attributes(origin: Origin, labels: Mapping[str, str]) -> dict[str, str]:
    known = {
        **labels,
        "service.name": origin.container or "argosy",
        "service.namespace": origin.project,
        "service.instance.id": origin.instance_id,
        "deployment.environment.name": origin.environment,
        "host.id": origin.node_id,
        "argosy.organization.id": origin.organization_id,
        "argosy.project.id": origin.project_id,
        "argosy.environment.id": origin.environment_id,
        "argosy.container.id": origin.container_id,
    }
    return {name: value for name, value in known.items() if value}


def _resource_logs(origin: Origin, lines: list[Line], labels: Mapping[str, str]) -> bytes:
    resource = b"".join(_key_value(1, name, value) for name, value in _attributes(origin, labels).items())
    scope = protobuf.text(1, _SCOPE) + protobuf.text(2, VERSION)
    records = b"".join(protobuf.message(2, _record(line)) for line in lines)
    return protobuf.message(1, resource) + protobuf.message(2, protobuf.message(1, scope) + records)


def _record(line: Line) -> bytes:
    severity = protobuf.number(2, _WARN) + protobuf.text(3, "WARN") if line.stream == NOTICE else b""
    stream = _key_value(6, "log.iostream", STREAM_WORDS[line.stream])
    dropped = _key_number(6, "argosy.dropped", line.dropped) if line.dropped else b""
    body = protobuf.message(5, protobuf.text(1, line.text))
    return protobuf.fixed64(1, line.at_ns) + severity + body + stream + dropped


def _key_value(field: int, name: str, value: str) -> bytes:
    return protobuf.message(field, protobuf.text(1, name) + protobuf.message(2, protobuf.text(1, value)))


def _key_number(field: int, name: str, value: int) -> bytes:
    return protobuf.message(field, protobuf.text(1, name) + protobuf.message(2, protobuf.number(3, value)))


def _resource_logs_json(origin: Origin, lines: list[Line], labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "resource": {"attributes": [_pair(name, value) for name, value in _attributes(origin, labels).items()]},
        "scopeLogs": [
            {"scope": {"name": _SCOPE, "version": VERSION}, "logRecords": [_record_json(line) for line in lines]}
        ],
    }


def _record_json(line: Line) -> dict[str, Any]:
    """64-bit numbers are texts in this encoding."""
    made: dict[str, Any] = {"timeUnixNano": str(line.at_ns)}
    if line.stream == NOTICE:
        made |= {"severityNumber": _WARN, "severityText": "WARN"}
    attributes: list[dict[str, Any]] = [_pair("log.iostream", STREAM_WORDS[line.stream])]
    if line.dropped:
        attributes.append({"key": "argosy.dropped", "value": {"intValue": str(line.dropped)}})
    return made | {"body": {"stringValue": line.text}, "attributes": attributes}


def _pair(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}
