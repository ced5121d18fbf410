"""What a call came to, before a door writes it down."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """`output`: what the procedure returned, or a `table.Stream`. `state`: that of the thing it shows, where it has one: the ETag
    begins with it."""

    output: Any
    status: int
    headers: dict[str, str]
    state: str | None = None
