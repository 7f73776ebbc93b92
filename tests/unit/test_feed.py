"""Followers of events end with the listener, and a commit that stays open does not make the store busy."""

import asyncio

import pytest

from listener import feed
from listener.events import Event, EventPage, Happened, Place, Wanted
from listener.feed import Feed
from tests.kept_log import KeptLog


class Quiet:
    """A store in which nothing happens."""

    def __init__(self, *, pending: bool = False) -> None:
        self.happening = asyncio.Event()
        self.pending = pending

    async def events(self, after: Place, limit: int = 500) -> EventPage:
        return EventPage((), after, pending=self.pending)

    async def newest_event(self) -> Place:
        return Place(1, 1)

    async def events_since(self, at: float) -> Place:
        return Place(1, 1)

    async def note_events(self, happened: object) -> None:
        raise AssertionError(Happened, happened)


@pytest.mark.parametrize("visible", [None, frozenset({"mysite"}), frozenset[str]()])
async def test_each_follower_ends_with_the_listener_also_one_who_may_see_no_site(
    visible: frozenset[str] | None,
) -> None:
    followed = Feed(Quiet(), KeptLog())

    async def follow() -> list[Event]:
        return [each async for events, _ in followed.follow(Wanted(visible), None, 3600) for each in events]

    following = asyncio.create_task(follow())
    for _ in range(20):
        await asyncio.sleep(0)
    followed.stop()
    async with asyncio.timeout(5):
        assert await following == []


async def test_the_reader_asks_less_often_the_longer_a_commit_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    followed = Feed(Quiet(pending=True), KeptLog())
    following = followed.follow(Wanted(), None, 3600)
    await anext(following)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    reading = asyncio.create_task(followed.run_forever())
    while len(pauses) < 10:
        await real(0)
    reading.cancel()
    await following.aclose()
    assert pauses[0] == feed.UNSETTLED
    assert pauses[9] == feed.UNSETTLED_MOST
