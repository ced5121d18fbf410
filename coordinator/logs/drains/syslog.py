"""RFC 5424 messages, and their framing on a stream by RFC 6587's octet counting: a line may hold any character, newlines too.

The ids stand in structured data under the enterprise number that RFC 5612 keeps for documentation, since Argosy has none of its
own. The message has no byte order mark: the RFC asks for one before UTF-8, and receivers show it as rubbish.
"""

import re

from coordinator.logs.drains.lines import NOTICE, STREAM_WORDS, Entry, Origin, stamp

_ERROR, _WARNING, _INFORMATIONAL = 3, 4, 6
_SEVERITY = {NOTICE: _WARNING, 1: _INFORMATIONAL, 2: _ERROR}
_SD_ID = "argosy@32473"
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_ESCAPED = re.compile(r'(["\\\]])')


def message(entry: Entry, facility: int) -> bytes:
    origin, line = entry
    header = " ".join(
        (
            f"<{facility * 8 + _SEVERITY[line.stream]}>1",
            stamp(line.at_ns, 6),
            _word(origin.node_id, 255),
            _word(origin.container or "argosy", 48),
            _word(origin.instance_id, 128),
            STREAM_WORDS[line.stream],
            _data(origin, line.dropped),
        )
    )
    return f"{header} {line.text}".encode("utf-8", "replace")


def counted(messages: list[bytes]) -> bytes:
    return b"".join(b"%d %b" % (len(each), each) for each in messages)


def _word(text: str, longest: int) -> str:
    return _UNPRINTABLE.sub("_", text)[:longest] or "-"


def _data(origin: Origin, dropped: int) -> str:
    known = {
        "organizationId": origin.organization_id,
        "projectId": origin.project_id,
        "project": origin.project,
        "environmentId": origin.environment_id,
        "environment": origin.environment,
        "containerId": origin.container_id,
        "dropped": str(dropped) if dropped else "",
    }
    given = "".join(f' {name}="{_ESCAPED.sub(_escape, value)}"' for name, value in known.items() if value)
    return f"[{_SD_ID}{given}]"


def _escape(found: re.Match[str]) -> str:
    return "\\" + found[1]
