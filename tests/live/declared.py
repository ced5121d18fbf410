"""Declarations that many live tests make, with checks that are quick to fail and rollouts that are not watched for long."""

from __future__ import annotations

from typing import Any

QUICK = {"path": "/health", "interval": 1, "timeout": 1, "retries": 2, "startPeriod": 1}
ROLLING = {"type": "rolling", "maxSurge": 1, "maxUnavailable": 0, "monitor": 1}
RECREATE = {"type": "recreate", "monitor": 1}


def web(**more: Any) -> dict[str, Any]:
    """For the images WEB_*: port 8080 and a health check on it."""
    return {"port": 8080, "healthCheck": QUICK, "strategy": ROLLING, **more}


def plain(**more: Any) -> dict[str, Any]:
    """For images without a port: healthy as soon as they run."""
    return {"strategy": ROLLING, **more}


def delayed(seconds: float) -> list[dict[str, Any]]:
    """The environment that makes a WEB image listen only after so many seconds."""
    return [{"key": "START_DELAY", "value": str(seconds)}]


def on(host_name: str) -> dict[str, Any]:
    """A placement on this one host."""
    return {"constraints": [f"host=={host_name}"]}
