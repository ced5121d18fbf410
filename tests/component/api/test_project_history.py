"""A project's deployments and releases as one list, and trying again what did not succeed."""

from typing import Any

from tests.component.api.caller import Api, Home, finish, make


async def test_deployments_of_all_containers_are_one_list_newest_first(api: Api, home: Home) -> None:
    web, worker = await make(api, home, name="web"), await make(api, home, name="worker")
    again = await api.call("container.deploy", containerId=web["id"], image="web:2")
    listed = await api.call("project.deployments", method="GET", projectId=home.project_id)
    assert [one["containerId"] for one in listed] == [web["id"], worker["id"], web["id"]]
    assert listed[0]["id"] == again["deploymentId"]
    await finish(api, again["deploymentId"])
    done = await api.call("project.deployments", method="GET", projectId=home.project_id, status="succeeded")
    assert [one["id"] for one in done] == [again["deploymentId"]]


async def test_the_lists_are_paged_without_gap_or_repeat(api: Api, home: Home) -> None:
    made = await make(api, home)
    for number in range(4):
        await api.call("container.deploy", containerId=made["id"], image=f"web:{number + 2}")
    for procedure in ("project.deployments", "project.releases"):
        whole = await api.call(procedure, method="GET", projectId=home.project_id)
        pages: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await api.client.get(
                f"/api/{procedure}",
                params={"projectId": home.project_id, "limit": 2, **cursor},
                headers={"Authorization": f"Bearer {api.token}"},
            )
            pages += answer.json()["result"]["data"]
            if "X-Next-Cursor" not in answer.headers:
                break
            cursor = {"cursor": answer.headers["X-Next-Cursor"]}
        assert pages == whole
        assert len(whole) == 5


async def test_an_environment_narrows_both(api: Api, home: Home) -> None:
    staging = await api.call("environment.create", 201, projectId=home.project_id, name="staging")
    await make(api, home, name="live")
    there = await make(api, home, name="tried", environmentId=staging["id"])
    for procedure in ("project.deployments", "project.releases"):
        listed = await api.call(procedure, method="GET", projectId=home.project_id, environmentId=staging["id"])
        assert [one["containerId"] for one in listed] == [there["id"]]


async def test_a_cursor_of_another_project_is_refused(api: Api, home: Home) -> None:
    made = await make(api, home)
    other = await api.call("project.create", 201, organizationId=home.organization_id, name="other")
    for procedure, cursor in (
        ("project.deployments", made["deploymentId"]),
        ("project.releases", made["release"]["id"]),
    ):
        error = await api.call(procedure, 400, method="GET", projectId=other["id"], cursor=cursor)
        assert error["message"] == "cursor: is not one of this list"


async def test_what_failed_is_deployed_again_as_it_was(api: Api, home: Home) -> None:
    made = await make(api, home)
    broken = await api.call("container.deploy", containerId=made["id"], image="web:broken")
    await finish(api, broken["deploymentId"], "failed")
    await api.call("container.update", method="PATCH", containerId=made["id"], image="web:3")
    again = await api.call("container.retryDeployment", deploymentId=broken["deploymentId"])
    assert (again["image"], again["status"]) == ("web:broken", "in_progress")
    assert again["id"] != broken["deploymentId"]
    detail = await api.call("container.one", method="GET", containerId=made["id"])
    assert (detail["release"]["image"], detail["image"]) == ("web:broken", "web:3")


async def test_what_succeeded_or_goes_on_is_not_retried(api: Api, home: Home) -> None:
    made = await make(api, home)
    error = await api.call("container.retryDeployment", 412, deploymentId=made["deploymentId"])
    assert error["message"] == "the deployment is in_progress: only one that did not succeed can be retried"
