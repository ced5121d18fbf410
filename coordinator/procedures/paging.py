"""Lists by keyset: one row more than asked for tells whether there is a next page."""

from typing import Protocol, TypeVar

from coordinator.procedures.context import Context
from coordinator.procedures.inputs import Page


class HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=HasId)


def fetch(page: Page) -> int:
    """How many rows to read for this page."""
    return page.limit + 1


def cut(context: Context, page: Page, rows: list[R]) -> list[R]:
    """The page itself, with the cursor of the next one left in the context."""
    if len(rows) > page.limit:
        context.next_cursor = rows[page.limit - 1].id
    return rows[: page.limit]
