"""What became of each drain's lines, for whoever asks: filled by the shipper, empty where none runs."""

from coordinator.logs.drains.courier import Courier, DrainStatus
from coordinator.store.log_drains import LogDrainRecord


class DrainBoard:
    def __init__(self) -> None:
        self.couriers: dict[str, Courier] = {}

    def status(self, drain_id: str) -> DrainStatus | None:
        """None while the shipper has not seen the drain yet."""
        courier = self.couriers.get(drain_id)
        return None if courier is None else courier.status

    def statuses(self) -> list[tuple[LogDrainRecord, DrainStatus]]:
        return [(courier.record, courier.status) for courier in self.couriers.values()]
