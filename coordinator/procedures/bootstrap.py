"""The first start: an administrator, somewhere to deploy to, and the token that opens it.

Everything is made in one transaction. The token file is on disk before that transaction commits: a crash in between leaves a
file that the next start writes anew, never an installation that nobody can enter.
"""

import asyncio
from pathlib import Path

import structlog

from coordinator.errors import StartError
from coordinator.procedures import bearer
from coordinator.procedures.cluster import BYO_REGION
from coordinator.procedures.project import FIRST_ENVIRONMENT
from coordinator.store import clusters, organizations, private_files, projects, settings, users
from coordinator.store.clusters import ClusterRecord
from coordinator.store.database import Store, Tx
from coordinator.store.organizations import MembershipRecord, OrganizationRecord
from coordinator.store.projects import EnvironmentRecord, ProjectRecord
from coordinator.store.users import ApiTokenRecord, UserRecord
from coordinator.store.vault import Vault
from shared.kit.ids import new_id

log = structlog.get_logger("bootstrap")

TOKEN_FILE = "admin-token"  # noqa: S105 — a file's name
ADMIN_EMAIL = "admin@localhost"
DEFAULT_NAME = "default"
_DONE = "bootstrapped"


async def first_start(store: Store, vault: Vault, data_dir: Path) -> str | None:
    """The administrator's token when this was the first start, else None. Raises StartError when the file cannot be written."""
    secret = bearer.new_secret()
    path = data_dir / TOKEN_FILE

    async def unit(tx: Tx) -> str | None:
        if await settings.get(tx.conn, _DONE) is not None:
            return None
        await asyncio.to_thread(_write_token, path, secret)
        await settings.put_first(tx, _DONE, b"1")
        user_id, organization_id = new_id("user"), new_id("org")
        await _people(tx, vault, user_id, organization_id, secret)
        await _places(tx, organization_id)
        return secret

    made = await store.write(unit)
    if made is not None:
        log.info("first start: an administrator was made", token_file=str(path))
    return made


async def _people(tx: Tx, vault: Vault, user_id: str, organization_id: str, secret: str) -> None:
    await users.insert(tx, UserRecord(id=user_id, email=ADMIN_EMAIL, name="Administrator", created_at=tx.now))
    await organizations.insert(
        tx,
        OrganizationRecord(
            id=organization_id, name=DEFAULT_NAME, sealed_key=vault.new_key(organization_id), created_at=tx.now
        ),
    )
    await organizations.join(
        tx, MembershipRecord(organization_id=organization_id, user_id=user_id, role="owner", joined_at=tx.now)
    )
    await users.insert_token(
        tx,
        ApiTokenRecord(
            id=new_id("tok"),
            user_id=user_id,
            created_by=user_id,
            name="first start",
            hash=bearer.hash_secret(secret),
            prefix=bearer.shown_prefix(secret),
            created_at=tx.now,
        ),
    )


async def _places(tx: Tx, organization_id: str) -> None:
    cluster_id, project_id = new_id("cluster"), new_id("proj")
    await clusters.insert(
        tx,
        ClusterRecord(
            id=cluster_id,
            organization_id=organization_id,
            name=DEFAULT_NAME,
            provider="byo",
            region=BYO_REGION,
            orchestrator="docker",
            created_at=tx.now,
        ),
    )
    await projects.insert(
        tx, ProjectRecord(id=project_id, organization_id=organization_id, name=DEFAULT_NAME, created_at=tx.now)
    )
    await projects.insert_environment(
        tx,
        EnvironmentRecord(
            id=new_id("env"),
            project_id=project_id,
            cluster_id=cluster_id,
            name=FIRST_ENVIRONMENT,
            created_at=tx.now,
        ),
    )


def _write_token(path: Path, secret: str) -> None:
    try:
        private_files.replace(path, f"{secret}\n".encode())
    except OSError as error:
        raise StartError(f"the token file {path} cannot be written: {error.strerror}") from error
