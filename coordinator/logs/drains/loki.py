"""Grafana Loki's push API: `{"streams": [{"stream": {labels}, "values": [["<ns>", "line"], …]}]}`.

Lines of one set of labels stand together, in the order of their times, which older versions insist on. The labels are words that
people search by; instance and node are among them, as pods are where Loki is at home.
"""

from collections.abc import Mapping

import msgspec

from coordinator.logs.drains.lines import STREAM_WORDS, Entry, Origin

PATH = "/loki/api/v1/push"
CONTENT_TYPE = "application/json"


def encode(entries: list[Entry], labels: Mapping[str, str]) -> bytes:
    streams: dict[tuple[Origin, int], list[tuple[int, str]]] = {}
    for origin, line in entries:
        streams.setdefault((origin, line.stream), []).append((line.at_ns, line.text))
    return msgspec.json.encode(
        {
            "streams": [
                {
                    "stream": {**labels, **_labels(origin, stream)},
                    "values": [[str(at_ns), text] for at_ns, text in sorted(values, key=lambda value: value[0])],
                }
                for (origin, stream), values in streams.items()
            ]
        }
    )


def _labels(origin: Origin, stream: int) -> dict[str, str]:
    """Loki takes no empty label: an absent one says the same."""
    known = {
        "job": "argosy",
        "organization": origin.organization_id,
        "project": origin.project,
        "environment": origin.environment,
        "container": origin.container,
        "instance": origin.instance_id,
        "node": origin.node_id,
        "stream": STREAM_WORDS[stream],
    }
    return {name: value for name, value in known.items() if value}
