"""One JSON object a line: what any HTTP endpoint can read without knowing Argosy."""

from collections.abc import Mapping

import msgspec

from coordinator.logs.drains.lines import STREAM_WORDS, Entry, stamp

CONTENT_TYPE = "application/x-ndjson"
_encoder = msgspec.json.Encoder()


def encode(entries: list[Entry], labels: Mapping[str, str]) -> bytes:
    return b"".join(_encoder.encode(_object(entry, labels)) + b"\n" for entry in entries)


def _object(entry: Entry, labels: Mapping[str, str]) -> dict[str, object]:
    origin, line = entry
    made: dict[str, object] = {
        "ts": stamp(line.at_ns),
        "organizationId": origin.organization_id,
        "projectId": origin.project_id,
        "project": origin.project,
        "environmentId": origin.environment_id,
        "environment": origin.environment,
        "containerId": origin.container_id,
        "container": origin.container,
        "instanceId": origin.instance_id,
        "nodeId": origin.node_id,
        "stream": STREAM_WORDS[line.stream],
        "line": line.text,
    }
    if line.dropped:
        made["dropped"] = line.dropped
    if labels:
        made["labels"] = dict(labels)
    return made
