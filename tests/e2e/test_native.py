"""The native API: sites and drift, runs and their logs, who may do what."""

import asyncio
import html
import json
import re
from typing import Any

import pytest

from listener import __version__
from listener.rehearsal.published import Published
from tests.e2e.conftest import Start
from tests.listening import ADMIN, GITHUB_SECRET, MEMBER, Client, push, signed

ONE = "/api/v1/sites/mysite/environments/staging"
WAITING = {"quiet": 0.2, "patience": 60, "backoff": 0.1, "backoff_most": 0.5}


async def started(listener: Client, **more: Any) -> str:
    """Start a run; its id."""
    _, view, _ = await listener.call("POST", f"{ONE}/sync", **more)
    run: str = view["id"]
    return run


async def test_the_probes_need_no_credential(listener: Client) -> None:
    assert (await listener.call("GET", "/healthz", token=None))[:2] == (
        200,
        {"status": "ok", "version": __version__},
    )
    assert (await listener.call("GET", "/readyz", token=None))[:2] == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/sites"),
        ("GET", "/api/v1/sites/mysite"),
        ("POST", f"{ONE}/sync"),
        ("POST", f"{ONE}/hold"),
        ("POST", f"{ONE}/release"),
        ("GET", "/api/v1/runs"),
        ("GET", "/api/v1/runs/x"),
        ("GET", "/api/v1/runs/x/log"),
        ("POST", "/api/v1/runs/x/cancel"),
        ("POST", "/api/v1/runs/x/retry"),
    ],
)
async def test_every_route_needs_a_credential(listener: Client, method: str, path: str) -> None:
    for token in (None, "wrong"):
        status, body, headers = await listener.call(method, path, token=token)
        assert (status, body["title"]) == (401, "Unauthorized")
        assert headers["WWW-Authenticate"] == "Bearer"
        assert headers["Content-Type"].startswith("application/problem+json")


async def test_sites_are_told_with_their_drift_and_last_success(
    listener: Client, published: Published
) -> None:
    _, before, _ = await listener.call("GET", "/api/v1/sites/mysite?fresh=true")
    (environment,) = before["environments"]
    assert environment["last_success"] is None
    assert environment["drift"]["plan"] == "forward-commit"
    assert environment["drift"]["removed"] == ["site/website/staged-for-review/index.xml"]
    assert environment["drift"]["live"] == published.commit("live")
    await listener.sync()
    _, after, _ = await listener.call("GET", "/api/v1/sites")
    (environment,) = after["sites"][0]["environments"]
    assert environment["drift"]["equal"]
    assert environment["last_success"]["run"]


async def test_drift_that_cannot_be_told_says_why(listening: Start, published: Published) -> None:
    async with listening() as listener:
        published.git("branch", "-D", "live")
        _, site, _ = await listener.call("GET", "/api/v1/sites/mysite?fresh=true")
        drift = site["environments"][0]["drift"]
        assert (drift["plan"], drift["equal"]) == ("refuse", False)
        (published.path / ".git" / "HEAD").unlink()
        _, site, _ = await listener.call("GET", "/api/v1/sites/mysite?fresh=true")
        assert site["environments"][0]["drift"]["error"] == "not-a-repository"


async def test_a_dry_run_tells_the_plan_and_moves_nothing(listener: Client, published: Published) -> None:
    before = published.commit("staging")
    status, plan, _ = await listener.call("POST", f"{ONE}/sync", json={"dry_run": True})
    assert (status, plan["plan"], plan["removed_count"]) == (200, "forward-commit", 1)
    assert published.commit("staging") == before
    assert (await listener.call("GET", "/api/v1/runs"))[1]["runs"] == []


async def test_a_sync_answers_its_run_at_once_or_when_it_has_ended(listener: Client) -> None:
    status, view, headers = await listener.call("POST", f"{ONE}/sync")
    assert (status, headers["Location"]) == (202, f"/api/v1/runs/{view['id']}")
    assert (await listener.ended(view["id"]))["state"] == "succeeded"
    status, view, _ = await listener.call("POST", f"{ONE}/sync", headers={"Prefer": "wait=30"})
    assert (status, view["state"]) == (200, "succeeded")


@pytest.mark.parametrize("body", [{"dry_run": 1}, {"dry": True}, []])
async def test_a_sync_with_a_body_it_does_not_know_is_refused(listener: Client, body: Any) -> None:
    status, problem, _ = await listener.call("POST", f"{ONE}/sync", json=body)
    assert status == 400
    assert problem["detail"]


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": " "}, {"reason": 7}, {"reason": "x" * 501}])
async def test_a_hold_needs_a_reason(listener: Client, body: Any) -> None:
    status, problem, _ = await listener.call("POST", f"{ONE}/hold", json=body)
    assert (status, problem["detail"]) == (400, "Invalid parameter(s): [reason]")


async def test_a_hold_is_told_and_released_once(listener: Client) -> None:
    await listener.call("POST", f"{ONE}/hold", json={"reason": "freeze"}, token=MEMBER)
    _, site, _ = await listener.call("GET", "/api/v1/sites/mysite?fresh=true")
    hold = site["environments"][0]["hold"]
    assert (hold["reason"], hold["actor"]) == ("freeze", "editors")
    _, released, _ = await listener.call("POST", f"{ONE}/release")
    assert released["released"]["reason"] == "freeze"
    assert len(released["runs"]) == 1
    assert (await listener.call("POST", f"{ONE}/release"))[1] == {"released": None, "runs": []}


async def test_sites_come_by_pages_in_the_order_of_their_ids(listening: Start, published: Published) -> None:
    sites = {
        name: {
            "repository": {
                "host": "studio",
                "path": str(published.path) if name == "mysite" else f"/srv/{name}",
            },
            "environments": {"staging": {"follow": True}},
        }
        for name in ("mysite", "a", "b", "z")
    }
    async with listening(sites=sites) as listener:
        await listener.call("POST", "/api/v1/sites/b/environments/staging/hold", json={"reason": "a test"})
        path, read = "/api/v1/sites?limit=3", []
        while path:
            status, page, headers = await listener.call("GET", path)
            assert status == 200
            read.append([each["site"] for each in page["sites"]])
            holds = {each["site"]: each["environments"][0]["hold"] for each in page["sites"]}
            assert {name for name, hold in holds.items() if hold} == {"b"} & holds.keys()
            target, _, relation = headers.get("Link", "").partition(";")
            assert (relation.strip() == 'rel="next"') == (page["next"] is not None)
            path = target.strip("<>")
        assert read == [["a", "b", "mysite"], ["z"]]
        path, shown = "/?limit=3", []
        while path:
            _, text, _ = await listener.call("GET", path)
            shown += re.findall("<h2>(.*?)</h2>", text)
            following = re.search('rel="next" href="([^"]+)"', text)
            path = html.unescape(following[1]) if following else ""
        assert shown == ["a", "b", "mysite", "z"]
        _, page, headers = await listener.call("GET", "/api/v1/sites?limit=1", token=MEMBER)
        assert [each["site"] for each in page["sites"]] == ["mysite"]
        assert (page["next"], "Link" in headers) == (None, False)
        _, page, _ = await listener.call("GET", "/api/v1/sites?after=zz")
        assert page == {"sites": [], "next": None}
        for query in ("limit=0", "limit=x", "limit=201", "limit=-1", "limit="):
            status, problem, _ = await listener.call("GET", f"/api/v1/sites?{query}")
            assert (status, problem["detail"]) == (400, "limit must be a number from 1 to 200."), query


async def test_what_a_token_does_not_cover_does_not_exist_for_it(
    listening: Start, published: Published
) -> None:
    repository = {"host": "studio", "path": str(published.path)}
    other = {"repository": {**repository, "path": "/srv/other"}, "environments": {"qa": {"follow": False}}}
    mine = {"repository": repository, "environments": {"staging": {"follow": True}}}
    async with listening(sites={"mysite": mine, "other": other}) as listener:
        run = (await listener.sync("qa", "other"))[2]["X-Run-Id"]
        mine_run = (await listener.sync())[2]["X-Run-Id"]
        for path in (
            "/api/v1/sites/other",
            "/api/v1/sites/nosuch",
            f"/api/v1/runs/{run}",
            f"/api/v1/runs/{run}/log",
        ):
            status, problem, _ = await listener.call("GET", path, token=MEMBER)
            assert status == 404, path
            assert problem["code"] in {"site-not-found", "run-not-found"}
        answers = [
            await listener.call("GET", f"/api/v1/runs/{each}", token=MEMBER) for each in (run, "nosuch")
        ]
        assert answers[0][:2] == answers[1][:2]
        assert answers[0][2].keys() == answers[1][2].keys(), "no header tells that there is such a run"
        for token, seen in ((MEMBER, [mine_run]), (ADMIN, [mine_run, run])):
            _, page, _ = await listener.call("GET", "/api/v1/runs", token=token)
            assert [each["id"] for each in page["runs"]] == seen
            _, sites, _ = await listener.call("GET", "/api/v1/sites", token=token)
            assert len(sites["sites"]) == len(seen)


async def test_the_history_is_paged_and_filtered(listener: Client) -> None:
    made = [(await listener.sync())[2]["X-Run-Id"] for _ in range(5)]
    _, first, _ = await listener.call("GET", "/api/v1/runs?limit=3")
    _, second, _ = await listener.call("GET", f"/api/v1/runs?limit=3&before={first['before']}")
    assert [run["id"] for page in (first, second) for run in page["runs"]] == made[::-1]
    assert second["before"] is None
    assert (await listener.call("GET", "/api/v1/runs?state=failed"))[1]["runs"] == []
    assert len((await listener.call("GET", "/api/v1/runs?site=mysite&environment=staging"))[1]["runs"]) == 5
    for query in ("state=nosuch", "limit=0", "limit=x", "limit=1000"):
        assert (await listener.call("GET", f"/api/v1/runs?{query}"))[0] == 400


async def test_a_log_is_numbered_without_holes_and_resumes_where_it_broke_off(listener: Client) -> None:
    run = (await listener.sync())[2]["X-Run-Id"]
    events = {"Accept": "text/event-stream"}
    path = f"/api/v1/runs/{run}/log"
    _, whole, _ = await listener.call("GET", path, headers=events)
    ids = [int(line[4:]) for line in whole.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, len(ids) + 1))
    assert whole.rstrip().endswith('data: {"state": "succeeded", "successor": null}')
    _, rest, _ = await listener.call("GET", path, headers={**events, "Last-Event-ID": str(ids[-1] - 2)})
    assert [line for line in rest.splitlines() if line.startswith("id: ")] == [f"id: {n}" for n in ids[-2:]]
    _, lines, _ = await listener.call("GET", f"{path}?after={ids[-1] - 1}")
    assert json.loads(lines)["event"] == "run"
    assert (await listener.call("GET", path, headers={**events, "Last-Event-ID": str(ids[-1])}))[0] == 204
    assert (await listener.call("GET", path, headers={"Last-Event-ID": "x"}))[0] == 400


async def test_every_line_names_run_site_environment_and_host(listener: Client, published: Published) -> None:
    run = (await listener.sync())[2]["X-Run-Id"]
    events = await listener.events(run)
    who = {"run": run, "site": "mysite", "environment": "staging", "host": "studio"}
    assert all(who.items() <= event.items() for event in events)
    assert [event["event"] for event in events if event["event"] != "connect"] == [
        "start",
        "observe",
        "plan",
        "apply",
        "confirm",
        "run",
    ]
    canonical = events[-1]
    assert canonical["outcome"] == "succeeded"
    assert canonical["new"] == published.commit("staging")
    assert set(canonical["durations"]) == {"observe", "keep", "apply"}


async def test_a_log_is_live_until_the_run_ends(listening: Start, published: Published) -> None:
    async with listening(sync=WAITING) as listener:
        (published.path / ".git" / "index.lock").touch()
        run = await started(listener)
        seen = []
        async with listener.session.get(
            f"{listener.url}/api/v1/runs/{run}/log", headers={"Authorization": f"Bearer {ADMIN}"}
        ) as response:
            async for line in response.content:
                seen.append(json.loads(line))
                if seen[-1]["event"] == "again":
                    (published.path / ".git" / "index.lock").unlink(missing_ok=True)
        assert seen[-1]["event"] == "run"
        assert [event["event"] for event in seen].count("start") >= 2


async def test_a_waiting_run_is_cancelled_and_can_be_tried_again(
    listening: Start, published: Published
) -> None:
    async with listening(sync=WAITING) as listener:
        (published.path / ".git" / "index.lock").touch()
        call = asyncio.create_task(listener.sync())
        while not (await listener.call("GET", "/api/v1/runs"))[1]["runs"]:
            await asyncio.sleep(0.01)
        (run,) = (await listener.call("GET", "/api/v1/runs"))[1]["runs"]
        status, view, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/cancel")
        assert (status, view["state"]) == (200, "cancelled")
        assert (await call)[0] == 500
        assert (await listener.call("POST", f"/api/v1/runs/{run['id']}/cancel"))[0] == 409
        (published.path / ".git" / "index.lock").unlink()
        status, retried, _ = await listener.call("POST", f"/api/v1/runs/{run['id']}/retry")
        assert status == 202
        assert (await listener.ended(retried["id"]))["state"] == "succeeded"
        assert (await listener.call("POST", f"/api/v1/runs/{retried['id']}/retry"))[0] == 409


async def test_a_member_cancels_its_own_and_not_what_serves_others(
    listening: Start, published: Published
) -> None:
    async with listening(sync=WAITING) as listener:
        (published.path / ".git" / "index.lock").touch()
        run = await started(listener, token=ADMIN)
        status, problem, _ = await listener.call("POST", f"/api/v1/runs/{run}/cancel", token=MEMBER)
        assert (status, problem["code"]) == (403, "forbidden")
        assert (await listener.call("POST", f"/api/v1/runs/{run}/cancel", token=ADMIN))[0] == 200
        own = await started(listener, token=MEMBER)
        assert (await listener.call("POST", f"/api/v1/runs/{own}/cancel", token=MEMBER))[0] == 200


async def test_what_a_hook_has_asked_for_is_nobodys_own_whatever_the_hook_is_called(
    listening: Start, published: Published
) -> None:
    forge = {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": {"acme/mysite": "mysite"}}
    async with listening(sync=WAITING, hooks={"editors": forge}) as listener:
        (published.path / ".git" / "index.lock").touch()
        body = push()
        _, accepted, _ = await listener.call(
            "POST", "/hooks/editors", token=None, data=body, headers=signed(body, "d-1")
        )
        cancel = f"/api/v1/runs/{accepted['runs'][0]}/cancel"
        assert (await listener.call("POST", cancel, token=MEMBER))[0] == 403
        assert (await listener.call("POST", cancel, token=ADMIN))[0] == 200


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/api/v1/nosuch", "/hooks", "/healthz/", "/..%2f"])
async def test_no_other_route_exists(listener: Client, path: str) -> None:
    status, problem, headers = await listener.call("GET", path)
    assert headers["Server"] == "sync-staging", "not of what it is made"
    assert status == 404
    assert headers["Content-Type"].startswith("application/problem+json")
    assert problem["status"] == 404
