"""`GET /openapi.json`: every route is described, and answers as it is described."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from listener.config.settings import load
from listener.system import System
from listener.web.app import routes
from listener.web.openapi import document
from tests.e2e.conftest import Start
from tests.listening import ADMIN, MEMBER, Client, push, signed

ONE = "/api/v1/sites/mysite/environments/staging"
ROUTES = routes()
BY_NAME = {each.name: each for each in ROUTES}


async def test_every_route_is_described_and_every_described_one_is_there(
    configured: Callable[..., Path],
) -> None:
    system = System(load(configured()))
    served = {
        (route.method, route.resource.canonical)
        for route in system._application().router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    await system.pool.close()
    assert {(each.method, each.path) for each in ROUTES} == served
    assert len(BY_NAME) == len(ROUTES)


async def test_the_description_is_told_to_anybody_and_not_twice(listener: Client) -> None:
    status, told, headers = await listener.call("GET", "/openapi.json", token=None)
    assert (status, told) == (200, json.loads(json.dumps(document(ROUTES))))
    for known in (headers["ETag"], '"another", ' + headers["ETag"], "*"):
        status, _, again = await listener.call(
            "GET", "/openapi.json", token=None, headers={"If-None-Match": known}
        )
        assert (status, again["ETag"]) == (304, headers["ETag"])
    status, _, _ = await listener.call("GET", "/openapi.json", headers={"If-None-Match": '"another"'})
    assert status == 200


async def test_the_description_names_nothing_of_the_configuration(listening: Start) -> None:
    async with listening() as listener:
        _, told, _ = await listener.call("GET", "/openapi.json", token=None)
    text = json.dumps(told)
    assert "acme" not in text
    assert "127.0.0.1" not in text


def test_every_reference_of_the_description_leads_somewhere() -> None:
    whole = document(ROUTES)

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for each in node.values() for found in references(each)]
        return [found for each in node for found in references(each)] if isinstance(node, list) else []

    found = references(whole)
    assert len(found) > 100
    for reference in found:
        node: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


TOLD = {"x-run-id", "location", "etag", "www-authenticate", "retry-after", "preference-applied"}
"""The headers that tell something of their own."""


class Described:
    """Makes calls, and holds each answer to its description."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, name: str, path: str = "", **more: Any) -> tuple[int, Any]:
        """Call the route of that name; return the status and the body, which have to be described."""
        operation = BY_NAME[name]
        path = path or operation.path
        async with self._client.session.request(
            operation.method, self._client.url + path, headers=more.pop("headers", self.auth()), **more
        ) as response:
            body = await response.read()
        answer = next(each for each in operation.answers if each.status == response.status)
        described = {name.lower() for name in answer.headers}
        assert TOLD & {name.lower() for name in response.headers} <= described
        if not answer.content:
            assert body == b""
            return response.status, None
        model = answer.content[response.content_type]
        if model is None:
            return response.status, body
        # No field but the described ones, though others are allowed to come.
        model.model_validate_json(body, extra="forbid", strict=True)
        return response.status, json.loads(body)

    def auth(self, token: str = ADMIN) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def described(listener: Client) -> Described:
    return Described(listener)


async def test_the_answers_about_sites_and_runs_are_as_described(
    described: Described, listener: Client
) -> None:
    await described.call("list_sites")
    _, first = await described.call("sync", f"{ONE}/sync", json={"dry_run": True})
    assert first["plan"] == "forward-commit"
    status, started = await described.call("sync", f"{ONE}/sync")
    assert status == 202
    await listener.ended(started["id"])
    run = f"/api/v1/runs/{started['id']}"
    assert (await described.call("show_run", run))[1]["outcome"]["moved"]
    assert (await described.call("list_runs"))[1]["runs"]
    assert (await described.call("show_site", "/api/v1/sites/mysite"))[1]["environments"][0]["last_success"]
    assert (await described.call("watch_run", f"{run}/log"))[0] == 200
    assert (await described.call("watch_run", f"{run}/log?follow=maybe"))[0] == 400
    events = {**described.auth(), "Accept": "text/event-stream", "Last-Event-ID": "999"}
    assert (await described.call("watch_run", f"{run}/log", headers=events))[0] == 204
    assert (await described.call("cancel_run", f"{run}/cancel"))[0] == 409
    assert (await described.call("retry_run", f"{run}/retry"))[0] == 409
    assert (await described.call("roll_back_run", f"{run}/rollback", json={"dry_run": True}))[0] == 200
    status, back = await described.call("roll_back_run", f"{run}/rollback")
    assert status == 202
    await listener.ended(back["id"])
    held = (await described.call("list_sites"))[1]["sites"][0]["environments"][0]["hold"]
    assert held["until_live_leaves"]
    member = described.auth(MEMBER)
    assert (await described.call("roll_back_run", f"{run}/rollback", headers=member))[0] == 403


async def test_holding_and_releasing_answer_as_described(described: Described, listener: Client) -> None:
    assert (await described.call("hold", f"{ONE}/hold", json={}))[0] == 400
    assert (await described.call("hold", f"{ONE}/hold", json={"reason": "a test"}))[0] == 200
    status, failed = await described.call(
        "sync_staging", json={"site_id": "mysite", "environment": "staging"}
    )
    assert (status, failed) == (500, {"message": "Internal server error"})
    assert (await described.call("list_runs", "/api/v1/runs?state=failed"))[1]["runs"]
    status, released = await described.call("release", f"{ONE}/release")
    await listener.ended(released["runs"][0])
    assert (await described.call("release", f"{ONE}/release"))[1] == {"released": None, "runs": []}


async def test_the_crafter_calls_and_hooks_answer_as_described(
    described: Described, listener: Client
) -> None:
    asked = {"site_id": "mysite", "environment": "staging"}
    for name in ("sync_staging", "reset_staging_under_studio_without_extension"):
        assert (await described.call(name, json=asked))[0] == 200
        assert (await described.call(name, json={}))[0] == 400
        assert (await described.call(name, json={**asked, "site_id": "other"}))[0] == 404
        assert (await described.call(name, json=asked, headers={}))[0] == 401
    later = {**described.auth(), "Prefer": "respond-async"}
    assert (await described.call("sync_staging", json=asked, headers=later))[0] == 202
    stream = {**described.auth(), "Accept": "application/x-ndjson"}
    assert (await described.call("sync_staging", json=asked, headers=stream))[0] == 200
    for delivery, body, status in (
        ("1", push(), 202),
        ("1", push(), 200),
        ("2", push(ref="refs/heads/x"), 200),
    ):
        headers = signed(body, delivery)
        assert (await described.call("deliver", "/hooks/forge", data=body, headers=headers))[0] == status
    assert (await described.call("deliver", "/hooks/forge", data=b"{}", headers={}))[0] == 401
    assert (await described.call("deliver_by_path", "/hooks/forge/x", data=b"{}", headers={}))[0] == 404


async def test_what_an_admin_sees_of_who_came_is_as_described(described: Described, listener: Client) -> None:
    _, accepted, _ = await listener.deliver("1")
    await listener.deliver("2", push(ref="refs/tags/v1"))
    status, _, refused = await listener.deliver("3", secret="wrong")
    assert status == 401
    _, page = await described.call("list_deliveries")
    assert {each["outcome"] for each in page["deliveries"]} == {"accepted", "ignored", "refused"}
    assert (await described.call("list_deliveries", "/api/v1/deliveries?outcome=lost"))[0] == 400
    one = f"/api/v1/deliveries/{accepted['delivery']}"
    assert (await described.call("redeliver", f"{one}/redeliver"))[0] == 202
    assert (await described.call("show_delivery", one))[1]["redelivered"]
    _, told = await described.call("show_delivery", f"/api/v1/deliveries/{refused['X-Delivery-Id']}")
    assert told["status"] == 401
    assert (await described.call("redeliver", f"/api/v1/deliveries/{told['id']}/redeliver"))[0] == 409
    assert (await described.call("show_delivery"))[0] == 404
    assert (await described.call("list_hooks"))[1]["hooks"][0]["secrets"][0]["count"] == 2
    assert (await described.call("list_tokens"))[1]["tokens"]
    for name in ("list_deliveries", "list_hooks", "list_tokens"):
        assert (await described.call(name, headers=described.auth(MEMBER)))[0] == 403


async def test_the_page_and_its_sessions_answer_as_described(described: Described) -> None:
    assert (await described.call("show_page", headers={}))[0] == 200
    assert (await described.call("sign_in", json={"token": "wrong"}, headers={}))[0] == 401
    assert (await described.call("sign_in", json={"token": 1}, headers={}))[0] == 400
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert (await described.call("sign_in", json={"token": ADMIN}, headers=foreign))[0] == 403
    status, signed_in = await described.call("sign_in", json={"token": ADMIN}, headers={})
    assert (status, signed_in["role"]) == (201, "admin")
    own = {"Sec-Fetch-Site": "same-origin"}
    form: dict[str, Any] = {"data": {"token": ADMIN}, "headers": own, "allow_redirects": False}
    assert (await described.call("sign_in", **form))[0] == 303
    assert (await described.call("leave_page", headers=own, allow_redirects=False))[0] == 303
    assert (await described.call("sign_out", headers=own))[0] == 204


async def test_the_probes_answer_as_described(described: Described) -> None:
    for name in ("alive", "ready"):
        assert (await described.call(name, headers={}))[0] == 200


async def test_a_native_route_tells_which_methods_it_takes(listener: Client) -> None:
    status, problem, headers = await listener.call("DELETE", "/api/v1/runs")
    assert (status, problem["code"], headers["Allow"]) == (405, "method-not-allowed", "GET, HEAD")
    assert headers["Content-Type"].startswith("application/problem+json")
    status, _, headers = await listener.call("GET", "/hooks/forge", token=None)
    assert (status, headers["Allow"]) == (405, "POST")
