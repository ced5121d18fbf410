"""Tokens of registries: exchanged when new, again before they end, kept through a restart, and told to the nodes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import update

from coordinator.control.exchanges import Exchanges
from coordinator.store import instances, registries
from coordinator.store.database import Store, Tx
from coordinator.store.registries import Credentials, NotExchanged, RegistryRecord, Token
from coordinator.store.tables import registry
from coordinator.store.vault import Vault
from shared.kit.clock import SystemClock
from shared.spec.container import Template
from tests.fakes.seeds import Seeds

SERVER = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
KEY = Credentials(access_key_id="AKIA1", secret_access_key="s", region="eu-central-1")


@dataclass
class Amazon:
    life: float = 12 * 3600.0
    failing: str = ""
    asked: list[Credentials] = field(default_factory=list)

    async def exchange(self, credentials: Credentials) -> Token:
        self.asked.append(credentials)
        if self.failing:
            raise NotExchanged(self.failing)
        return Token("AWS", f"password-{len(self.asked)}", SystemClock().wall() + self.life)


@dataclass
class Desk:
    seeds: Seeds
    store: Store
    vault: Vault
    amazon: Amazon

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = Exchanges(self.store, self.vault, self.amazon.exchange, SystemClock())
        task = asyncio.create_task(loop.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def add(self, credentials: Credentials = KEY) -> str:
        compartment = self.vault.unlock(self.seeds.sealed_key, self.seeds.organization_id)

        async def unit(tx: Tx) -> None:
            record = RegistryRecord(
                id="reg_1",
                organization_id=self.seeds.organization_id,
                name="ecr",
                type="ECR",
                server=SERVER,
                credentials=registries.concealed(credentials, compartment, "reg_1"),
                created_by="user_1",
                created_at=tx.now,
                updated_at=tx.now,
            )
            await registries.insert(tx, record)

        await self.store.write(unit)
        return "reg_1"

    async def record(self) -> RegistryRecord:
        async with self.store.read() as conn:
            found = await registries.get(conn, "reg_1")
        assert found is not None
        return found

    async def until(self, holds: Callable[[RegistryRecord], bool]) -> RegistryRecord:
        async with asyncio.timeout(10):
            while not holds(record := await self.record()):
                await asyncio.sleep(0.01)
        return record

    async def login(self) -> tuple[str, str] | None:
        compartment = self.vault.unlock(self.seeds.sealed_key, self.seeds.organization_id)
        return registries.login(await self.record(), compartment)


@pytest.fixture
async def desk(store: Store) -> Desk:
    vault, seeds = Vault(bytes(32)), Seeds(store)
    seeds.sealed_key = vault.new_key(seeds.organization_id)
    await seeds.plant()
    return Desk(seeds, store, vault, Amazon())


async def test_a_new_one_is_exchanged_and_its_nodes_are_told(desk: Desk) -> None:
    node_id = await desk.seeds.node("one")
    container = await desk.seeds.container("web", Template(image=f"{SERVER}/web:1"))
    made = await desk.seeds.pending(container, 0)
    await desk.store.write(lambda tx: instances.assign(tx, dict.fromkeys(made, node_id)))
    sequence = await desk.seeds.sequence(node_id)
    async with desk.running():
        await desk.add()
        record = await desk.until(lambda found: found.token is not None)
    assert await desk.login() == ("AWS", "password-1")
    assert record.token is not None
    assert "password-1" not in record.token
    assert (record.check_error, record.checked_at is None) == ("", False)
    assert record.refresh_at is not None
    left = record.refresh_at - SystemClock().wall()
    assert 7.9 * 3600 < left <= 8 * 3600, "at two thirds of its life"
    assert await desk.seeds.sequence(node_id) == sequence + 1


async def test_it_is_renewed_when_due_and_not_before_also_after_a_restart(desk: Desk) -> None:
    await desk.add()
    async with desk.running():
        await desk.until(lambda found: found.token is not None)
    async with desk.running():
        await desk.store.write(lambda tx: registries.change(tx, "reg_1", checked_at=1.0))
        await desk.until(lambda found: found.checked_at == 1.0)
    assert len(desk.amazon.asked) == 1

    async def age(tx: Tx) -> None:
        await tx.conn.execute(update(registry).values(refresh_at=1.0))

    await desk.store.write(age)
    async with desk.running():
        await desk.until(lambda found: (found.refresh_at or 0) > 1.0)
    assert await desk.login() == ("AWS", "password-2")


async def test_a_failure_is_told_and_the_old_token_stays_until_a_better_key_comes(desk: Desk) -> None:
    await desk.add()
    async with desk.running():
        await desk.until(lambda found: found.token is not None)
        desk.amazon.failing = "Amazon does not accept this access key"
        compartment = desk.vault.unlock(desk.seeds.sealed_key, desk.seeds.organization_id)
        worse = registries.concealed(Credentials(access_key_id="AKIA2"), compartment, "reg_1")
        await desk.store.write(lambda tx: registries.change(tx, "reg_1", credentials=worse, version=2, refresh_at=None))
        record = await desk.until(lambda found: bool(found.check_error))
        assert record.check_error == desk.amazon.failing
        assert await desk.login() == ("AWS", "password-1")
        tries = len(desk.amazon.asked)
        desk.amazon.failing = ""
        better = registries.concealed(Credentials(access_key_id="AKIA3"), compartment, "reg_1")
        await desk.store.write(
            lambda tx: registries.change(tx, "reg_1", credentials=better, version=3, refresh_at=None)
        )
        await desk.until(lambda found: not found.check_error)
    assert desk.amazon.asked[-1].access_key_id == "AKIA3", "a new key is tried at once, whatever the last one's backoff"
    assert await desk.login() == ("AWS", f"password-{tries + 1}")


async def test_one_whose_key_cannot_be_read_keeps_no_other_from_its_token(desk: Desk) -> None:
    await desk.add()
    await desk.store.write(lambda tx: registries.change(tx, "reg_1", credentials="sealed:v1:AAAA"))
    async with desk.running():
        record = await desk.until(lambda found: bool(found.check_error))
    assert record.token is None
    assert desk.amazon.asked == []
