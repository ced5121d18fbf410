"""The coordinator: it holds desired state and the API, decides what should run where, and drives nothing directly."""

from importlib.metadata import version

VERSION = version("argosy")
