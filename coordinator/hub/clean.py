"""What a node says, brought into the limits of what is stored and shown. A node is not trusted to be sane: lengths are cut, numbers
clamped, NUL bytes (which PostgreSQL's texts do not hold) taken out."""

import math

from msgspec.structs import replace

from shared.spec.instance import InstanceReport, Phase, PortBinding
from shared.spec.node import HostSample, InstanceSample, NodeFacts
from shared.spec.reason import Reason

_MESSAGE, _SHORT = 1000, 256
_INT32 = 2**31 - 1
_INT62 = 2**62
_LATEST = 1e11
_PORTS = 128


def clean_text(text: str, limit: int = _SHORT) -> str:
    return text.replace("\0", "")[:limit]


def clean_report(report: InstanceReport) -> InstanceReport:
    healthy_elsewhere = report.phase is not Phase.RUNNING and report.health == "healthy"
    return InstanceReport(
        instance_id=clean_text(report.instance_id, 64),
        attempt=_clamp(report.attempt, 0, _INT32),
        phase=report.phase,
        health="unknown" if healthy_elsewhere else report.health,
        reason=_reason(report.reason),
        ports=[_binding(port) for port in report.ports[:_PORTS]],
        started_at=_moment(report.started_at),
        finished_at=_moment(report.finished_at),
        exit_code=None if report.exit_code is None else _clamp(report.exit_code, -_INT32, _INT32),
        image_digest=clean_text(report.image_digest, 512),
        progress=_progress(report.progress),
    )


def clean_facts(facts: NodeFacts) -> NodeFacts:
    """Lengths and ranges were checked when the frame was decoded."""
    engine = replace(
        facts.engine,
        name=clean_text(facts.engine.name),
        version=clean_text(facts.engine.version),
        api_version=clean_text(facts.engine.api_version),
        reason=_reason(facts.engine.reason),
    )
    names = ("hostname", "address", "platform", "kernel", "agent_version", "boot_id")
    texts = {name: clean_text(getattr(facts, name)) for name in names}
    labels = {key: clean_text(value) for key, value in facts.labels.items()}
    return replace(facts, engine=engine, labels=labels, **texts)


def clean_host(sample: HostSample) -> HostSample:
    return replace(
        sample,
        at=_moment(sample.at) or 0.0,
        cpu=_share(sample.cpu),
        memory_used=_clamp(sample.memory_used, 0, _INT62),
        memory_total=_clamp(sample.memory_total, 0, _INT62),
        disk_free=_clamp(sample.disk_free, 0, _INT62),
        load1=_share(sample.load1),
    )


def clean_sample(sample: InstanceSample) -> InstanceSample:
    names = ("memory", "memory_limit", "net_rx", "net_tx", "block_read", "block_write")
    counts = {name: _clamp(getattr(sample, name), 0, _INT62) for name in names}
    return replace(sample, at=_moment(sample.at) or 0.0, cpu=_share(sample.cpu), **counts)


def _reason(reason: Reason | None) -> Reason | None:
    if reason is None:
        return None
    return Reason(clean_text(reason.code, 64), clean_text(reason.message, _MESSAGE), _moment(reason.next_at))


def _binding(port: PortBinding) -> PortBinding:
    return PortBinding(
        port=_clamp(port.port, 0, 65535),
        host_port=_clamp(port.host_port, 0, 65535),
        address=clean_text(port.address),
        protocol=port.protocol,
    )


def _progress(progress: tuple[int, int] | None) -> tuple[int, int] | None:
    return None if progress is None else (_clamp(progress[0], 0, _INT62), _clamp(progress[1], 0, _INT62))


def _moment(at: float | None) -> float | None:
    return at if at is not None and math.isfinite(at) and 0 <= at <= _LATEST else None


def _share(value: float) -> float:
    return min(max(value, 0.0), 1e6) if math.isfinite(value) else 0.0


def _clamp(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)
