"""What drains send, read by others: OpenTelemetry's own messages, a JSON parser, and an RFC 5424 reader of this file's."""

import json
import re
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from coordinator.logs.drains import loki, ndjson, otlp, protobuf, syslog
from coordinator.logs.drains.lines import NOTICE, Entry, Line, Origin, pack, stamp, unpack
from coordinator.store.log_drains import Encoding

WEB = Origin(
    organization_id="org_1",
    project_id="proj_1",
    project="shop",
    environment_id="env_1",
    environment="production",
    container_id="ctr_1",
    container="web",
    instance_id="inst_1",
    node_id="node_1",
)
OTHER = msgspec.structs.replace(WEB, container="db", container_id="ctr_2", instance_id="inst_2", node_id="node_2")
AT = 1_700_000_000_123_456_789
ENTRIES: list[Entry] = [
    (WEB, Line(AT, 0, 1, "hello")),
    (OTHER, Line(AT + 1, 0, 2, 'ünïcode "quoted" \\ ] and\nnew line')),
    (WEB, Line(AT - 5, 0, 1, "")),
    (WEB, Line(AT + 2, 0, NOTICE, "4 lines dropped", 4)),
    (Origin("org_1"), Line(AT + 3, 0, NOTICE, "7 lines were dropped", 7)),
]
LABELS = {"tier": "gold"}


def test_blocks_come_back_as_they_were() -> None:
    found = unpack(pack(ENTRIES))
    assert [(origin, line.at_ns, line.stream, line.text, line.dropped) for origin, line in found] == [
        (origin, line.at_ns, line.stream, line.text, line.dropped) for origin, line in ENTRIES
    ]
    for broken in (
        b"",
        b"\xc1",
        pack(ENTRIES)[:-3],
        msgspec.msgpack.encode({"origins": [], "lines": [[1, 0, 1, "x"]]}),
    ):
        with pytest.raises(ValueError):
            unpack(broken)


def test_times() -> None:
    assert stamp(AT) == "2023-11-14T22:13:20.123456789Z"
    assert stamp(AT, 6) == "2023-11-14T22:13:20.123456Z"


def test_loki_groups_by_labels_in_order_of_time() -> None:
    body = loki.encode(ENTRIES, LABELS)
    streams = json.loads(body)["streams"]
    assert streams[0] == {
        "stream": {
            "tier": "gold",
            "job": "argosy",
            "organization": "org_1",
            "project": "shop",
            "environment": "production",
            "container": "web",
            "instance": "inst_1",
            "node": "node_1",
            "stream": "stdout",
        },
        "values": [[str(AT - 5), ""], [str(AT), "hello"]],
    }
    assert len(streams) == 4
    assert streams[3]["stream"] == {"tier": "gold", "job": "argosy", "organization": "org_1", "stream": "argosy"}


def test_loki_golden_bytes() -> None:
    assert loki.encode([(Origin("org_1"), Line(7, 0, NOTICE, "x"))], {}) == (
        b'{"streams":[{"stream":{"job":"argosy","organization":"org_1","stream":"argosy"},"values":[["7","x"]]}]}'
    )


def test_ndjson_is_an_object_a_line() -> None:
    body = ndjson.encode(ENTRIES, LABELS)
    assert body.endswith(b"\n")
    found = [json.loads(line) for line in body.decode().split("\n")[:-1]]
    assert found[1] == {
        "ts": "2023-11-14T22:13:20.123456790Z",
        "organizationId": "org_1",
        "projectId": "proj_1",
        "project": "shop",
        "environmentId": "env_1",
        "environment": "production",
        "containerId": "ctr_2",
        "container": "db",
        "instanceId": "inst_2",
        "nodeId": "node_2",
        "stream": "stderr",
        "line": ENTRIES[1][1].text,
        "labels": {"tier": "gold"},
    }
    assert found[3]["dropped"] == 4


def decoded(encoding: Encoding) -> ExportLogsServiceRequest:
    body = otlp.encode(ENTRIES, LABELS, encoding)
    if encoding == "json":
        return json_format.Parse(body, ExportLogsServiceRequest())
    request = ExportLogsServiceRequest()
    request.ParseFromString(body)
    return request


def test_otlp_says_the_same_in_both_encodings() -> None:
    assert decoded("json") == decoded("protobuf")


def test_otlp_is_what_opentelemetry_reads() -> None:
    request = decoded("protobuf")
    assert len(request.resource_logs) == 3
    web = request.resource_logs[0]
    attributes = {each.key: each.value.string_value for each in web.resource.attributes}
    assert attributes == {
        "tier": "gold",
        "service.name": "web",
        "service.namespace": "shop",
        "service.instance.id": "inst_1",
        "deployment.environment.name": "production",
        "host.id": "node_1",
        "argosy.organization.id": "org_1",
        "argosy.project.id": "proj_1",
        "argosy.environment.id": "env_1",
        "argosy.container.id": "ctr_1",
    }
    records = web.scope_logs[0].log_records
    assert web.scope_logs[0].scope.name == "argosy"
    assert [(record.time_unix_nano, record.body.string_value) for record in records] == [
        (AT, "hello"),
        (AT - 5, ""),
        (AT + 2, "4 lines dropped"),
    ]
    assert records[0].severity_number == 0, "nothing is claimed of a container's own lines"
    assert (records[2].severity_number, records[2].severity_text) == (13, "WARN")
    assert {each.key: each.value for each in records[2].attributes}["argosy.dropped"].int_value == 4
    assert request.resource_logs[1].scope_logs[0].log_records[0].body.string_value == ENTRIES[1][1].text


def test_otlp_reads_partial_refusals() -> None:
    answer: Any = ExportLogsServiceResponse()
    assert otlp.rejected(answer.SerializeToString(), "protobuf") == (0, "")
    answer.partial_success.rejected_log_records = 300
    answer.partial_success.error_message = "too old"
    assert otlp.rejected(answer.SerializeToString(), "protobuf") == (300, "too old")
    assert otlp.rejected(json_format.MessageToJson(answer).encode(), "json") == (300, "too old")
    for body in (b"", b"<html>", b"[]", b"\xff\xff\xff", b'{"partialSuccess": 3}', b"\x0a\xff"):
        assert otlp.rejected(body, "json") == (0, "")
        assert otlp.rejected(body, "protobuf") == (0, "")


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63])
def test_varints(number: int) -> None:
    data = protobuf.varint(1 << 3) + protobuf.varint(number)
    assert protobuf.fields(data) == {1: number}


SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<at>\S+) (?P<host>\S+) (?P<app>\S+) (?P<proc>\S+) (?P<id>\S+) "
    r'(?P<sd>\[(?:[^"\]]|"(?:\\["\\\]]|[^"\\\]])*")*\]) (?P<text>.*)',
    re.DOTALL,
)


def test_syslog_golden_message() -> None:
    assert syslog.message(ENTRIES[0], 16) == (
        b"<134>1 2023-11-14T22:13:20.123456Z node_1 web inst_1 stdout "
        b'[argosy@32473 organizationId="org_1" projectId="proj_1" project="shop" environmentId="env_1" '
        b'environment="production" containerId="ctr_1"] hello'
    )


def test_syslog_escapes_and_severities() -> None:
    odd = msgspec.structs.replace(WEB, project='a"b]c\\d', node_id="näme with space", container="x" * 99)
    found = SYSLOG.fullmatch(syslog.message((odd, Line(AT, 0, 2, "é\nö")), 1).decode())
    assert found is not None
    assert found["pri"] == "11"
    assert (found["host"], found["app"], found["text"]) == ("n_me_with_space", "x" * 48, "é\nö")
    assert r"project=\"a\"b" not in found["sd"]
    assert r'project="a\"b\]c\\d"' in found["sd"]
    notice = SYSLOG.fullmatch(syslog.message(ENTRIES[4], 0).decode())
    assert notice is not None
    assert (notice["pri"], notice["host"], notice["app"], notice["proc"]) == ("4", "-", "argosy", "-")
    assert 'dropped="7"' in notice["sd"]


def test_octet_counting_survives_any_text() -> None:
    messages = [syslog.message(entry, 16) for entry in ENTRIES]
    data, found = syslog.counted(messages), []
    while data:
        size, _, rest = data.partition(b" ")
        found.append(rest[: int(size)])
        data = rest[int(size) :]
    assert found == messages
