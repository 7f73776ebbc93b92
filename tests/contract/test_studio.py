"""Studio is asked for its cluster role and its publishing status, by both routes that its versions have."""

import asyncio
import gc
import gzip
import json
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from aiohttp import web

from listener.errors import (
    NotPrimaryError,
    StudioRefusedError,
    StudioUnavailableError,
    SyncError,
    UnknownToStudioError,
)
from listener.studio import StudioClient
from listener.studio.connection import LARGEST
from listener.studio.publishing import ROLE_LASTS
from tests.studio import TASK, FakeStudio, status_of_4, status_of_5


class Clock:
    """A clock that stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def studio() -> AsyncIterator[FakeStudio]:
    async with FakeStudio() as running:
        running.bodies["mysite"] = status_of_4("ready")
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


Connect = Callable[..., StudioClient]


@pytest.fixture
async def connect(studio: FakeStudio, clock: Clock) -> AsyncIterator[Connect]:
    """Makes clients of the studio, which are closed at the end."""
    clients: list[StudioClient] = []

    def connecting(
        *, token: bool = True, management: bool = True, timeout: float = 20, url: str = "", **other: str
    ) -> StudioClient:
        client = StudioClient(
            url or studio.url,
            token=other.get("wrong", studio.token) if token else None,
            management_token=other.get("wrong", studio.management_token) if management else None,
            timeout=timeout,
            clock=clock,
        )
        clients.append(client)
        return client

    yield connecting
    for client in clients:
        await client.close()


async def refused(asking: Awaitable[str]) -> SyncError:
    """What was raised instead of an answer."""
    with pytest.raises(SyncError) as error:
        await asking
    return error.value


def everything_of(error: BaseException) -> str:
    """All that could ever be shown of an error, and of what led to it."""
    parts = [*traceback.format_exception(error)]
    at: BaseException | None = error
    while at is not None:
        parts += [repr(at), str(at), repr(vars(at)), *(repr(each) for each in at.args)]
        at = at.__cause__ or at.__context__
    return "\n".join(parts)


async def some(count: Callable[[], int], wanted: int) -> None:
    while count() < wanted:
        await asyncio.sleep(0.01)


# What Studio says.


@pytest.mark.parametrize("word", ["processing", "publishing", "busy", "PUBLISHING"])
async def test_nothing_is_moved_while_the_publisher_is_at_work(
    studio: FakeStudio, connect: Connect, word: str
) -> None:
    studio.bodies["mysite"] = status_of_4(word)
    assert await connect().check("mysite") == f"Studio is publishing (status {word.lower()})"


@pytest.mark.parametrize(
    "word", [None, "", "ready", "readyWithErrors", "idle", "queued", "started", "stopped", "error"]
)
async def test_every_other_word_of_studio_s_lets_move(
    studio: FakeStudio, connect: Connect, word: str | None
) -> None:
    studio.bodies["mysite"] = status_of_4(word)
    assert await connect().check("mysite") == ""


@pytest.mark.parametrize(
    ("word", "shown"), [("reticulating", " (reticulating)"), ("<b>" + "x" * 99, ""), (7, ""), ([], "")]
)
async def test_a_word_that_is_not_known_is_no_answer(
    studio: FakeStudio, connect: Connect, word: Any, shown: str
) -> None:
    studio.bodies["mysite"] = status_of_4(word)
    error = await refused(connect().check("mysite"))
    assert isinstance(error, StudioUnavailableError)
    assert error.message == f"Studio's publishing status is unknown{shown}."
    assert (error.permanent, error.code) == (False, "studio-unavailable")


@pytest.mark.parametrize(
    "wrap", [lambda fields: fields, lambda fields: {"response": fields}], ids=["in the body", "in response"]
)
async def test_the_older_shapes_say_the_same(
    studio: FakeStudio, connect: Connect, wrap: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    client = connect()
    studio.bodies["mysite"] = wrap({"enabled": True, "status": "publishing", "message": "Publishing"})
    assert await client.check("mysite") == "Studio is publishing (status publishing)"
    studio.bodies["mysite"] = wrap({"status": "queued", "message": "Items queued"})
    assert await client.check("mysite") == ""


async def test_studio_5_says_it_by_the_task_that_is_under_way(studio: FakeStudio, connect: Connect) -> None:
    client = connect()
    studio.version = 5
    studio.bodies["mysite"] = status_of_5(TASK)
    assert await client.check("mysite") == "Studio is publishing a package"
    studio.bodies["mysite"] = status_of_5(None)
    assert await client.check("mysite") == ""
    del studio.bodies["mysite"]["publishingStatus"]["currentTask"]
    assert await client.check("mysite") == ""


async def test_the_route_that_was_right_is_asked_first_also_after_an_upgrade(
    studio: FakeStudio, connect: Connect
) -> None:
    client = connect(management=False)
    await client.check("mysite")
    studio.version = 5
    studio.bodies["mysite"] = status_of_5(None)
    await client.check("mysite")
    await client.check("mysite")
    before_5, from_5 = "/studio/api/2/publish/status?siteId=mysite", "/studio/api/2/publish/mysite/status"
    assert studio.requests == [before_5, before_5, from_5, from_5]


async def test_a_site_s_name_can_t_change_what_is_asked(studio: FakeStudio, connect: Connect) -> None:
    site = "a/../b?x=1&siteId=mysite#é"
    studio.bodies[site] = status_of_4("publishing")
    assert await connect(management=False).check(site) == "Studio is publishing (status publishing)"
    assert studio.requests == [
        "/studio/api/2/publish/status?siteId=a%2F..%2Fb%3Fx%3D1%26siteId%3Dmysite%23%C3%A9"
    ]


@pytest.mark.parametrize("version", [4, 5])
async def test_a_site_that_studio_does_not_know_is_told_with_what_to_do(
    studio: FakeStudio, connect: Connect, version: int
) -> None:
    studio.version = version
    error = await refused(connect().check("other"))
    assert isinstance(error, UnknownToStudioError)
    assert error.permanent
    assert "studio.url" in error.remedy


# The cluster role.


async def test_on_a_replica_nothing_is_moved_whatever_it_says_of_publishing(
    studio: FakeStudio, connect: Connect
) -> None:
    studio.replica = True
    studio.bodies["mysite"] = status_of_4("publishing")
    error = await refused(connect().check("mysite"))
    assert isinstance(error, NotPrimaryError)
    assert (error.permanent, error.code) == (False, "not-primary")
    assert "hosts.*.address" in error.remedy


async def test_each_question_is_asked_only_with_its_token(studio: FakeStudio, connect: Connect) -> None:
    studio.replica = True
    assert await connect(management=False).check("mysite") == ""
    assert [path for path in studio.requests if "monitoring" in path] == []
    studio.requests.clear()
    studio.replica = False
    assert await connect(token=False).check("unheard-of") == ""
    assert studio.requests == ["/studio/api/2/monitoring/status?token=management%2Btoken%2FXp9Vt3"]


async def test_a_primary_is_taken_to_be_one_for_a_moment_and_the_status_never(
    studio: FakeStudio, connect: Connect, clock: Clock
) -> None:
    client = connect()
    await client.check("mysite")
    clock.now += ROLE_LASTS - 0.1
    studio.replica = True
    studio.bodies["mysite"] = status_of_4("publishing")
    assert await client.check("mysite") == "Studio is publishing (status publishing)"
    clock.now += 0.2
    assert isinstance(await refused(client.check("mysite")), NotPrimaryError)
    studio.replica = False
    assert await client.check("mysite") == "Studio is publishing (status publishing)"


# Many who ask.


async def test_who_asks_the_same_at_the_same_time_shares_one_request(
    studio: FakeStudio, connect: Connect
) -> None:
    studio.bodies["other"] = status_of_4("publishing")
    client = connect()
    studio.answering.clear()
    asking = [asyncio.create_task(client.check(site)) for site in ("mysite", "mysite", "other") * 5]
    await some(lambda: len(studio.requests), 3)
    studio.answering.set()
    answers = await asyncio.gather(*asking)
    assert answers == ["", "", "Studio is publishing (status publishing)"] * 5
    assert len(studio.requests) == 3
    await client.check("mysite")
    assert len(studio.requests) == 4


async def test_whoever_asks_after_a_question_was_sent_gets_an_answer_of_their_own(
    studio: FakeStudio, connect: Connect
) -> None:
    client = connect(management=False)
    studio.answering.clear()
    first = asyncio.create_task(client.check("mysite"))
    await some(lambda: len(studio.requests), 1)
    second = asyncio.create_task(client.check("mysite"))
    await some(lambda: len(studio.requests), 2)
    studio.answering.set()
    assert (await first, await second) == ("", "")


async def test_one_who_stops_waiting_takes_the_answer_from_nobody_else(
    studio: FakeStudio, connect: Connect
) -> None:
    client = connect()
    studio.answering.clear()
    first, second = (asyncio.create_task(client.check("mysite")) for _ in range(2))
    await some(lambda: len(studio.requests), 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    studio.answering.set()
    assert await second == ""
    assert len(studio.requests) == 2


async def test_a_failure_that_nobody_waits_for_any_more_is_no_defect(
    studio: FakeStudio, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(management=False)
    studio.bodies["mysite"] = status_of_4("reticulating")
    studio.answering.clear()
    waiting = asyncio.create_task(client.check("mysite"))
    await some(lambda: len(studio.requests), 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    studio.answering.set()
    while client._requests._under_way:
        await asyncio.sleep(0.01)
    del waiting
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_who_waits_when_the_client_is_closed_gets_an_error(
    studio: FakeStudio, connect: Connect
) -> None:
    client = connect()
    studio.answering.clear()
    waiting = asyncio.create_task(client.check("mysite"))
    await some(lambda: len(studio.requests), 2)
    await client.close()
    assert isinstance(await refused(waiting), StudioUnavailableError)


async def test_a_client_that_never_asked_is_closed_as_well(connect: Connect) -> None:
    await connect().close()


# What goes wrong.


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_within(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"publishingStatus"')
    assert request.transport is not None
    request.transport.close()
    return response


async def babble(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    request.transport.close()
    return web.Response()


async def trickle(request: web.Request) -> web.StreamResponse:
    """Answers that never end, a little at a time."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def flood(request: web.Request) -> web.StreamResponse:
    """An answer without an end; whoever reads on is full some day."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * (1 << 13))


def answer(body: str | bytes, status: int = 200, **headers: str) -> Callable[[web.Request], Any]:
    async def answering(_: web.Request) -> web.StreamResponse:
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(
            status=status, body=raw, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return answering


async def echo(request: web.Request) -> web.StreamResponse:
    """All that was sent, back in the answer's every part."""
    sent = f"{request.raw_path} {request.headers.get('Authorization')}"
    return web.Response(status=500, reason="Sorry", text=sent, headers={"Location": request.raw_path})


READY = json.dumps(status_of_4("ready"))
FAULTS = {
    "cut": (cut, "closed the connection"),
    "cut within": (cut_within, "closed the connection in the middle of its answer"),
    "no HTTP": (babble, "its answer is not valid HTTP"),
    "flood": (flood, "not a JSON object"),
    "just too large": (answer(READY + " " * LARGEST), "not a JSON object"),
    "HTML": (answer("<html>Sign in</html>", Content_Type="text/html"), "not a JSON object"),
    "no object": (answer("[]"), "not a JSON object"),
    "no UTF-8": (answer(b"\xff\xfe{}"), "not a JSON object"),
    "deep": (answer("[" * 60_000), "not a JSON object"),
    "compressed": (answer(gzip.compress(READY.encode()), Content_Encoding="gzip"), "not a JSON object"),
    "nothing": (answer(""), "not a JSON object"),
    "redirect": (answer("", 302, Location="/studio/login"), "a redirect (302)"),
    "moved": (answer("", 308, Location="https://127.0.0.1/studio"), "a redirect (308)"),
    "down": (answer("<html>Bad Gateway</html>", 502), "Studio answered 502."),
    "failed": (echo, "Studio answered 500."),
    "too many": (answer("{}", 429), "Studio answered 429."),
}


@pytest.mark.parametrize("only", ["token", "management"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_no_answer_is_told_as_one_that_is_tried_again(
    studio: FakeStudio, connect: Connect, fault: str, only: str
) -> None:
    studio.misbehave, told = FAULTS[fault]
    client = connect(token=only == "token", management=only == "management")
    error = await refused(client.check("mysite"))
    assert isinstance(error, StudioUnavailableError)
    assert told in error.message
    assert not error.permanent
    assert "studio.url" in error.remedy
    studio.misbehave = None
    assert await client.check("mysite") == ""


@pytest.mark.parametrize("fault", [hang, trickle])
async def test_an_answer_that_does_not_come_in_time_is_not_waited_for(
    studio: FakeStudio, connect: Connect, fault: Callable[[web.Request], Any]
) -> None:
    studio.misbehave = fault
    error = await refused(connect(timeout=0.2).check("mysite"))
    assert isinstance(error, StudioUnavailableError)
    assert error.message == "Studio did not answer within 0.2 s."


async def test_an_answer_without_a_status_is_no_answer(studio: FakeStudio, connect: Connect) -> None:
    bodies: list[dict[str, Any]] = [{"response": {"code": 0}}, {"response": {}, "publishingStatus": None}]
    for body in bodies:
        studio.bodies["mysite"] = body
        error = await refused(connect().check("mysite"))
        assert isinstance(error, StudioUnavailableError)
        assert "contains no publishing status" in error.message


async def test_a_studio_that_is_not_there_is_unavailable(connect: Connect, unused_tcp_port: int) -> None:
    error = await refused(connect(url=f"http://127.0.0.1:{unused_tcp_port}/studio").check("mysite"))
    assert isinstance(error, StudioUnavailableError)
    assert error.message == "The request to Studio failed: Connection refused."


async def test_one_that_speaks_no_tls_is_told_as_such(studio: FakeStudio, connect: Connect) -> None:
    error = await refused(connect(url=studio.url.replace("http:", "https:")).check("mysite"))
    assert isinstance(error, StudioUnavailableError)
    assert "TLS" in error.message


@pytest.mark.parametrize(
    ("only", "setting"), [("token", "studio.token"), ("management", "studio.management_token")]
)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_studio_refuses_is_named_by_its_setting(
    studio: FakeStudio, connect: Connect, only: str, setting: str, status: int
) -> None:
    studio.misbehave = answer("{}", 403) if status == 403 else None
    client = connect(token=only == "token", management=only == "management", wrong="wrong")
    error = await refused(client.check("mysite"))
    assert isinstance(error, StudioRefusedError)
    assert error.message == f"Studio refused {setting} ({status})."
    assert error.permanent
    assert error.remedy


@pytest.mark.parametrize(("only", "status"), [("token", 400), ("management", 400), ("management", 404)])
async def test_what_asking_again_can_t_help_is_permanent(
    studio: FakeStudio, connect: Connect, only: str, status: int
) -> None:
    studio.misbehave = answer("{}", status)
    error = await refused(connect(token=only == "token", management=only == "management").check("mysite"))
    assert isinstance(error, StudioRefusedError)
    assert "studio.url" in error.remedy


async def test_the_proxies_of_the_environment_are_not_used(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert await connect().check("mysite") == ""


async def test_neither_cookies_nor_a_redirect_carry_a_token_elsewhere(
    studio: FakeStudio, connect: Connect
) -> None:
    client = connect(management=False, url=studio.url.replace("127.0.0.1", "localhost"))
    studio.misbehave = answer("", 307, Location="/elsewhere", Set_Cookie="a=b")
    await refused(client.check("mysite"))
    headers: list[Iterable[str]] = []

    async def listening(request: web.Request) -> web.StreamResponse:
        headers.append(request.headers.keys())
        return web.json_response(status_of_4("ready"))

    studio.misbehave = listening
    await client.check("mysite")
    assert [path for path in studio.requests if "elsewhere" in path] == []
    assert "Cookie" not in headers[0]


@pytest.mark.parametrize("fault", [*FAULTS, "wrong tokens", "unknown site", "nobody", "TLS", "hang"])
async def test_no_error_and_no_log_line_ever_shows_a_token(
    studio: FakeStudio,
    connect: Connect,
    unused_tcp_port: int,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    urls = {
        "nobody": f"http://127.0.0.1:{unused_tcp_port}/studio",
        "TLS": studio.url.replace("http:", "https:"),
    }
    others = {"wrong": "wrong+Kq7Wz1/Xp9Vt3"} if fault == "wrong tokens" else {}
    studio.misbehave = {"hang": (hang, ""), **FAULTS}.get(fault, (None, ""))[0]
    told = ""
    for only in ("token",) if fault == "unknown site" else ("token", "management"):
        client = connect(
            token=only == "token",
            management=only == "management",
            timeout=0.2 if fault == "hang" else 20,
            url=urls.get(fault, ""),
            **others,
        )
        told += everything_of(await refused(client.check("other"))) + repr(client)
    told += caplog.text
    for part in ("Kq7Wz1", "Xp9Vt3", "Bearer", "?token"):
        assert part not in told
