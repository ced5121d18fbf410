"""`argosy-coordinator rotate-key`: asks the coordinator that runs from this data directory, or does it when none runs."""

from coordinator import keys, master_key
from coordinator.doors import local_door
from coordinator.doors.local_door import Answer
from coordinator.errors import DomainError, StartError
from coordinator.rotation import Rotation
from coordinator.settings import Settings
from coordinator.store.audit import Notary
from coordinator.store.database import Store


async def rotate_key(settings: Settings) -> str:
    """What to tell the operator. Raises StartError, StoreError or VaultError."""
    new = master_key.load_next(settings.master_key)
    try:
        answer = await local_door.ask(settings.data_dir, new)
    except OSError as error:
        raise StartError(f"the coordinator of {settings.data_dir} cannot be asked: {error}") from error
    if answer is None:
        answer = await _alone(settings, new)
    if answer.error:
        raise StartError(answer.error)
    if answer.finished:
        return "the master key was replaced; keep a copy of the new one with the next backup"
    return (
        "everything is under the new master key; give it to the next start of the coordinator."
        " Until then the former one opens the database too"
    )


async def _alone(settings: Settings, new: bytes | None) -> Answer:
    master = master_key.load(settings.master_key, settings.data_dir, make=False)
    store = await Store.open(settings.database_url)
    try:
        rotation = Rotation(store, master)
        await rotation.settle()
        hub_keys = await keys.load(store, rotation.vault)
        rotated = await rotation.rotate(Notary(hub_keys.signing), new)
    except DomainError as error:
        raise StartError(error.message) from error
    finally:
        await store.close()
    return Answer(values=rotated.values, finished=rotated.finished)
