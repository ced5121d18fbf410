"""Desired and observed state at rest: rows, one repository per noun, the group-commit writer and the change feed."""
