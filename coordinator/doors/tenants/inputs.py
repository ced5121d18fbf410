"""What this door's requests may say beside their path. How long and how large a value may be is the procedure's to say: here only
names and kinds are known, and every field that is not named is refused."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from shared.spec.container import Part

MAX_PAGE = 200


class NoFields(Part, frozen=True):
    pass


class Paged(Part, frozen=True, kw_only=True):
    page: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 1


class FindProjects(Paged, frozen=True, kw_only=True):
    search: str | UnsetType = UNSET
    status: str | UnsetType = UNSET


class NewProject(Part, frozen=True, kw_only=True):
    name: str
    description: str | UnsetType = UNSET
    cluster_id: str | UnsetType = UNSET


class ChangedProject(Part, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class FindDeployments(Paged, frozen=True, kw_only=True):
    environment_id: str | UnsetType = UNSET
    status: str | UnsetType = UNSET


class FindReleases(Paged, frozen=True, kw_only=True):
    environment_id: str | UnsetType = UNSET


class NewDeployment(Part, frozen=True, kw_only=True):
    """`containerId`: needed only where the environment has several."""

    note: str | UnsetType = UNSET
    image: str | UnsetType = UNSET
    container_id: str | UnsetType = UNSET


class AfterEvent(Part, frozen=True, kw_only=True):
    """`after`: the `seq` of the last one the caller has."""

    after: Annotated[int, Meta(ge=0, le=10**9)] = 0


class After(Part, frozen=True, kw_only=True):
    """`after`: the id of the last frame the caller got. The header `Last-Event-ID` says it too, and is newer."""

    after: str | UnsetType = UNSET


class AfterLine(After, frozen=True, kw_only=True):
    """`limit`: so many last lines; with `after`, so many next ones."""

    limit: int | UnsetType = UNSET


class RollBack(Part, frozen=True, kw_only=True):
    release_id: str
    reason: str | UnsetType = UNSET


class FindSecrets(Paged, frozen=True, kw_only=True):
    project_id: str | UnsetType = UNSET
    environment_id: str | UnsetType = UNSET


class NewSecret(Part, frozen=True, kw_only=True):
    """`scope`: workspace, project or environment; without it, what the ids say."""

    key: str
    value: str
    secret: bool | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    project_id: str | UnsetType = UNSET
    environment_id: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"NewSecret({self.key!r})"


class ChangedSecret(Part, frozen=True, kw_only=True):
    value: str | UnsetType = UNSET
    secret: bool | UnsetType = UNSET

    def __repr__(self) -> str:
        return "ChangedSecret(…)"


class NewToken(Part, frozen=True, kw_only=True):
    name: str
    scopes: list[str] | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
