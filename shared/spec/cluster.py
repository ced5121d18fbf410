"""A cluster: nodes managed through one engine."""

from typing import Literal

Orchestrator = Literal["docker"]
Provider = Literal["byo"]
ClusterStatus = Literal["provisioning", "running", "degraded", "updating", "deleting", "error"]
