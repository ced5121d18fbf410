"""Writes that several nouns make in the same way: under a name that must be free, and of the fields that were given."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from msgspec import UNSET
from sqlalchemy.exc import IntegrityError

from coordinator.errors import Conflict
from coordinator.procedures.context import Context
from coordinator.store.database import Tx
from shared.spec.container import Part

T = TypeVar("T")


async def write_named(context: Context, unit: Callable[[Tx], Awaitable[T]], home_has: str, name: object) -> T:
    """Raises Conflict when the name is taken; `home_has` begins that sentence: "the project already has an environment"."""
    try:
        return await context.services.store.write(unit)
    except IntegrityError as error:
        raise Conflict(f"name: {home_has} called {name!r}") from error


def given(data: Part, *about: str) -> dict[str, Any]:
    """The fields an update names, by attribute, without those in `about`: they say what it is about."""
    values = {name: getattr(data, name) for name in data.__struct_fields__ if name not in about}
    return {name: value for name, value in values.items() if value is not UNSET}
