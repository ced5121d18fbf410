"""Replacing the master key: everything opens before, during and after, wherever it is cut, with the key the next start finds."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from coordinator import keys
from coordinator.doors import local_door
from coordinator.doors.local_door import Answer, LocalDoor
from coordinator.errors import PreconditionFailed
from coordinator.master_key import MasterKey
from coordinator.rotation import Rotation
from coordinator.store import organizations, private_files, rekey, repeats, settings, users
from coordinator.store.audit import SYSTEM, Notary, audits
from coordinator.store.database import Store, Tx
from coordinator.store.organizations import OrganizationRecord
from coordinator.store.repeats import RepeatRecord
from coordinator.store.tables import account, audit, setting
from coordinator.store.users import UserRecord
from coordinator.store.vault import Vault, VaultError
from shared.kit.seal import SigningKey, decrypt

OLD = b"o" * 32
NEW = b"n" * 32
COUNT = 3


class Crash(BaseException):
    """As sudden as a lost power supply, for whoever waits."""


class Installation:
    """A database with secrets in every place, and a key file or none."""

    def __init__(self, store: Store, file: Path | None) -> None:
        self.store = store
        self.file = file
        self.notary = Notary(SigningKey.generate())
        self._concealed: dict[str, str] = {}

    async def furnish(self) -> "Installation":
        if self.file is not None:
            await asyncio.to_thread(private_files.write_new, self.file, OLD)
        vault = Vault(OLD)
        await keys.load(self.store, vault)

        async def unit(tx: Tx) -> None:
            await settings.put_first(tx, "bootstrapped", b"1")
            for number in range(COUNT):
                record = OrganizationRecord(
                    id=f"org_{number}", name="o", sealed_key=vault.new_key(f"org_{number}"), created_at=0.0
                )
                await organizations.insert(tx, record)
                self._concealed[record.id] = vault.unlock(record.sealed_key, record.id).conceal("hush", "here")
            await users.insert(tx, UserRecord(id="user_1", email="a@example.com", name="a", created_at=0.0))
            secret = vault.wrap(rekey.totp_name("user_1"), b"totp")
            await tx.conn.execute(update(account).values(totp_secret=secret))
            body = vault.wrap(rekey.repeat_name("k"), b"answer")
            await repeats.answer(
                tx, RepeatRecord(key="k", digest="d", status=200, headers={}, body=body, created_at=0.0)
            )

        await self.store.write(unit)
        return self

    async def master(self, elsewhere: bytes = OLD) -> MasterKey:
        if self.file is None:
            return MasterKey(elsewhere, None)
        return MasterKey(await asyncio.to_thread(self.file.read_bytes), self.file)

    async def start(self, elsewhere: bytes = OLD) -> Rotation:
        """As the coordinator does."""
        made = Rotation(self.store, await self.master(elsewhere))
        await made.settle()
        return made

    async def check(self, vault: Vault) -> None:
        """All of it opens."""
        await keys.load(self.store, vault)
        async with self.store.read() as conn:
            for key, concealed in self._concealed.items():
                record = await organizations.get(conn, key)
                assert record is not None
                assert vault.unlock(record.sealed_key, key).reveal(concealed, "here") == "hush"
            totp = (await conn.execute(select(account.c.totp_secret))).scalar_one()
            kept = await repeats.get(conn, "k")
            assert await settings.get(conn, "bootstrapped") == b"1"
        assert vault.unwrap(rekey.totp_name("user_1"), totp) == b"totp"
        assert kept is not None
        assert vault.unwrap(rekey.repeat_name("k"), kept.body) == b"answer"

    async def opens_with(self, key: bytes) -> bool:
        try:
            await self.check(Vault(key))
        except VaultError:
            return False
        return True


@pytest.fixture(params=["file", "elsewhere"])
async def installed(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Installation:
    return await Installation(store, tmp_path / "master.key" if request.param == "file" else None).furnish()


async def test_a_running_vault_opens_everything_before_and_after(installed: Installation) -> None:
    running = await installed.start()
    await installed.check(running.vault)
    done = await running.rotate(installed.notary, NEW)
    assert done.values == COUNT + 4, "organisations, two keys of the hub, a second factor, a kept answer"
    assert done.finished is (installed.file is not None)
    await installed.check(running.vault)
    assert await installed.opens_with(NEW)
    assert not await installed.opens_with(OLD)
    again = await installed.start(NEW)
    await installed.check(again.vault)
    async with installed.store.read() as conn:
        notes = await conn.execute(select(setting.c.key).where(setting.c.key.in_([rekey.BRIDGE, rekey.FORMER])))
        assert notes.all() == [], "nothing of the former key is left after the next start"
        (entry,) = await audits.many(conn, audits.select(audit.c.chain == SYSTEM))
    assert entry.action == "system.rotateKey"


async def test_a_key_from_elsewhere_opens_in_its_old_form_until_the_next_start_has_the_new(store: Store) -> None:
    installed = await Installation(store, None).furnish()
    running = await installed.start()
    with pytest.raises(PreconditionFailed, match="ARGOSY_MASTER_KEY_NEXT: is needed"):
        await running.rotate(installed.notary, None)
    with pytest.raises(PreconditionFailed, match="is the present"):
        await running.rotate(installed.notary, OLD)
    await running.rotate(installed.notary, NEW)
    with pytest.raises(PreconditionFailed, match="restart the coordinator with the new key first"):
        await running.rotate(installed.notary, b"x" * 32)
    for _ in range(2):
        await installed.check((await installed.start(OLD)).vault)
    await installed.check((await installed.start(NEW)).vault)
    late = Rotation(store, MasterKey(OLD, None))
    await late.settle()
    with pytest.raises(VaultError):
        await installed.check(late.vault)


async def test_after_a_rotation_of_the_file_the_old_key_opens_nothing(store: Store, tmp_path: Path) -> None:
    installed = await Installation(store, tmp_path / "master.key").furnish()
    running = await installed.start()
    done = await running.rotate(installed.notary, None)
    assert done.finished
    assert installed.file is not None
    content = await asyncio.to_thread(installed.file.read_bytes)
    assert content not in (OLD, NEW)
    async with store.read() as conn:
        for row in await conn.execute(select(setting.c.key, setting.c.value)):
            if row.key == "bootstrapped":
                continue
            for context in (row.key.encode(), b"setting:" + row.key.encode()):
                with pytest.raises(Exception, match="wrong key"):
                    decrypt(OLD, row.value, context)
    second = await running.rotate(installed.notary, None)
    assert second.values == COUNT + 4
    await installed.check((await installed.start()).vault)


def _cut(monkeypatch: pytest.MonkeyPatch, store: Store, at: int, *, after: bool) -> None:
    """Crash at the `at`-th thing that is written, before it or right after it."""
    left = at

    def due() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def cutting(write: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def cut(*args: Any) -> Any:
            now = due()
            if now and not after:
                raise Crash
            value = await write(*args)
            if now:
                raise Crash
            return value

        return cut

    monkeypatch.setattr(store, "write", cutting(store.write))
    replace = private_files.replace

    def replacing(path: Path, content: bytes) -> None:
        now = due()
        if now and not after:
            raise Crash
        replace(path, content)
        if now:
            raise Crash

    monkeypatch.setattr(private_files, "replace", replacing)


@pytest.mark.parametrize("after", [False, True])
async def test_cut_anywhere_it_opens_again(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """Every point, one after the other, on one database: each start heals what the cut before left behind."""
    current, cuts = OLD, 0
    for at in range(100):
        running = await installed.start(current)
        following = os.urandom(32)
        crashed = False
        with monkeypatch.context() as patch:
            _cut(patch, installed.store, at, after=after)
            try:
                await running.rotate(installed.notary, following)
            except Crash:
                crashed, cuts = True, cuts + 1
        await installed.check(running.vault)  # what still ran at that moment
        await installed.check((await installed.start(current)).vault)
        async with installed.store.read() as conn:
            begun = (await rekey.known(conn, following)).former is not None or await installed.opens_with(following)
        if installed.file is None and begun:
            current = following
            await installed.check((await installed.start(current)).vault)
        if not crashed:
            break
    else:
        pytest.fail("it never ended")
    assert cuts >= 9, "there are that many points at least"


async def test_a_start_that_is_cut_while_it_heals_heals_at_the_next(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(100):
        running = await installed.start(OLD if at == 0 or installed.file else NEW)
        if at == 0:
            with monkeypatch.context() as patch:
                _cut(patch, installed.store, len(rekey._PLACES), after=True)
                with pytest.raises(Crash):
                    await running.rotate(installed.notary, NEW)
        crashed = False
        with monkeypatch.context() as patch:
            _cut(patch, installed.store, at, after=at % 2 == 1)
            try:
                await installed.start(OLD)
            except Crash:
                crashed = True
        if not crashed:
            break
    await installed.check((await installed.start(NEW)).vault)


async def test_what_is_written_with_the_former_key_meanwhile_is_found_later(store: Store, tmp_path: Path) -> None:
    """Something that sealed a value just before the change, and commits it just after everything was rewritten."""
    installed = await Installation(store, tmp_path / "master.key").furnish()
    running = await installed.start()
    late = running.vault.new_key("org_late")
    await running.rotate(installed.notary, None)
    record = OrganizationRecord(id="org_late", name="late", sealed_key=late, created_at=0.0)
    await store.write(lambda tx: organizations.insert(tx, record))
    running.vault.unlock(late, "org_late")
    again = await installed.start()
    async with store.read() as conn:
        found = await organizations.get(conn, "org_late")
    assert found is not None
    assert found.sealed_key != late
    again.vault.unlock(found.sealed_key, "org_late")


async def test_a_value_that_opens_with_no_key_stops_a_rotation_before_it_begins(installed: Installation) -> None:
    foreign = Vault(b"x" * 32).new_key("org_foreign")
    record = OrganizationRecord(id="org_foreign", name="f", sealed_key=foreign, created_at=0.0)
    await installed.store.write(lambda tx: organizations.insert(tx, record))
    running = await installed.start()
    with pytest.raises(VaultError, match="organization org_foreign: is not under the present master key"):
        await running.rotate(installed.notary, NEW)
    assert await installed.opens_with(OLD)


async def test_everybody_else_goes_on_meanwhile(installed: Installation) -> None:
    running = await installed.start()
    over = asyncio.Event()
    made: list[str] = []

    async def others() -> None:
        while not over.is_set():
            key = f"org_busy_{len(made)}"
            record = OrganizationRecord(id=key, name="b", sealed_key=running.vault.new_key(key), created_at=0.0)
            await installed.store.write(partial(organizations.insert, record=record))
            running.vault.unlock(record.sealed_key, key)
            made.append(key)

    task = asyncio.create_task(others())
    await running.rotate(installed.notary, NEW)
    over.set()
    await task
    assert made
    vault = (await installed.start(NEW)).vault
    async with installed.store.read() as conn:
        for key in made:
            found = await organizations.get(conn, key)
            assert found is not None
            vault.unlock(found.sealed_key, key)


async def test_the_local_door_asks_and_answers(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    await asyncio.to_thread(directory.mkdir)
    given: list[bytes | None] = []

    async def rotate(new: bytes | None) -> Answer:
        given.append(new)
        if new == OLD:
            raise PreconditionFailed("is the present master key")
        return Answer(values=7, finished=True)

    assert await local_door.ask(directory, NEW) is None, "none runs"
    door = LocalDoor(directory, rotate)
    await door.open()
    path = directory / local_door.SOCKET
    assert (await asyncio.to_thread(path.stat)).st_mode & 0o777 == 0o600
    assert await local_door.ask(directory, NEW) == Answer(values=7, finished=True)
    assert await local_door.ask(directory, None) == Answer(values=7, finished=True)
    refused = await local_door.ask(directory, OLD)
    assert refused is not None
    assert refused.error == "is the present master key"
    assert given == [NEW, None, OLD]
    await door.close()
    assert await local_door.ask(directory, NEW) is None
    await door.open()  # after a crash its socket is still there
    again = LocalDoor(directory, rotate)
    await again.open()
    assert await local_door.ask(directory, NEW) == Answer(values=7, finished=True)
    await again.close()
    await door.close()
