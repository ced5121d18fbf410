"""Every address of this door, and the one procedure behind it. What is not listed is not there yet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from coordinator.doors.tenants import inputs, shapes
from coordinator.errors import BadRequest
from shared.spec.container import Part

Method = Literal["GET", "POST", "PATCH", "DELETE"]
Fields = dict[str, Any]
_SCOPES = {"workspace": set(), "project": {"projectId"}, "environment": {"environmentId"}}


def _given(own: Part, path: Mapping[str, str]) -> Fields:
    """As the caller gave them; what was not given is not there. A page's number is the door's own."""
    fields: Fields = msgspec.to_builtins(own)
    fields.pop("page", None)
    return fields


def _as_cursor(own: inputs.After, path: Mapping[str, str]) -> Fields:
    fields = _given(own, path)
    return fields if own.after is msgspec.UNSET else {"cursor": fields.pop("after"), **fields}


def _whole_deployment(own: Part, path: Mapping[str, str]) -> Fields:
    """The events after some are taken from the answer."""
    return {}


def _where(own: inputs.NewSecret, path: Mapping[str, str]) -> Fields:
    """One id says where a secret belongs, and the tenant's then says nothing more. Raises BadRequest."""
    fields = _given(own, path)
    named = {"projectId", "environmentId"} & fields.keys()
    scope = fields.pop("scope", None)
    if scope is not None and _SCOPES.get(scope) != named:
        raise BadRequest("scope: is workspace, project with a projectId, or environment with an environmentId")
    if len(named) > 1:
        raise BadRequest("projectId: give projectId or environmentId, not both")
    return {"organizationId": None, **fields} if named else fields


@dataclass(frozen=True)
class Route:
    """`answer`: from the procedure's output, one row of it where it is a page, one event where it is a stream, and what the caller
    said; None where it is shown as it is. `fill`: the procedure's fields beside those in the path. `fixed`: fields that this
    address stands for. `session_only`: no token may ask."""

    method: Method
    path: str
    procedure: str
    about: str
    takes: type[Part] = inputs.NoFields
    answer: Callable[[Any, Any], Any] | None = None
    form: Literal["one", "page", "stream"] = "one"
    fill: Callable[[Any, Mapping[str, str]], Fields] = _given
    fixed: Fields = field(default_factory=dict)
    session_only: bool = False


def _plainly(shape: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda output, own: shape(output)


_TENANT = "/tenants/{tenantId}"
_PROJECT = f"{_TENANT}/projects/{{projectId}}"
_ENVIRONMENT = f"{_PROJECT}/environments/{{environmentId}}"
_DEPLOYMENT = f"{_TENANT}/deployments/{{deploymentId}}"
_LOGS = f"{_TENANT}/releases/{{releaseId}}/runtime-logs"
_SECRETS = f"{_TENANT}/secrets"
_TOKENS = "/account/api-tokens"
_deployment = _plainly(shapes.deployment)
_project = _plainly(shapes.project)
_secret = _plainly(shapes.secret)

ROUTES = (
    Route("GET", "/auth/me", "user.me", "who the token is, with its tenants", answer=_plainly(shapes.me)),
    Route(
        "GET",
        _TOKENS,
        "user.tokens",
        "one's own API tokens",
        inputs.Paged,
        _plainly(shapes.account_token),
        form="page",
        session_only=True,
    ),
    Route(
        "POST",
        _TOKENS,
        "user.createToken",
        "a new one, shown this once",
        inputs.NewToken,
        _plainly(shapes.new_account_token),
        session_only=True,
    ),
    Route("DELETE", f"{_TOKENS}/{{tokenId}}", "user.revokeToken", "end one", session_only=True),
    Route("GET", f"{_TENANT}/projects", "project.all", "projects", inputs.FindProjects, _project, form="page"),
    Route("POST", f"{_TENANT}/projects", "project.create", "a new one", inputs.NewProject, _project),
    Route(
        "GET",
        _PROJECT,
        "project.one",
        "one, with its environments and containers",
        answer=_plainly(shapes.project_with_contents),
    ),
    Route("PATCH", _PROJECT, "project.update", "its name or description", inputs.ChangedProject, _project),
    Route(
        "GET",
        f"{_PROJECT}/deployments",
        "project.deployments",
        "its deployments, newest first",
        inputs.FindDeployments,
        _deployment,
        form="page",
    ),
    Route(
        "GET",
        f"{_PROJECT}/releases",
        "project.releases",
        "what it ran and can return to, newest first",
        inputs.FindReleases,
        form="page",
    ),
    Route(
        "POST",
        f"{_ENVIRONMENT}/deployments",
        "environment.deploy",
        "deploy",
        inputs.NewDeployment,
        _deployment,
    ),
    Route("GET", f"{_ENVIRONMENT}/runtime", "environment.runtime", "what runs, and where it is reached"),
    Route("GET", _DEPLOYMENT, "container.deployment", "one deployment, with its events", answer=_deployment),
    Route(
        "GET",
        f"{_DEPLOYMENT}/logs",
        "container.deployment",
        "its events as lines, behind `after`",
        inputs.AfterEvent,
        lambda output, own: shapes.log_lines(output, own.after),
        fill=_whole_deployment,
    ),
    Route(
        "GET",
        f"{_DEPLOYMENT}/stream",
        "container.deploymentEvents",
        "the same as they come, and its status, until it has ended",
        inputs.After,
        _plainly(shapes.step),
        form="stream",
        fill=_as_cursor,
    ),
    Route("POST", f"{_DEPLOYMENT}/cancel", "container.cancelDeployment", "stop it", answer=_deployment),
    Route("POST", f"{_DEPLOYMENT}/retry", "container.retryDeployment", "the same once more", answer=_deployment),
    Route(
        "POST",
        f"{_TENANT}/rollback",
        "container.rollback",
        "return to a release; nothing is rebuilt",
        inputs.RollBack,
        _deployment,
    ),
    Route(
        "GET",
        _LOGS,
        "container.releaseLogs",
        "what the instances of a release write, behind `after`",
        inputs.AfterLine,
        fill=_as_cursor,
    ),
    Route(
        "GET",
        f"{_LOGS}/stream",
        "container.releaseLogs",
        "the same as it comes",
        inputs.AfterLine,
        _plainly(shapes.line),
        form="stream",
        fill=_as_cursor,
        fixed={"follow": True},
    ),
    Route("GET", _SECRETS, "secret.all", "variables and secrets", inputs.FindSecrets, _secret, form="page"),
    Route("POST", _SECRETS, "secret.create", "a new one", inputs.NewSecret, _secret, fill=_where),
    Route("PATCH", f"{_SECRETS}/{{secretId}}", "secret.update", "another value", inputs.ChangedSecret, _secret),
    Route("DELETE", f"{_SECRETS}/{{secretId}}", "secret.remove", "remove one"),
)
