"""The Crafter call, row by row."""

import asyncio
import json
from typing import Any

import pytest

from listener.rehearsal.published import Published
from tests.conftest import age
from tests.e2e.conftest import Start
from tests.listening import MEMBER, RESET_STAGING, SYNC_STAGING, Client

WHOLE = {"site_id": "mysite", "environment": "staging"}
BOTH = "Invalid parameter(s): [site_id, environment]"

SITES = {
    "mysite": {"environments": {"staging": {"follow": True}, "qa": {"follow": False}}},
    "other": {"environments": {"qa": {"follow": False}}},
    "several": {"environments": {"qa": {"follow": False}, "uat": {"follow": False}}},
}


def sites(published: Published) -> dict[str, Any]:
    """Several sites; those but the first have no repository at their paths."""
    path = str(published.path)
    return {
        name: {
            "repository": {"host": "studio", "path": path if name == "mysite" else f"{path}-{name}"},
            **site,
        }
        for name, site in SITES.items()
    }


async def test_an_environment_made_equal_is_answered_ok(listener: Client, published: Published) -> None:
    status, body, headers = await listener.sync()
    assert (status, body) == (200, {"message": "OK"})
    assert headers["Content-Type"].startswith("application/json")
    assert published.tree("staging") == published.tree("live")
    assert published.is_clean()
    run = await listener.ended(headers["X-Run-Id"])
    assert (run["state"], run["outcome"]["plan"]) == ("succeeded", "forward-commit")
    assert run["triggers"] == [{**run["triggers"][0], "origin": "api", "actor": "root"}]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("", 400, "Bad Request"),
        ("nonsense", 400, "Bad Request"),
        ("[]", 400, "Bad Request"),
        ("null", 400, "Bad Request"),
        ('"mysite"', 400, "Bad Request"),
        ("{}", 400, BOTH),
        ('{"site_id": null, "environment": ""}', 400, BOTH),
        ('{"site_id": 7, "environment": ["staging"]}', 400, BOTH),
        ('{"environment": "staging"}', 400, "Invalid parameter(s): [site_id]"),
        ('{"site_id": "mysite"}', 400, "Invalid parameter(s): [environment]"),
        ('{"site_id": "mysite", "environment": {}}', 400, "Invalid parameter(s): [environment]"),
        ('{"site_id": " ", "environment": "staging"}', 404, "Site not found"),
        ('{"site_id": "nosuch", "environment": "staging"}', 404, "Site not found"),
        ('{"site_id": "../mysite", "environment": "staging"}', 404, "Site not found"),
        ('{"site_id": "MYSITE", "environment": "staging"}', 404, "Site not found"),
        ('{"site_id": "mysite", "environment": " "}', 404, "Environment not found"),
        ('{"site_id": "mysite", "environment": "nosuch"}', 404, "Environment not found"),
        ('{"site_id": "mysite", "environment": "live"}', 404, "Environment not found"),
    ],
)
async def test_a_call_that_says_too_little_or_too_much(
    listener: Client, body: str, status: int, message: str
) -> None:
    assert (await listener.call("POST", SYNC_STAGING, data=body))[:2] == (status, {"message": message})


@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer"])
@pytest.mark.parametrize("body", ["nonsense", "{}", json.dumps(WHOLE)])
async def test_a_caller_without_a_good_credential_learns_nothing(
    listener: Client, token: str | None, body: str
) -> None:
    status, said, headers = await listener.call("POST", SYNC_STAGING, token=token, data=body)
    assert (status, said) == (401, {"message": "Unauthorized"})
    assert headers["WWW-Authenticate"] == "Bearer"


async def test_two_credentials_are_none(listener: Client) -> None:
    headers = [("Authorization", f"Bearer {token}") for token in (MEMBER, MEMBER)]
    async with listener.session.post(listener.url + SYNC_STAGING, json=WHOLE, headers=headers) as response:
        assert response.status == 401


async def test_a_member_is_refused_other_sites_whether_they_exist_or_not(
    listening: Start, published: Published
) -> None:
    async with listening(sites=sites(published)) as listener:
        for site in ("other", "nosuch"):
            for environment in ("qa", "nosuch", "live"):
                answer = await listener.sync(environment, site, token=MEMBER)
                assert answer[:2] == (401, {"message": "Unauthorized"})
        assert (await listener.sync(token=MEMBER))[0] == 200


async def test_a_sync_that_fails_is_an_internal_error_with_a_run_to_look_up(
    listening: Start, published: Published
) -> None:
    async with listening(sites=sites(published)) as listener:
        status, body, headers = await listener.sync("qa", "other")
        assert (status, body) == (500, {"message": "Internal server error"})
        run = await listener.ended(headers["X-Run-Id"])
        assert run["outcome"]["error"] == "not-a-repository"
        assert run["outcome"]["remedy"]


@pytest.mark.parametrize("prefix", ["", "/studio"])
@pytest.mark.parametrize("extension", ["", ".json"])
async def test_both_prefixes_are_served_with_and_without_the_extension(
    listener: Client, prefix: str, extension: str
) -> None:
    for path, body in ((SYNC_STAGING, WHOLE), (RESET_STAGING, {"site_id": "mysite"})):
        whole = prefix + path.removesuffix(".json") + extension
        assert (await listener.call("POST", whole, json=body))[:2] == (200, {"message": "OK"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", SYNC_STAGING),
        ("PUT", SYNC_STAGING),
        ("POST", SYNC_STAGING + "/"),
        ("POST", SYNC_STAGING.replace("sync", "SYNC")),
        ("POST", "/studio/api/1/services/api/1/publish/nosuch.json"),
    ],
)
async def test_any_other_script_is_not_found(listener: Client, method: str, path: str) -> None:
    answer = await listener.call(method, path, data=json.dumps(WHOLE))
    assert answer[:2] == (404, {"message": "REST script not found"})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("nonsense", 400, "Bad Request"),
        ("{}", 400, "Invalid parameter(s): [site_id]"),
        ('{"site_id": "nosuch"}', 404, "Site not found"),
        ('{"site_id": "several"}', 404, "Environment not found"),
        ('{"site_id": "mysite"}', 200, "OK"),
    ],
)
async def test_reset_staging_takes_staging_or_the_only_environment(
    listening: Start, published: Published, body: str, status: int, message: str
) -> None:
    async with listening(sites=sites(published)) as listener:
        assert (await listener.call("POST", RESET_STAGING, data=body))[:2] == (status, {"message": message})
        if status == 200:
            assert published.tree("staging") == published.tree("live")
        _, _, headers = await listener.call("POST", RESET_STAGING, json={"site_id": "other"})
        assert (await listener.ended(headers["X-Run-Id"]))["environment"] == "qa"


async def test_a_body_that_is_too_large_or_compressed_is_refused(listener: Client) -> None:
    bad = (400, {"message": "Bad Request"})
    assert (await listener.call("POST", SYNC_STAGING, data=b"x" * 70_000))[:2] == bad
    headers = {"Content-Encoding": "gzip"}
    body = json.dumps(WHOLE)
    assert (await listener.call("POST", SYNC_STAGING, data=body, headers=headers))[:2] == bad


async def test_respond_async_is_answered_at_once(listener: Client) -> None:
    status, body, headers = await listener.sync(headers={"Prefer": "respond-async"})
    assert (status, body) == (202, {"message": "Accepted"})
    assert headers["Location"] == f"/api/v1/runs/{headers['X-Run-Id']}"
    assert headers["Preference-Applied"] == "respond-async"
    assert "Prefer" in headers["Vary"]
    assert (await listener.ended(headers["X-Run-Id"]))["state"] == "succeeded"


async def test_a_caller_waits_as_long_as_it_prefers_and_the_run_goes_on(
    listener: Client, published: Published
) -> None:
    (published.path / ".git" / "index.lock").touch()
    status, body, headers = await listener.sync(headers={"Prefer": "wait=1"})
    assert (status, body) == (500, {"message": "Internal server error"})
    assert headers["Preference-Applied"] == "wait=1"
    (published.path / ".git" / "index.lock").unlink()
    assert (await listener.ended(headers["X-Run-Id"]))["state"] == "succeeded"


async def test_a_caller_who_would_rather_not_wait_longer_is_told_that_it_goes_on(
    listener: Client, published: Published
) -> None:
    (published.path / ".git" / "index.lock").touch()
    status, _, headers = await listener.sync(headers={"Prefer": "respond-async, wait=1"})
    assert status == 202
    assert headers["Preference-Applied"] == "respond-async, wait=1"
    (published.path / ".git" / "index.lock").unlink()
    assert (await listener.ended(headers["X-Run-Id"]))["state"] == "succeeded"


async def test_a_caller_waits_through_busy_times(listener: Client, published: Published) -> None:
    published.git("fetch", "--quiet", "origin")
    status, _, headers = await listener.sync()
    assert status == 200
    assert (await listener.ended(headers["X-Run-Id"]))["failures"] == 0


async def test_a_caller_waits_for_whichever_run_serves_it(listener: Client, published: Published) -> None:
    (published.path / ".git" / "index.lock").touch()
    first = asyncio.create_task(listener.sync())
    while not (await listener.call("GET", "/api/v1/runs"))[1]["runs"]:
        await asyncio.sleep(0.01)
    others = [asyncio.create_task(listener.sync()) for _ in range(10)]
    await asyncio.sleep(0.5)
    (published.path / ".git" / "index.lock").unlink()
    answers = await asyncio.gather(first, *others)
    assert {answer[0] for answer in answers} == {200}
    assert len({answer[2]["X-Run-Id"] for answer in answers}) <= 2


async def test_a_caller_who_hangs_up_cancels_nothing(listener: Client, published: Published) -> None:
    (published.path / ".git" / "index.lock").touch()
    call = asyncio.create_task(listener.sync())
    while not (runs := (await listener.call("GET", "/api/v1/runs"))[1]["runs"]):
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait({call})
    (published.path / ".git" / "index.lock").unlink()
    (run,) = runs
    assert (await listener.ended(run["id"]))["state"] == "succeeded"


async def test_the_log_streams_as_json_lines_and_ends_with_the_answer(listener: Client) -> None:
    headers = {"Accept": "application/x-ndjson, application/json;q=0.5", "Prefer": "respond-async"}
    status, text, headers = await listener.sync(headers=headers)
    assert status == 200
    assert "Preference-Applied" not in headers
    assert headers["Content-Type"].startswith("application/x-ndjson")
    *events, last = map(json.loads, filter(None, text.splitlines()))
    assert [event["event"] for event in events][-3:] == ["apply", "confirm", "run"]
    assert last == {"status": 200, "message": "OK", "run": headers["X-Run-Id"]}


async def test_the_log_streams_as_events_and_ends_with_the_answer(listener: Client) -> None:
    _, text, headers = await listener.sync(headers={"Accept": "text/event-stream"})
    assert headers["Content-Type"].startswith("text/event-stream")
    *events, last = [block for block in text.split("\n\n") if block]
    assert [block.splitlines()[0] for block in events] == [f"id: {n + 1}" for n in range(len(events))]
    name, data = last.splitlines()
    assert name == "event: end"
    assert json.loads(data.removeprefix("data: "))["message"] == "OK"


async def test_a_stream_of_a_failing_call_has_its_status_at_the_end(
    listening: Start, published: Published
) -> None:
    async with listening(sites=sites(published)) as listener:
        headers = {"Accept": "application/x-ndjson"}
        status, text, _ = await listener.sync("qa", "other", headers=headers)
        assert status == 200
        last = json.loads(text.splitlines()[-1])
        assert (last["status"], last["message"]) == (500, "Internal server error")
        assert (await listener.sync("nosuch", headers=headers))[:2] == (
            404,
            {"message": "Environment not found"},
        )


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json, application/x-ndjson", "application/json"),
        ("application/json;q=0.2, text/event-stream;q=0.3", "text/event-stream"),
        ("nonsense;q=abc", "application/json"),
    ],
)
async def test_json_is_answered_unless_a_stream_is_preferred(
    listener: Client, accept: str, content_type: str
) -> None:
    _, _, headers = await listener.sync(headers={"Accept": accept})
    assert headers["Content-Type"].startswith(content_type)


async def test_a_call_for_an_environment_on_hold_fails_and_is_recorded(listener: Client) -> None:
    await listener.call(
        "POST", "/api/v1/sites/mysite/environments/staging/hold", json={"reason": "acceptance test"}
    )
    status, body, headers = await listener.sync()
    assert (status, body) == (500, {"message": "Internal server error"})
    run = await listener.ended(headers["X-Run-Id"])
    assert run["outcome"]["error"] == "on-hold"
    assert "acceptance test" in run["outcome"]["message"]


async def test_equal_branches_are_left_alone(listener: Client, published: Published) -> None:
    await listener.sync()
    before = published.commit("staging")
    age(published, 60)
    status, _, headers = await listener.sync()
    assert status == 200
    assert published.commit("staging") == before
    assert (await listener.ended(headers["X-Run-Id"]))["outcome"]["plan"] == "up-to-date"
