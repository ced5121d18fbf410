"""Alembic's scripts. `env.py` and `versions/` are loaded by path; being a package only brings them into the wheel."""
