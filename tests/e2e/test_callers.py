"""Who calls the API: by HTTP Basic, by a session of the page, by what Studio knows; and who gets nowhere."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.e2e.conftest import Start
from tests.listening import ADMIN, MEMBER, SYNC_STAGING, Client, client, daemon
from tests.studio import FakeStudio

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HOLD = "/api/v1/sites/mysite/environments/staging/hold"
OWN = {"Sec-Fetch-Site": "same-origin"}
UNAUTHORIZED = {"message": "Unauthorized"}


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def signed_in(listener: Client, token: str = MEMBER) -> dict[str, str]:
    """The header with the cookie of a new session."""
    status, _, headers = await listener.call("POST", "/session", token=None, json={"token": token})
    assert status == 201
    return {"Cookie": headers["Set-Cookie"].partition(";")[0]}


# HTTP Basic.


async def test_a_token_may_come_as_the_password_of_basic(listener: Client) -> None:
    assert (await listener.sync(token=None, headers=basic(ADMIN)))[:2] == (200, {"message": "OK"})
    for user in ("", "editors", "somebody else"):
        assert (await listener.call("GET", "/api/v1/sites", token=None, headers=basic(MEMBER, user)))[
            0
        ] == 200
    run = (await listener.call("GET", "/api/v1/runs"))[1]["runs"][0]["id"]
    _, view, _ = await listener.call("GET", f"/api/v1/runs/{run}")
    assert [trigger["actor"] for trigger in view["triggers"]] == ["root"]


@pytest.mark.parametrize(
    "headers",
    [
        basic("wrong"),
        basic(""),
        {"Authorization": f"Basic {ADMIN}"},
        {"Authorization": "Basic"},
        {"Authorization": basic(ADMIN)["Authorization"] + "="},
        basic(hashlib.sha256(ADMIN.encode()).hexdigest()),
    ],
)
async def test_a_401_asks_for_bearer_alone_so_that_no_browser_opens_a_dialogue(
    listener: Client, headers: dict[str, str]
) -> None:
    status, body, answered = await listener.sync(token=None, headers=headers)
    assert (status, body) == (401, UNAUTHORIZED)
    assert answered.getall("WWW-Authenticate") == ["Bearer"]
    status, _, answered = await listener.call("GET", "/api/v1/sites", token=None, headers=headers)
    assert (status, answered.getall("WWW-Authenticate")) == (401, ["Bearer"])


async def test_two_authorization_headers_let_nobody_in(listener: Client) -> None:
    twice = [("Authorization", f"Bearer {ADMIN}"), ("Authorization", basic(ADMIN)["Authorization"])]
    async with listener.session.get(f"{listener.url}/api/v1/sites", headers=twice) as response:
        assert response.status == 401


# Sessions.


async def test_a_session_may_do_what_its_token_may(listener: Client) -> None:
    cookie = await signed_in(listener)
    status, view, _ = await listener.call("GET", "/api/v1/sites", token=None, headers=cookie)
    assert (status, [site["site"] for site in view["sites"]]) == (200, ["mysite"])
    assert (await listener.sync(token=None, headers=cookie | OWN))[:2] == (200, {"message": "OK"})
    status, body, _ = await listener.sync(site="other", token=None, headers=cookie | OWN)
    assert (status, body) == (401, UNAUTHORIZED)


async def test_the_answer_to_a_sign_in_says_who_and_for_how_long(listener: Client) -> None:
    status, body, headers = await listener.call("POST", "/session", token=None, json={"token": MEMBER})
    assert status == 201
    assert body.pop("expires") > "2026"
    assert body == {"name": "editors", "role": "member", "sites": ["mysite"]}
    name, *attributes = headers["Set-Cookie"].split("; ")
    assert name.startswith("sync-staging=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43199", "Path=/", "SameSite=Strict"]
    assert headers["Cache-Control"] == "no-store"


async def test_the_form_leads_back_to_the_page(listener: Client) -> None:
    said = {"data": f"token={MEMBER}", "headers": FORM | OWN, "allow_redirects": False}
    status, _, headers = await listener.call("POST", "/session", token=None, **said)
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly" in headers["Set-Cookie"]


async def test_a_wrong_token_gets_the_page_again_or_a_problem(listener: Client) -> None:
    status, text, headers = await listener.call(
        "POST", "/session", token=None, data="token=<wrong>", headers=FORM | OWN
    )
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "This token is unknown" in text
    assert "wrong" not in text
    status, body, headers = await listener.call("POST", "/session", token=None, json={"token": "wrong"})
    assert (status, body["title"], headers["WWW-Authenticate"]) == (401, "Unauthorized", "Bearer")
    assert "Set-Cookie" not in headers


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        ("", FORM),
        ("other=x", FORM),
        ("token=x&token=y", FORM),
        ("token=x&more=y", FORM),
        ("[]", {}),
        ("{}", {}),
        ('{"token": 7}', {}),
        ('{"token": "x", "more": 1}', {}),
        ("nothing", {}),
    ],
)
async def test_a_sign_in_without_a_token_is_a_bad_request(
    listener: Client, data: str, headers: dict[str, str]
) -> None:
    assert (await listener.call("POST", "/session", token=None, data=data, headers=headers))[0] == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
    ],
    ids=str,
)
async def test_no_other_sites_page_can_use_the_session(listener: Client, headers: dict[str, str]) -> None:
    cookie = await signed_in(listener)
    headers = {name: value.replace("OWN", listener.url) for name, value in headers.items()}
    assert (await listener.sync(token=None, headers=cookie | headers))[:2] == (401, UNAUTHORIZED)
    status, body, _ = await listener.call(
        "POST", HOLD, token=None, json={"reason": "x"}, headers=cookie | headers
    )
    assert (status, body["code"]) == (403, "forbidden")
    for method, path in (("DELETE", "/session"), ("POST", "/session/end")):
        assert (await listener.call(method, path, token=None, headers=cookie | headers))[0] == 403
    assert (await listener.call("GET", "/api/v1/sites", token=None, headers=cookie))[0] == 200
    assert (await listener.call("GET", "/api/v1/runs"))[1]["runs"] == []
    if headers:
        for method, path in (("DELETE", "/session"), ("POST", "/session/end")):
            assert (await listener.call(method, path, token=None, headers=headers))[0] == 403
        said = {"json": {"token": MEMBER}, "headers": headers}
        assert (await listener.call("POST", "/session", token=None, **said))[0] == 403


async def test_the_pages_own_origin_will_do_where_a_browser_says_no_more(listener: Client) -> None:
    cookie = await signed_in(listener)
    own = {"Origin": listener.url}
    said = {"json": {"reason": "x"}, "headers": cookie | own}
    assert (await listener.call("POST", HOLD, token=None, **said))[0] == 200


async def test_a_header_counts_instead_of_the_cookie(listener: Client) -> None:
    cookie = await signed_in(listener, ADMIN)
    said = {"json": {"reason": "by header"}, "headers": cookie}
    status, body, _ = await listener.call("POST", HOLD, token=MEMBER, **said)
    assert (status, body["hold"]["actor"]) == (200, "editors")
    assert (await listener.call("GET", "/api/v1/sites", token="wrong", headers=cookie))[0] == 401
    wrong = {"Cookie": "sync-staging=wrong"}
    assert (await listener.call("GET", "/api/v1/sites", token=MEMBER, headers=wrong))[0] == 200
    assert (await listener.call("GET", "/api/v1/sites", token="wrong", headers=wrong))[0] == 401
    assert (await listener.call("GET", "/api/v1/sites", token=None, headers=wrong))[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "status"), [("DELETE", "/session", 204), ("POST", "/session/end", 303)]
)
async def test_a_session_ends_at_the_listener(listener: Client, method: str, path: str, status: int) -> None:
    cookie, other = await signed_in(listener), await signed_in(listener)
    answered = await listener.call(method, path, token=None, headers=cookie | OWN, allow_redirects=False)
    assert answered[0] == status
    assert "Max-Age=0" in answered[2]["Set-Cookie"]
    assert (await listener.call("GET", "/api/v1/sites", token=None, headers=cookie))[0] == 401
    assert (await listener.call("GET", "/api/v1/sites", token=None, headers=other))[0] == 200
    again = await listener.call(method, path, token=None, headers=cookie | OWN, allow_redirects=False)
    assert again[0] == status


async def test_a_new_sign_in_ends_the_session_that_was_there(listener: Client) -> None:
    cookie = await signed_in(listener)
    said = {"json": {"token": MEMBER}, "headers": cookie | OWN}
    assert (await listener.call("POST", "/session", token=None, **said))[0] == 201
    assert (await listener.call("GET", "/api/v1/sites", token=None, headers=cookie))[0] == 401


async def test_a_session_ends_when_its_time_is_over(listening: Start) -> None:
    async with listening(server={"port": 0, "session": "300ms"}) as listener:
        cookie = await signed_in(listener)
        assert (await listener.call("GET", "/api/v1/runs", token=None, headers=cookie))[0] == 200
        while (await listener.call("GET", "/api/v1/runs", token=None, headers=cookie))[0] == 200:
            await asyncio.sleep(0.02)


def token_entry(text: str, name: str = "editors", **more: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"name": name, "sha256": sha256, "role": "member", "sites": ["mysite"], **more}


@pytest.mark.parametrize(
    "tokens",
    [
        [token_entry("another")],
        [token_entry(MEMBER, "renamed")],
        [token_entry(MEMBER, expires="2020-01-01T00:00:00Z")],
        [],
    ],
    ids=["renewed", "renamed", "expired", "removed"],
)
async def test_a_session_outlives_a_restart_but_not_its_token(
    listening: Start, tokens: list[dict[str, Any]]
) -> None:
    async with listening() as listener:
        cookie = await signed_in(listener)
    async with listening() as listener:
        assert (await listener.call("GET", "/api/v1/runs", token=None, headers=cookie))[0] == 200
    async with listening(tokens=tokens) as listener:
        assert (await listener.call("GET", "/api/v1/runs", token=None, headers=cookie))[0] == 401


async def test_the_store_knows_a_session_by_its_hash_alone(listening: Start, tmp_path: Path) -> None:
    async with listening() as listener:
        made = (await signed_in(listener))["Cookie"].partition("=")[2]
        assert len(made) > 40
    kept = (tmp_path / "listener.db").read_bytes()
    assert made.encode() not in kept
    assert hashlib.sha256(made.encode()).hexdigest().encode() in kept


async def test_a_runs_log_streams_to_a_session(listener: Client) -> None:
    run = (await listener.sync())[2]["X-Run-Id"]
    cookie = await signed_in(listener)
    events = {"Accept": "text/event-stream"}
    status, text, headers = await listener.call(
        "GET", f"/api/v1/runs/{run}/log", token=None, headers=cookie | events
    )
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/event-stream")
    assert "event: end" in text
    assert (await listener.call("GET", f"/api/v1/runs/{run}/log", token=None, headers=events))[0] == 401


async def test_the_page_shows_a_stranger_a_form_and_a_caller_their_sites(listener: Client) -> None:
    reason = {"reason": "<b>acceptance</b> test"}
    assert (await listener.call("POST", HOLD, json=reason))[0] == 200
    status, text, headers = await listener.call("GET", "/", token=None)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert 'name="token"' in text
    assert "mysite" not in text
    _, text, headers = await listener.call("GET", "/", token=None, headers=await signed_in(listener))
    assert "mysite" in text
    assert "on hold since" in text
    assert "&lt;b&gt;acceptance&lt;/b&gt; test" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize("path", ["/", "/api/v1/sites", "/api/v1/runs", "/api/v1/runs/none/log", "/nowhere"])
async def test_what_a_browser_reads_with_a_session_stays_in_no_cache(listener: Client, path: str) -> None:
    for cookie in (await signed_in(listener), {}):
        _, _, headers = await listener.call("GET", path, token=None, headers=cookie)
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")


async def test_a_log_that_is_watched_with_a_session_stays_in_no_cache(listener: Client) -> None:
    cookie = await signed_in(listener)
    _, _, headers = await listener.sync(token=None, headers=cookie | OWN)
    for form in ("application/x-ndjson", "text/event-stream"):
        log = f"/api/v1/runs/{headers['X-Run-Id']}/log"
        _, _, said = await listener.call("GET", log, token=None, headers={**cookie, "Accept": form})
        assert (said["X-Content-Type-Options"], said["Cache-Control"]) == ("nosniff", "no-store")


# Callers whom Studio knows.


@pytest.fixture
async def studio() -> AsyncIterator[FakeStudio]:
    async with FakeStudio() as running:
        yield running


def asking(studio: FakeStudio, **more: Any) -> dict[str, Any]:
    return {"url": studio.url, "callers": ["admin", "publisher"], **more}


async def test_a_studio_user_syncs_by_their_own_token(listening: Start, studio: FakeStudio) -> None:
    token = studio.user("jane", mysite=["publisher"])
    async with listening(studio=asking(studio)) as listener:
        status, body, headers = await listener.sync(token=token)
        assert (status, body) == (200, {"message": "OK"})
        _, view, _ = await listener.call("GET", f"/api/v1/runs/{headers['X-Run-Id']}", token=token)
        assert [trigger["actor"] for trigger in view["triggers"]] == ["studio:jane"]
        _, view, _ = await listener.call("GET", "/api/v1/sites", token=token)
        assert [site["site"] for site in view["sites"]] == ["mysite"]
        _, body, _ = await listener.call("POST", HOLD, json={"reason": "x"}, token=token)
        assert body["hold"]["actor"] == "studio:jane"


async def test_a_studio_session_counts_with_its_xsrf_pair(listening: Start, studio: FakeStudio) -> None:
    studio.user("jane", mysite=["admin"])
    studio.sessions["4F3A", "b0-c1"] = "jane"
    cookie = {"Cookie": "JSESSIONID=4F3A; XSRF-TOKEN=b0-c1"}
    async with listening(studio=asking(studio)) as listener:
        pair = cookie | {"X-XSRF-TOKEN": "b0-c1"}
        assert (await listener.sync(token=None, headers=pair))[:2] == (200, {"message": "OK"})
        asked = len(studio.requests)
        for wrong in ({}, {"X-XSRF-TOKEN": "b0-c2"}, {"X-XSRF-TOKEN": ""}):
            assert (await listener.sync(token=None, headers=cookie | wrong))[:2] == (401, UNAUTHORIZED)
        assert len(studio.requests) == asked


@pytest.mark.parametrize(
    ("roles", "site"),
    [
        ({"mysite": ["author"]}, "mysite"),
        ({"other": ["admin"]}, "mysite"),
        ({}, "mysite"),
        ({"mysite": ["admin"]}, "unknown"),
    ],
)
async def test_who_has_no_role_on_the_site_gets_the_401_of_a_stranger(
    listening: Start, studio: FakeStudio, roles: dict[str, list[str]], site: str
) -> None:
    token = studio.user("jane", **roles)
    async with listening(studio=asking(studio)) as listener:
        assert (await listener.sync(site=site, token=token))[:2] == (401, UNAUTHORIZED)


async def test_the_credential_is_judged_before_body_and_site(listening: Start, studio: FakeStudio) -> None:
    token = studio.user("jane", mysite=["admin"])
    async with listening(studio=asking(studio)) as listener:
        for said, expected in (
            ({"data": b"no json", "token": "eyJ.a.b.c.d"}, 401),
            ({"data": b"no json", "token": token}, 400),
            ({"json": {"site_id": "mysite"}, "token": token}, 400),
            ({"json": {"site_id": "mysite", "environment": "x"}, "token": token}, 404),
        ):
            assert (await listener.call("POST", SYNC_STAGING, **said))[0] == expected


async def test_nobody_is_an_admin_by_studio(listening: Start, studio: FakeStudio) -> None:
    token = studio.user("root", mysite=["system_admin", "admin"])
    async with listening(studio=asking(studio)) as listener:
        run = (await listener.sync(token=token))[2]["X-Run-Id"]
        assert (await listener.call("POST", f"/api/v1/runs/{run}/rollback", token=token))[0] == 403


async def test_studio_is_asked_only_where_that_is_configured(listening: Start, studio: FakeStudio) -> None:
    token = studio.user("jane", mysite=["admin"])
    async with listening(studio={"url": studio.url, "management_token": "x"}) as listener:
        assert (await listener.sync(token=token))[:2] == (401, UNAUTHORIZED)
    assert studio.requests == []


async def test_what_is_no_studio_token_is_never_shown_to_studio(listening: Start, studio: FakeStudio) -> None:
    expired = token_entry("a.b.c.d.e", expires="2020-01-01T00:00:00Z")
    tokens = [token_entry(MEMBER, "other"), expired]
    async with listening(studio=asking(studio), tokens=tokens) as listener:
        assert (await listener.call("GET", "/api/v1/runs", token=MEMBER))[0] == 200
        for token in ("wrong", ADMIN, "sst_wrong", "a.b.c.d.e"):
            assert (await listener.call("GET", "/api/v1/runs", token=token))[0] == 401
        by_basic = basic(studio.user("jane", mysite=["admin"]))
        assert (await listener.call("GET", "/api/v1/runs", token=None, headers=by_basic))[0] == 401
    assert studio.requests == []


@pytest.mark.parametrize("status", [500, 302, 200])
async def test_a_studio_that_does_not_answer_lets_nobody_in_and_the_log_says_why(
    configured: Callable[..., Path], studio: FakeStudio, status: int
) -> None:
    token = studio.user("jane", mysite=["admin"])

    async def misbehaving(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<h1>Zx9Marker</h1>")

    studio.misbehave = misbehaving
    async with daemon(configured(studio=asking(studio))) as running, client(running.url) as listener:
        assert (await listener.sync(token=token))[:2] == (401, UNAUTHORIZED)
        answered, body, _ = await listener.call("GET", "/api/v1/sites", token=token)
        assert (answered, body) == (401, {"type": "about:blank", "title": "Unauthorized", "status": 401})
        assert (await listener.sync())[0] == 200, "tokens go on working"
        told = [event for event in await running.logged() if event["event"] == "call refused"]
        assert {event["client"] for event in told} == {"127.0.0.1"}
        assert all(event["reason"].startswith("Studio") for event in told), told
    text = running.log.read_text()
    assert token not in text
    assert "Zx9Marker" not in text
