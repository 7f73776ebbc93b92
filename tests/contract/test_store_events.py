"""Events are one sequence: each once, in an order that never changes, whoever wrote them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from listener.events import START, Event, EventKind, Happened, Place
from listener.outcomes import Outcome
from listener.queue import Acceptance, Hold, LogLine
from listener.records import Refusal
from listener.runs import Origin, State, Trigger
from listener.store import Store, open_store
from tests.cluster import Cluster
from tests.contract.conftest import NOW
from tests.contract.test_store_looks import FAILED, look

Deliver = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[Store]]


@pytest.fixture
def database(cluster: Cluster) -> str:
    return cluster.database()


@pytest.fixture
async def opened_on_postgres(cluster: Cluster, database: str) -> AsyncIterator[Store]:
    store = open_store(cluster.url(database))
    await store.open()
    yield store
    await store.close()


def lines(first: int, last: int) -> list[LogLine]:
    return [LogLine(number, json.dumps({"event": f"line {number}"})) for number in range(first, last + 1)]


async def read(store: Store, after: Place = START, limit: int = 500) -> list[Event]:
    """Return all events behind a place, page by page, once no commit is under way."""
    found: list[Event] = []
    while True:
        page = await store.events(after, limit)
        assert page.known
        found += page.events
        assert page.upto >= after
        after = page.upto
        if page.pending:
            await asyncio.sleep(0.01)
        elif not page.more:
            return found


def said(events: list[Event]) -> list[tuple[str, str]]:
    return [(each.kind.value, json.loads(each.text)["event"]) for each in events]


async def test_a_run_is_told_from_its_delivery_to_its_end(store: Store, deliver: Deliver) -> None:
    accepted = await deliver(store, "one", "staging")
    run = await store.claim(NOW)
    assert run is not None
    store.append(run, lines(1, 2))
    await store.keep(run, Outcome())
    store.append(run, lines(3, 4))
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    events = await read(store)
    assert said(events) == [
        ("delivery", "delivery"),
        ("run", "queued"),
        *(("run", f"line {number}") for number in range(1, 5)),
    ]
    first, *others = (json.loads(each.text) for each in events)
    assert first["delivery"] == accepted.delivery
    assert first["runs"] == [run.id]
    assert first["hook"] == "forge"
    assert [each["id"] for each in (first, *others)] == [str(each.place) for each in events]
    assert all(each.places == {("site", "staging")} for each in events)


async def test_a_line_that_is_written_twice_is_one_event(store: Store, deliver: Deliver) -> None:
    await deliver(store, "one", "staging")
    run = await store.claim(NOW)
    assert run is not None
    store.append(run, lines(1, 3))
    kept = [asyncio.ensure_future(store.keep(run, Outcome())) for _ in range(3)]
    store.append(run, lines(4, 5))
    await asyncio.gather(*kept)
    await store.requeue(run, Outcome(), NOW, NOW, failed=False)
    assert [text for _, text in said(await read(store)) if text.startswith("line")] == [
        f"line {number}" for number in range(1, 6)
    ]


async def test_reading_goes_on_behind_every_event(store: Store, deliver: Deliver) -> None:
    await deliver(store, "one", "staging")
    run = await store.claim(NOW)
    assert run is not None
    store.append(run, lines(1, 7))
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    whole = await read(store)
    for place, event in enumerate(whole, 1):
        assert await read(store, event.place, limit=1) == whole[place:]
    assert Place.of(str(whole[3].place)) == whole[3].place
    assert await store.newest_event() == whole[-1].place


async def test_holds_releases_cancelled_runs_refusals_and_looks_are_events(
    store: Store, call: Callable[..., Awaitable[Acceptance]]
) -> None:
    made = await call(store, "staging")
    await store.cancel(made.runs[0], NOW)
    await call(store, "staging")
    await store.hold(Hold("site", "staging", "a test", "ci", NOW))
    await store.release("site", "staging")
    await store.record([Refusal("r", NOW, "POST /hooks/forge", "bad", 401, hook="forge")], [], 10)
    await store.keep_looks([look("site", NOW), look("other", NOW)])
    await store.keep_looks([look("site", NOW + 1), look("other", NOW + 1, FAILED)])
    await store.note_events([Happened.saying(EventKind.HOST, NOW, "host away", host="studio")])
    assert said(await read(store)) == [
        ("run", "queued"),
        ("run", "run"),
        ("run", "queued"),
        ("hold", "hold"),
        ("run", "run"),
        ("release", "release"),
        ("refusal", "delivery refused"),
        ("look", "look"),
        ("look", "look"),
        ("look", "look"),
        ("host", "host away"),
    ]


async def test_a_flood_of_refusals_is_a_number(store: Store) -> None:
    flood = [Refusal(f"r{number:04}", NOW, "GET /", "bad", 401) for number in range(100)]
    await store.record(flood, [], 1000)
    events = await read(store)
    assert len(events) == 11
    assert json.loads(events[-1].text)["count"] == 90


async def test_a_rollback_is_held_once(store: Store, call: Callable[..., Awaitable[Acceptance]]) -> None:
    await call(store, "staging")
    run = await store.claim(NOW)
    assert run is not None
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    trigger = Trigger("t", "site", "staging", Origin.ROLLBACK, "ci", NOW)
    await store.roll_back(trigger, run.id, Hold("site", "staging", "rolled back", "ci", NOW, "c" * 40))
    assert [kind for kind, _ in said(await read(store))].count("hold") == 1


async def test_the_place_of_what_was_forgotten_is_unknown(store: Store, deliver: Deliver) -> None:
    for key in ("one", "two", "three"):
        await deliver(store, key, f"e-{key}")
    first, *_, last = await read(store)
    assert (await store.events(first.place)).known
    await store.prune(time.time() + 60, 100, 1000)
    assert not (await store.events(first.place)).known
    assert not (await store.events(Place(last.place.batch + 100, 1, 0))).known
    assert await read(store, last.place) == []
    assert (await read(store))[-1] == last


async def test_no_event_has_lines_of_a_run_that_is_deleted(store: Store, deliver: Deliver) -> None:
    for number in range(6):
        await deliver(store, f"{number}", "staging", now=NOW + number)
        run = await store.claim(NOW + number)
        assert run is not None
        store.append(run, lines(1, 2))
        await store.finish(run, State.SUCCEEDED, Outcome(), time.time())
    await store.prune(0, 2, 1000)
    assert not any("deleted_lines" in each.text for each in await read(store))


async def test_events_since_a_time_begin_with_its_first_one(store: Store, deliver: Deliver) -> None:
    times = []
    for number in range(9):
        await asyncio.sleep(0.02)
        times.append(time.time())
        await deliver(store, f"{number}", f"e-{number}")
    whole = await read(store)
    for number, at in enumerate(times):
        assert await read(store, await store.events_since(at)) == whole[2 * number :]
    assert await store.events_since(time.time() + 60) == await store.newest_event()
    assert await store.events_since(0) == START


async def test_the_signal_comes_with_each_kind_of_event(store: Store, deliver: Deliver) -> None:
    for act in (
        lambda: deliver(store, "one", ignored="a tag"),
        lambda: store.hold(Hold("site", "staging", "a test", "ci", NOW)),
        lambda: store.release("site", "staging"),
    ):
        store.happening.clear()
        await act()
        async with asyncio.timeout(10):
            await store.happening.wait()


async def test_each_place_that_can_be_written_can_be_asked_for(store: Store, deliver: Deliver) -> None:
    await deliver(store, "one", "staging")
    assert not (await store.events(Place.of(".".join(["9" * 18] * 3)))).known


async def test_an_empty_store_has_no_event(store: Store) -> None:
    assert await store.newest_event() == START
    assert await read(store) == []


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "-1.0.0", "a.b.c", "1.2.٣", "9" * 20 + ".0.0"])
def test_a_place_is_three_numbers(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Place.of(text)


async def follow(store: Store, wanted: int) -> list[Event]:
    """Read while others write, until so many events have come."""
    found: list[Event] = []
    at = START
    async with asyncio.timeout(60):
        while len(found) < wanted:
            page = await store.events(at, 7)
            found += page.events
            at = page.upto
            await asyncio.sleep(0)
    return found


async def test_writers_side_by_side_make_one_sequence(opened: Open, deliver: Deliver, store_url: str) -> None:
    """On PostgreSQL two listeners write, and commits end in another order than they began."""
    writers = [await opened()]
    if store_url.startswith("postgresql"):
        writers.append(await opened())

    async def write(store: Store, name: str) -> None:
        for number in range(60):
            await deliver(store, f"{name}-{number}", f"{name}-{number % 3}")

    readers = [asyncio.ensure_future(follow(store, 120 * len(writers))) for store in writers]
    async with asyncio.TaskGroup() as group:
        for index, store in enumerate(writers):
            for each in range(2):
                group.create_task(write(store, f"{index}{each}"))
    whole = await read(writers[0])
    assert [event.place for event in whole] == sorted({event.place for event in whole})
    for reader in readers:
        found = await reader
        assert found == whole[: len(found)]


async def test_an_event_of_a_commit_that_is_under_way_is_waited_for(
    cluster: Cluster, opened_on_postgres: Store, database: str, deliver: Deliver
) -> None:
    """Otherwise a reader that has read a later commit would never see it."""
    store = opened_on_postgres
    late = await asyncpg.connect(cluster.url(database))
    try:
        transaction = late.transaction()
        await transaction.start()
        await late.execute(
            "INSERT INTO events SELECT txid_current(), 1, 0, 'host', '', '', '', 0, 0, $1",
            said_text(EventKind.HOST),
        )
        await deliver(store, "one", "staging")
        page = await store.events(START)
        assert (page.events, page.pending) == ([], True)
        assert await store.newest_event() == START
        await transaction.commit()
    finally:
        await late.close()
    assert said(await read(store)) == [("host", "late"), ("delivery", "delivery"), ("run", "queued")]


def said_text(kind: EventKind) -> str:
    return Happened.saying(kind, NOW, "late").text


async def test_events_of_another_server_are_forgotten_with_its_transaction_ids(
    cluster: Cluster, opened_on_postgres: Store, database: str, deliver: Deliver
) -> None:
    store = opened_on_postgres
    await deliver(store, "one", "staging")
    other = await asyncpg.connect(cluster.url(database))
    try:
        await other.execute(
            "INSERT INTO events SELECT txid_current() + 1000000, 1, 0, 'host', '', '', '', 0, 0, '{}'"
        )
    finally:
        await other.close()
    assert (await store.events(START)).pending
    await store.recover(NOW)
    assert [kind for kind, _ in said(await read(store))] == ["delivery", "run"]
