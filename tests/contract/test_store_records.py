"""What every store promises about who came: deliveries, refused requests, uses, redelivery."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from listener.errors import DeliveryNotFoundError
from listener.outcomes import Outcome
from listener.queue import Acceptance, DeliveryRecord, Hold
from listener.records import SECRET, TOKEN, ArrivalFilter, Fate, Refusal, Use
from listener.runs import Origin, State, Trigger, new_id
from listener.store import Store

NOW = 1_700_000_000.0
FREEZE = Hold("site", "staging", "acceptance test", "ada", NOW)

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[Store]]


def refusal(at: float = NOW, hook: str = "forge", **more: Any) -> Refusal:
    made = Refusal(new_id(at), at, f"POST /hooks/{hook}", "a bad signature", 401, "192.0.2.1", hook=hook)
    return replace(made, **more)


def again(number: int, environment: str = "staging", at: float = NOW + 1) -> Trigger:
    return Trigger(
        f"again-{number}",
        "site",
        environment,
        Origin.REDELIVERY,
        "root",
        at,
        credential="token root",
        client="192.0.2.9",
    )


async def ids(store: Store, **which: Any) -> list[str]:
    return [each.id for each in await store.arrivals(ArrivalFilter(**which))]


async def test_what_arrived_is_told_newest_first_accepted_ignored_and_refused(
    store: Store, deliver: Ask
) -> None:
    accepted = await deliver(store, "1", "staging", now=NOW)
    ignored = await deliver(store, "2", ignored="a tag", now=NOW + 1)
    refused = refusal(NOW + 2)
    await store.record([refused], [], keep=10)
    newest, middle, oldest = await store.arrivals(ArrivalFilter())
    assert (oldest.id, oldest.fate, oldest.reason) == (accepted.delivery, Fate.ACCEPTED, "")
    assert [each.run for each in oldest.served] == list(accepted.runs)
    assert (middle.id, middle.fate, middle.reason) == (ignored.delivery, Fate.IGNORED, "a tag")
    assert (newest.id, newest.fate, newest.reason) == (refused.id, Fate.REFUSED, "a bad signature")
    assert (newest.status, newest.client, newest.request) == (401, "192.0.2.1", "POST /hooks/forge")
    assert oldest.headers == {"x-event": "push"}
    assert oldest.facts == {"ref": "live"}
    assert (oldest.status, oldest.count, oldest.key) == (None, 1, "1")
    assert [await store.arrival(each.id) for each in (newest, middle, oldest)] == [newest, middle, oldest]


async def test_what_arrived_is_told_by_hook_and_outcome_and_page_by_page(store: Store, deliver: Ask) -> None:
    accepted = (await deliver(store, "1", "staging", now=NOW)).delivery
    ignored = (await deliver(store, "2", ignored="a tag", now=NOW + 1)).delivery
    refused, other = refusal(NOW + 2), refusal(NOW + 3, hook="other")
    await store.record([refused, other], [], keep=10)
    assert await ids(store) == [other.id, refused.id, ignored, accepted]
    assert await ids(store, hook="forge") == [refused.id, ignored, accepted]
    assert await ids(store, fate=Fate.REFUSED) == [other.id, refused.id]
    assert await ids(store, fate=Fate.ACCEPTED) == [accepted]
    assert await ids(store, fate=Fate.IGNORED, hook="forge") == [ignored]
    assert await ids(store, limit=2) == [other.id, refused.id]
    assert await ids(store, limit=2, before=refused.id) == [ignored, accepted]


async def test_an_arrival_that_is_not_there_is_told(store: Store) -> None:
    with pytest.raises(DeliveryNotFoundError):
        await store.arrival("no such id")


async def test_only_the_newest_refusals_stay(store: Store, deliver: Ask) -> None:
    delivery = (await deliver(store, "1", "staging", now=NOW - 1)).delivery
    all_of_them = [refusal(NOW + number) for number in range(25)]
    for start in range(0, 25, 5):
        await store.record(all_of_them[start : start + 5], [], keep=7)
    newest = [each.id for each in reversed(all_of_them[-7:])]
    assert await ids(store) == [*newest, delivery]


async def test_a_refusal_that_is_recorded_twice_is_one(store: Store) -> None:
    refused = refusal(headers={"x-github-delivery": "d-1"}, count=3)
    await store.record([refused], [], keep=10)
    await store.record([refused], [], keep=10)
    (found,) = await store.arrivals(ArrivalFilter())
    assert (found.headers, found.count) == ({"x-github-delivery": "d-1"}, 3)


async def test_uses_add_up_and_the_last_one_is_the_latest(store: Store, opened: Open) -> None:
    assert await store.uses() == []
    old, new = (Use(SECRET, "forge", name, 2, NOW) for name in ("file:old", "file:new"))
    await store.record([], [old, new], keep=10)
    await store.record([], [Use(SECRET, "forge", "file:new", 3, NOW + 5)], keep=10)
    await store.record([], [Use(SECRET, "forge", "file:new", 1, NOW + 1), Use(TOKEN, "", "ci", 1, NOW)], 10)
    expected = [Use(SECRET, "forge", "file:new", 6, NOW + 5), old, Use(TOKEN, "", "ci", 1, NOW)]
    assert await store.uses() == expected
    await store.close()
    assert await (await opened()).uses() == expected


async def test_notes_that_are_written_down_at_once_are_all_there(store: Store) -> None:
    uses = [Use(SECRET, "forge", name, 1, NOW) for name in "ba"]
    batches = [store.record([refusal(NOW + number)], uses, keep=100) for number in range(50)]
    await asyncio.gather(*batches)
    assert [use.count for use in await store.uses()] == [50, 50]
    assert len(await ids(store, limit=100)) == 50


async def test_a_repeated_body_is_marked_with_the_last_delivery_that_had_it(store: Store) -> None:
    def record(number: int, hook: str, digest: str) -> DeliveryRecord:
        at = NOW + number
        return DeliveryRecord(new_id(at), hook, None, at, 0, digest, {}, {}, "ignored")

    came = [
        record(1, "forge", "a"),
        record(2, "forge", "b"),
        record(3, "forge", "a"),
        record(4, "other", "a"),
        record(5, "forge", "a"),
    ]
    for each in came:
        await store.accept([], each, NOW)
    told = {each.id: each.same_body for each in await store.arrivals(ArrivalFilter())}
    first, second, third, fourth, fifth = (each.id for each in came)
    assert told == {first: None, second: None, third: first, fourth: None, fifth: third}
    assert (await store.arrival(fifth)).same_body == third


async def test_who_asked_from_where_and_with_what_is_kept(store: Store) -> None:
    record = DeliveryRecord(
        new_id(NOW),
        "forge",
        "1",
        NOW,
        2,
        "digest",
        {},
        {},
        credential="hook forge, secret file:new",
        client="192.0.2.1",
    )
    trigger = replace(again(1), origin=Origin.HOOK)
    accepted = await store.accept([trigger], record, NOW)
    assert await store.triggers(accepted.runs[0]) == [trigger]
    found = await store.arrival(accepted.delivery)
    assert (found.credential, found.client) == ("hook forge, secret file:new", "192.0.2.1")


async def test_a_redelivery_makes_a_run_that_is_attached_to_the_delivery(store: Store, deliver: Ask) -> None:
    first = await deliver(store, "1", "staging")
    run = await store.claim(NOW)
    assert run is not None
    second = await store.redeliver(first.delivery, [again(1)], NOW + 1)
    assert (second.delivery, second.ignored) == (first.delivery, "")
    assert second.runs != first.runs
    found = await store.arrival(first.delivery)
    assert [(each.run, each.trigger.origin) for each in found.served] == [
        (first.runs[0], Origin.HOOK),
        (second.runs[0], Origin.REDELIVERY),
    ]
    assert found.served[1].trigger == again(1)


async def test_a_redelivery_clears_the_backoff_and_joins_the_run_that_waits(
    store: Store, deliver: Ask
) -> None:
    first = await deliver(store, "1", "staging")
    run = await store.claim(NOW)
    assert run is not None
    await store.requeue(run, Outcome(error="sync"), NOW + 500, NOW, failed=True)
    assert await store.claim(NOW + 1) is None
    second = await store.redeliver(first.delivery, [again(1)], NOW + 1)
    assert second.runs == first.runs
    assert await store.claim(NOW + 1) is not None


async def test_an_ignored_delivery_that_is_redelivered_counts_as_accepted(store: Store, deliver: Ask) -> None:
    first = await deliver(store, "1", ignored="no such site")
    second = await store.redeliver(first.delivery, [again(1)], NOW + 1)
    found = await store.arrival(first.delivery)
    assert (found.fate, found.reason) == (Fate.ACCEPTED, "")
    repeated = await deliver(store, "1", "staging", now=NOW + 2)
    assert (repeated.runs, repeated.repeated) == (second.runs, True)


async def test_a_redelivery_to_an_environment_on_hold_fails_at_once(store: Store, deliver: Ask) -> None:
    first = await deliver(store, "1", "staging")
    await store.hold(FREEZE)
    second = await store.redeliver(first.delivery, [again(1)], NOW + 1)
    run = await store.run(second.runs[0])
    assert run.outcome is not None
    assert (run.state, run.outcome.error) == (State.FAILED, "on-hold")


async def test_what_did_not_arrive_is_not_redelivered(store: Store) -> None:
    refused = refusal()
    await store.record([refused], [], keep=10)
    for unknown in (refused.id, "no such id"):
        with pytest.raises(DeliveryNotFoundError):
            await store.redeliver(unknown, [again(1)], NOW)
    assert await store.claim(NOW + 9) is None


async def test_old_refusals_and_uses_are_pruned_a_few_at_a_time(store: Store) -> None:
    old, new = [refusal(NOW + number) for number in range(5)], [refusal(NOW + 100)]
    await store.record(
        [*old, *new], [Use(TOKEN, "", "gone", 1, NOW), Use(TOKEN, "", "ci", 1, NOW + 100)], keep=100
    )
    counts = [(await store.prune(NOW + 50, 100, 2)).deliveries for _ in range(4)]
    assert counts == [2, 2, 1, 0]
    assert await ids(store) == [new[0].id]
    assert [use.name for use in await store.uses()] == ["ci"]
