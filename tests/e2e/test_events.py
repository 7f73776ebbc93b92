"""Everything that happens, followed over HTTP."""

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from listener import feed
from listener.config.settings import load
from listener.errors import UnauthorizedError
from listener.events import EventKind, Happened
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, free_port
from listener.system import System
from listener.web import events as routes
from listener.web import streams
from listener.web.credentials import Gate
from tests.cluster import Cluster
from tests.e2e.conftest import Start
from tests.e2e.test_readers import opened, read_on
from tests.listening import ADMIN, MEMBER, Client, client, push

EVENTS = "/api/v1/events"
CUTS = 40


@dataclass
class Follower:
    """A client of the stream: it remembers each event, and the id of the last one."""

    token: str = ADMIN
    query: str = ""
    sse: bool = False
    seen: list[dict[str, Any]] = field(default_factory=list)
    last: str = "0"
    ended: str = ""
    """The reason in the last event."""

    async def read(self, listener: Client, enough: Callable[[], bool]) -> None:
        """Follow until there is enough, or the stream ends; then cut it."""
        headers = {"Authorization": f"Bearer {self.token}", "Last-Event-ID": self.last}
        if self.sse:
            headers["Accept"] = "text/event-stream"
        self.ended = ""
        url = f"{listener.url}{EVENTS}{self.query}"
        async with asyncio.timeout(30), listener.session.get(url, headers=headers) as response:
            assert response.status == 200, await response.text()
            while not enough():
                line = (await response.content.readline()).decode()
                if not line:
                    return
                self._take(line.rstrip("\n"))
            response.close()

    def _take(self, line: str) -> None:
        if self.sse:
            name, _, text = line.partition(": ")
            if name == "id":
                self.last = text
            if name != "data":
                return
            line = text
        if not line:
            return
        event = json.loads(line)
        if event["event"] == "end":
            self.ended = event["reason"]
        else:
            self.seen.append(event)
        self.last = event["id"]


async def everything(listener: Client) -> list[dict[str, Any]]:
    """Return all stored events, read at once."""
    _, text, _ = await listener.call("GET", f"{EVENTS}?after=0&follow=false")
    return [event for line in text.splitlines() if (event := json.loads(line))["event"] != "end"]


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/listener.db"
    cluster = request.getfixturevalue("cluster")
    assert isinstance(cluster, Cluster)
    return cluster.url(cluster.database())


@contextlib.asynccontextmanager
async def started(path: Path) -> AsyncIterator[Client]:
    async with System(load(path)) as system:
        await system.listen()
        async with client(f"http://127.0.0.1:{system.port}") as speaking:
            yield speaking


async def act(listener: Client, number: int) -> None:
    """Make something happen."""
    await listener.deliver(secrets.token_hex(8))
    await listener.deliver(secrets.token_hex(8), push("refs/tags/v1"))
    where = "/api/v1/sites/mysite/environments/staging"
    if number % 5 == 0:
        await listener.call("POST", f"{where}/hold", json={"reason": "a test"})
        await listener.call("POST", f"{where}/release", json={})


@pytest.mark.parametrize("sse", [False, True])
async def test_a_stream_that_is_cut_forty_times_over_two_listeners_has_each_event_once(
    configured: Callable[..., Path], store_url: str, *, sse: bool
) -> None:
    dice, follower = random.Random(11), Follower(sse=sse)
    several = store_url.startswith("postgresql")
    path = configured(store=store_url, server={"host": "127.0.0.1", "port": 0, "drain": 5})
    cuts = 0

    async def follow_one(listener: Client) -> None:
        nonlocal cuts
        until = len(follower.seen) + dice.randrange(1, 6)
        async with asyncio.timeout(20):
            await follower.read(listener, lambda: len(follower.seen) >= until)
        cuts += 1
        assert not writing.done(), writing.exception()

    async def busy(listeners: list[Client]) -> None:
        number = 0
        while True:
            await act(dice.choice(listeners), number := number + 1)

    while cuts < CUTS:
        async with contextlib.AsyncExitStack() as stack:
            # SQLite's file has one listener at a time: there they take turns.
            listeners = [await stack.enter_async_context(started(path)) for _ in range(1 + several)]
            writing = asyncio.create_task(busy(listeners))
            stop = cuts + (CUTS if several else 8)
            while cuts < min(stop, CUTS):
                await follow_one(dice.choice(listeners))
            writing.cancel()
            await asyncio.wait({writing})
    async with started(path) as listener:
        await asyncio.sleep(0)
        whole = await everything(listener)
        await follower.read(listener, lambda: len(follower.seen) >= len(whole))
        assert follower.seen == whole[: len(follower.seen)]
    ids = [tuple(map(int, event["id"].split("."))) for event in follower.seen]
    assert ids == sorted(set(ids))
    assert {"run", "delivery", "hold", "release"} <= {event["kind"] for event in follower.seen}


async def refused(listener: Client, query: str, token: str = ADMIN) -> tuple[int, str]:
    status, problem, _ = await listener.call("GET", f"{EVENTS}?{query}", token=token)
    return status, problem["detail"]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("site=nosuch", 400, "not a configured site"),
        ("environment=nosuch", 400, "not a configured environment"),
        ("site=mysite&environment=live", 400, "not a configured environment"),
        ("kind=nosuch", 400, "kind must be one of run, delivery"),
        ("kind=run&kind=Run", 400, "kind must be one of"),
        ("after=nosuch", 400, "must be the id of an event"),
        ("since=yesterday", 400, "since must be a time"),
        ("since=2026-01-31T08:00:00", 400, "since must be a time"),
        ("follow=perhaps", 400, "follow must be"),
        ("after=99.1.0", 410, "not kept any more"),
    ],
)
async def test_what_a_query_means_is_clear_or_refused(
    listener: Client, query: str, status: int, said: str
) -> None:
    found, detail = await refused(listener, query)
    assert found == status
    assert said in detail


async def test_a_member_sees_events_of_their_sites_alone(listening: Start, published: Published) -> None:
    sites = {
        name: {
            "repository": {"host": "studio", "path": f"{published.path}{more}"},
            "environments": {name: {"follow": True, "branch": "staging"}},
        }
        for name, more in (("mysite", ""), ("other", "-missing"))
    }
    async with listening(sites=sites, hooks={}) as listener:
        for name in ("other", "mysite"):
            await listener.sync(name, name, headers={"Prefer": "respond-async"})
        await listener.call("GET", "/api/v1/runs", token="nosuch")
        _, text, _ = await listener.call("GET", f"{EVENTS}?after=0&follow=false", token=MEMBER)
        *events, end = map(json.loads, text.splitlines())
        assert {event["site"] for event in events} == {"mysite"}
        assert {event["kind"] for event in events} == {"run"}
        assert end == {"id": end["id"], "kind": "end", "event": "end", "reason": "done"}
        assert {event.get("site") for event in await everything(listener)} >= {"mysite", "other"}
        for name in ("other", "nosuch"):
            assert await refused(listener, f"site={name}", MEMBER) == (
                400,
                f"site: '{name}' is not a configured site.",
            )
        assert (await refused(listener, "kind=refusal", MEMBER))[0] == 403


async def test_events_are_filtered_by_site_environment_and_kind(listener: Client) -> None:
    await act(listener, 5)
    kinds = {event["kind"] for event in await everything(listener)}
    assert {"delivery", "run", "hold", "release"} <= kinds
    for query, wanted in (("kind=hold&kind=release", {"hold", "release"}), ("kind=delivery", {"delivery"})):
        _, text, _ = await listener.call("GET", f"{EVENTS}?after=0&follow=false&{query}")
        assert {json.loads(line)["kind"] for line in text.splitlines()} == wanted | {"end"}
    _, text, _ = await listener.call("GET", f"{EVENTS}?after=0&follow=false&site=mysite&environment=staging")
    assert {json.loads(line).get("ignored") for line in text.splitlines()} == {None}


async def test_a_listener_that_stops_ends_its_streams_with_a_place_to_go_on(
    configured: Callable[..., Path],
) -> None:
    follower, path = Follower(), configured(server={"host": "127.0.0.1", "port": 0, "drain": 5})
    async with client("") as listener:
        async with System(load(path)) as system:
            await system.listen()
            listener.url = f"http://127.0.0.1:{system.port}"
            reading = asyncio.ensure_future(follower.read(listener, lambda: False))
            await listener.deliver("one")
            while not follower.seen:
                await asyncio.sleep(0.02)
        await reading
        assert follower.ended == "stopping"
        async with System(load(path)) as system:
            await system.listen()
            listener.url = f"http://127.0.0.1:{system.port}"
            await listener.deliver("two")
            await follower.read(listener, lambda: any(each.get("key") == "two" for each in follower.seen))
            assert follower.seen == (await everything(listener))[: len(follower.seen)]


async def test_a_quiet_stream_shows_that_it_lives_and_from_where_to_go_on(
    listener: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE", 0.05)
    await listener.deliver("one")
    headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "text/event-stream"}
    url = f"{listener.url}{EVENTS}?kind=host"
    async with listener.session.get(url, headers=headers) as response:
        lines = [(await response.content.readline()).decode() for _ in range(6)]
        assert [line.partition(":")[0] for line in lines] == ["id", "\n"] * 3
        last = lines[-2].partition(": ")[2].strip()
        response.close()
    assert (await listener.call("GET", f"{EVENTS}?after={last}&follow=false"))[0] == 200


async def test_a_credential_that_ends_ends_its_stream(
    listening: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE", 0.05)
    async with listening() as listener:
        follower = Follower(token=MEMBER)
        calls = Gate.caller
        reading = asyncio.ensure_future(follower.read(listener, lambda: False))
        await listener.sync()
        while not follower.seen:
            await asyncio.sleep(0.02)

        async def expired(gate: Gate, request: Any) -> Any:
            if request.path == EVENTS:
                raise UnauthorizedError("the token has expired")
            return await calls(gate, request)

        monkeypatch.setattr(Gate, "caller", expired)
        await reading
        assert follower.ended == "credential"


async def test_a_slow_reader_gets_everything_and_waits_in_the_store_not_in_memory(
    listener: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PENDING", 1)
    follower = Follower()
    reading = asyncio.ensure_future(
        follower.read(listener, lambda: any(each.get("key") == "d-29" for each in follower.seen))
    )
    for number in range(30):
        await listener.deliver(f"d-{number}", push("refs/tags/v1"))
    async with asyncio.timeout(30):
        await reading
    assert follower.seen == (await everything(listener))[: len(follower.seen)]


async def test_a_host_that_does_not_answer_is_told(listening: Start, sshd: Sshd) -> None:
    host = {"address": "127.0.0.1", "port": free_port(), "user": sshd.user}
    async with listening(hosts={"studio": host}) as listener:
        follower = Follower(query="?kind=host")
        await follower.read(listener, lambda: bool(follower.seen))
        (event,) = follower.seen
        assert (event["event"], event["level"], event["host"]) == ("host away", "warning", "studio")


async def test_a_reader_that_stops_reading_is_cut_off_and_leaves_nothing_behind(
    configured: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SLOWEST", 0.3)
    path = configured(server={"host": "127.0.0.1", "port": 0, "drain": 5})
    async with System(load(path)) as system, client("") as listener:
        await system.listen()
        listener.url = f"http://127.0.0.1:{system.port}"
        reader, writer = await opened(listener, f"{EVENTS}?after=0")
        large = Happened.saying(EventKind.HOST, 0, "large", text="x" * 100_000)
        for _ in range(10):
            await system.store.note_events([large] * 20)
        await asyncio.sleep(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await read_on(reader)
        writer.close()
        monkeypatch.undo()
        follower = Follower(query="?kind=host")
        await follower.read(listener, lambda: len(follower.seen) == 200)
        assert len(follower.seen) == 200
