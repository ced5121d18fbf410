"""What a log line costs of a stream's credit: one rule for who spends (the agent) and who grants (the hub).

Were it counted differently on the two sides, the difference would add up until a stream starves or floods.
"""

from collections.abc import Iterable

from shared.wire.frames import LogLine

LINE_OVERHEAD = 16
"""The most that a line's time, stream and length take on the wire: an empty line is not free."""


def line_cost(line: LogLine) -> int:
    text = line.text
    return LINE_OVERHEAD + (len(text) if text.isascii() else len(text.encode("utf-8", "replace")))


def lines_cost(lines: Iterable[LogLine]) -> int:
    """An agent sends lines while its credit is above 0, so the last one may overdraw it by less than that line's cost; the
    overdraft counts against the next grant."""
    return sum(map(line_cost, lines))
