"""What can go wrong with the database as a whole; a broken constraint stays SQLAlchemy's `IntegrityError`."""


class StoreError(Exception):
    """The database cannot be opened, reached or written. The message is one line for an operator and names no password."""
