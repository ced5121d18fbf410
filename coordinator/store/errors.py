"""What can go wrong with the database as a whole; a broken constraint stays SQLAlchemy's `IntegrityError`.

Exception classes do not tell the two apart: from PostgreSQL a server that shuts down arrives as plain `DBAPIError`, and a value
that no column can hold as `InterfaceError`. The server's own code (SQLSTATE) does, where there is one.
"""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_OUTAGES = frozenset({"08", "28", "3D", "53", "57", "58", "XX"})
"""SQLSTATE classes: connection, authorization, no such database, resources, intervention, the system's errors, internal ones."""


class StoreError(Exception):
    """The database cannot be opened, reached or written. The message is one line for an operator and names no password."""


def is_outage(error: BaseException) -> bool:
    """The database's own trouble (disk full, connection gone), not that of the statement or its values."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeout | OSError)
    state: str | None = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or state is not None:
        return error.connection_invalidated or (state or "")[:2] in _OUTAGES
    about_a_value = isinstance(getattr(error.orig, "orig", None), ValueError)
    return isinstance(error, OperationalError | InterfaceError) and not about_a_value
