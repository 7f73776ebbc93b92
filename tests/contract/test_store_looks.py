"""The last look at each environment is kept durably, and listeners share it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import StrEnum
from typing import cast

from listener.events import START
from listener.looks import EnvironmentLook, LegLook, LookState
from listener.observations import Paths
from listener.plans import PlanKind
from listener.store import Store
from tests.contract.conftest import NOW

FOUND = LegLook(
    "studio:/site.git",
    "staging",
    state=LookState.DIFFERS,
    plan=PlanKind.FORWARD_COMMIT,
    warnings=("a warning",),
    live="a" * 40,
    branch="b" * 40,
    ahead=0,
    behind=2,
    added=Paths(2, ("one", "two")),
    removed=Paths(1000, ("three",)),
    busy_since=NOW - 5.5,
    standing="head ref: refs/heads/live\nref refs/heads/staging:x",
)
FAILED = LegLook("eu:/site.git", "staging", error="host-unreachable", message="No answer.", remedy="look")


def look(site: str, at: float, *legs: LegLook, environment: str = "staging") -> EnvironmentLook:
    return EnvironmentLook(site, environment, at, legs or (FOUND,))


async def test_a_look_is_found_again_as_it_was(store: Store) -> None:
    kept = [look("one", NOW, FOUND, FAILED), look("two", NOW + 0.25), look("two", NOW, environment="qa")]
    await store.keep_looks(kept)
    found = await store.looks([*(each.place for each in kept), ("three", "staging")])
    assert found == {each.place: each for each in kept}
    assert await store.looks([("one", "qa")]) == {}


async def test_the_essentials_of_all_are_read_at_once(store: Store) -> None:
    kept = [look("one", NOW, FOUND, FAILED), look("two", NOW, FAILED)]
    await store.keep_looks(kept)
    assert await store.look_summaries() == [each.summary for each in kept]


async def test_a_newer_look_takes_the_place_of_an_older_one_and_never_the_other_way_round(
    store: Store,
) -> None:
    newer, older = look("one", NOW + 1, FAILED), look("one", NOW)
    await store.keep_looks([older])
    await store.keep_looks([newer])
    await store.keep_looks([older])
    assert await store.looks([newer.place]) == {newer.place: newer}


async def test_of_two_looks_in_one_batch_the_newer_one_is_kept(store: Store) -> None:
    newer, older = look("one", NOW + 1, FAILED), look("one", NOW)
    await store.keep_looks([newer, older])
    assert await store.looks([newer.place]) == {newer.place: newer}


async def test_a_clock_that_was_far_ahead_does_not_keep_later_looks_out(store: Store) -> None:
    await store.keep_looks([look("one", NOW + 86400)])
    now = look("one", NOW, FAILED)
    await store.keep_looks([now])
    assert await store.looks([now.place]) == {now.place: now}


async def test_looks_at_what_is_not_configured_any_more_are_forgotten(store: Store) -> None:
    kept = [look(site, NOW, environment=name) for site in ("one", "two") for name in ("qa", "staging")]
    await store.keep_looks(kept)
    await store.forget_looks([("one", "qa"), ("two", "qa"), ("two", "staging")])
    assert [each.place for each in await store.look_summaries()] == [("one", "staging")]


async def test_looks_outlive_the_listener(opened: Callable[[], Awaitable[Store]]) -> None:
    first = await opened()
    await first.keep_looks([look("one", NOW)])
    await first.close()
    assert await (await opened()).looks([("one", "staging")]) == {("one", "staging"): look("one", NOW)}


async def test_many_looks_are_kept_in_one_batch(store: Store) -> None:
    kept = [look(f"site{number}", NOW, replace(FOUND, ahead=number)) for number in range(70)]
    await store.keep_looks(kept)
    assert await store.looks([each.place for each in kept]) == {each.place: each for each in kept}


async def test_a_name_that_is_not_utf_8_in_a_message_does_not_keep_looks_from_being_stored(
    store: Store,
) -> None:
    found = look("one", NOW, replace(FAILED, message="caf\udce9\0"))
    await store.keep_looks([found, look("two", NOW)])
    assert [each.site for each in await store.look_summaries()] == ["one", "two"]
    assert len((await store.events(START)).events) > 0


async def test_a_state_or_a_plan_of_a_later_version_is_read_as_unknown(store: Store) -> None:
    later = replace(FOUND, state=cast("LookState", "later"), plan=cast("PlanKind", Later.PLAN))
    await store.keep_looks([look("one", NOW, later)])
    (leg,) = (await store.looks([("one", "staging")]))["one", "staging"].legs
    assert leg == replace(FOUND, state=LookState.UNKNOWN, plan=None)
    (summary,) = await store.look_summaries()
    assert (summary.state, summary.plan) == (LookState.UNKNOWN, None)


class Later(StrEnum):
    PLAN = "later"
