"""Sessions of the page are kept durably, by the hash of their id, until they end or expire."""

from collections.abc import Awaitable, Callable

from listener.access import SESSIONS_MOST, Session, digest
from listener.store import Store
from tests.contract.conftest import NOW


def session(text: bytes, expires: float = NOW + 60) -> Session:
    return Session(digest(text), "editors", digest(b"token"), expires)


async def test_a_session_is_found_by_its_key_until_it_ends(store: Store) -> None:
    begun, other = session(b"id"), session(b"other")
    await store.begin_session(begun)
    await store.begin_session(other)
    assert await store.session(begun.key) == begun
    assert await store.session(digest(b"unknown")) is None
    await store.end_session(begun.key)
    await store.end_session(begun.key)
    assert await store.session(begun.key) is None
    assert await store.session(other.key) == other


async def test_a_token_has_so_many_sessions_and_a_new_one_takes_the_place_of_the_oldest(store: Store) -> None:
    other = Session(digest(b"x"), "ci", digest(b"another token"), NOW)
    await store.begin_session(other)
    for number in range(SESSIONS_MOST + 2):
        await store.begin_session(session(b"id %d" % number, NOW + number))
    kept = [await store.session(digest(b"id %d" % number)) for number in range(SESSIONS_MOST + 2)]
    assert kept[:2] == [None, None]
    assert None not in kept[2:]
    assert await store.session(other.key) == other


async def test_a_session_outlives_the_listener(opened: Callable[[], Awaitable[Store]]) -> None:
    first = await opened()
    await first.begin_session(session(b"id"))
    await first.close()
    again = await opened()
    assert await again.session(digest(b"id")) == session(b"id")


async def test_what_has_expired_is_pruned_and_nothing_else(store: Store) -> None:
    for number in range(5):
        await store.begin_session(session(b"old %d" % number, NOW - number))
    await store.begin_session(session(b"id", NOW + 0.1))
    assert await store.prune_sessions(NOW) == 5
    assert await store.prune_sessions(NOW) == 0
    assert await store.session(digest(b"id")) is not None
