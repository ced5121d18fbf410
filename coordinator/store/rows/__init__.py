"""The schema, as SQLModel tables. Rows never leave `store/`: repositories return records.

Conventions: ids are opaque texts, times are Unix seconds (REAL), structured values are JSON texts of `shared.spec` structs, because
they are read and written whole. Indexes are those that a loop's or a list's query needs, no others. A `version` column counts
every write of its row, so that a commit based on an old snapshot can be refused in its WHERE clause.
"""

from sqlmodel import SQLModel

SQLModel.metadata.naming_convention = {  # the same names on both databases: a migration can only alter what has a name
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

from coordinator.store.rows import ledger, people, places, work  # noqa: E402 — the names apply to tables declared after them

__all__ = ["ledger", "people", "places", "work"]
