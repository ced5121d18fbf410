"""Figures as JSON, for `make bench-…`: each module prints one object."""
