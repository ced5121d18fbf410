"""The agent: one on every node. It works alone while its coordinator is away."""

from importlib.metadata import version

VERSION = version("argosy")
