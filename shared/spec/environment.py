"""The words of an environment's protection."""

from typing import Literal

Protection = Literal["none", "restricted", "locked"]
"""`restricted`: deployments of those who are neither admin nor owner wait for a reviewer. `locked`: only owners and admins
deploy."""
