"""What is stored of one sender is bounded, whatever it sends, and nothing that still counts is dropped."""

from dataclasses import replace
from typing import Any

import pytest

from listener.errors import DeliveryNotFoundError
from listener.outcomes import Outcome
from listener.queue import Acceptance, DeliveryRecord, Hold, Pruned, RunFilter
from listener.records import Arrival, ArrivalFilter, Fate
from listener.runs import Origin, State, Trigger, new_id
from listener.store import Store
from listener.store.acceptance import ALIKE_FOR, ALIKE_MOST

NOW = 1_700_000_000.0
DAY = 86400.0
MANY = ALIKE_MOST + 40


async def sent(
    store: Store, key: str | None, *environments: str, at: float = NOW, digest: str = "body", **more: Any
) -> Acceptance:
    record = DeliveryRecord(
        new_id(at), "forge", key, at, 2, digest, {"x": "y"}, {"key": key, "event": "push"}
    )
    triggers = [Trigger(new_id(at), "site", each, Origin.HOOK, "forge", at) for each in environments]
    return await store.accept(triggers, replace(record, **more), at)


async def flood(
    store: Store, *environments: str, start: str = "f", at: float = NOW - 1, **more: Any
) -> list[Acceptance]:
    return [
        await sent(store, f"{start}-{number}", *environments, at=at + number / 1000, **more)
        for number in range(MANY)
    ]


async def rows(store: Store, **which: Any) -> list[Arrival]:
    return await store.arrivals(ArrivalFilter(limit=1_000, **which))


async def trimmed(store: Store, keep: int, before: float = NOW - 3 * DAY) -> Pruned:
    total, done = Pruned(), None
    while done != Pruned():
        done = await store.trim(keep, before, 7)
        total += done
    return total


async def run_to_the_end(store: Store, state: State = State.SUCCEEDED) -> None:
    run = await store.claim(NOW + 1)
    assert run is not None
    await store.finish(run, state, Outcome(), NOW + 1)


async def test_a_body_that_comes_over_and_over_is_counted_at_one_row_while_its_run_waits(
    store: Store,
) -> None:
    answers = await flood(store, "qa", "staging")
    assert len({answer.runs for answer in answers}) == 1
    assert not any(answer.repeated for answer in answers)
    found = await rows(store)
    assert len(found) == ALIKE_MOST
    assert sum(each.count for each in found) == MANY
    assert found[0].count == MANY - ALIKE_MOST + 1
    assert [each.count for each in found[1:]] == [1] * (ALIKE_MOST - 1)
    assert answers[-1].delivery == found[0].id
    assert len(await store.triggers(answers[0].runs[0])) == ALIKE_MOST


async def test_a_repeated_body_tells_when_it_came_last(store: Store) -> None:
    await flood(store, "staging")
    await sent(store, "last", "staging", at=NOW + 60)
    newest = (await rows(store))[0]
    assert newest.at < NOW
    assert newest.last_at == NOW + 60
    assert (await store.arrival(newest.id)).last_at == NOW + 60
    assert (await rows(store))[1].last_at is None


async def test_a_repeated_body_never_joins_a_run_that_is_running_or_has_ended(store: Store) -> None:
    first = (await flood(store, "staging"))[0]
    running = await store.claim(NOW)
    assert running is not None
    meanwhile = await sent(store, "meanwhile", "staging")
    assert set(meanwhile.runs).isdisjoint(first.runs)
    assert (await sent(store, "again", "staging")).runs == meanwhile.runs
    await store.finish(running, State.SUCCEEDED, Outcome(), NOW)
    await run_to_the_end(store)
    later = await sent(store, "later", "staging")
    assert set(later.runs).isdisjoint({*first.runs, *meanwhile.runs})
    assert (await store.run(later.runs[0])).state is State.QUEUED
    assert len(await rows(store)) == ALIKE_MOST + 2, "one more for each run"


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
async def test_the_same_id_of_a_counted_one_is_answered_as_it_was(store: Store, state: State) -> None:
    counted = (await flood(store, "staging"))[-1]
    again = await sent(store, f"f-{MANY - 1}", "staging")
    assert again.repeated
    assert (again.runs, again.delivery) == (counted.runs, counted.delivery)
    await run_to_the_end(store, state)
    other = await sent(store, "other", "staging")
    await run_to_the_end(store)
    after = await sent(store, f"f-{MANY - 1}", "staging")
    assert after.repeated
    if state is State.SUCCEEDED:
        assert after.runs == counted.runs
    else:
        assert set(after.runs).isdisjoint({*counted.runs, *other.runs}), "a new run in place of a failed one"
    assert sum(each.count for each in await rows(store)) == MANY + 1


async def test_what_says_something_else_or_comes_from_elsewhere_has_its_own_row(store: Store) -> None:
    await flood(store, "staging")
    before = len(await rows(store))
    differences: list[dict[str, Any]] = [
        {"digest": "other"},
        {"client": "192.0.2.9"},
        {"credential": "hook forge, secret other"},
        {"facts": {"event": "tag"}},
        {"hook": "other"},
    ]
    for number, difference in enumerate(differences, 1):
        await sent(store, f"d-{number}", "staging", **difference)
        assert len(await rows(store)) == before + number, difference
    await sent(store, "elsewhere", "qa")
    assert len(await rows(store)) == before + len(differences) + 1


async def test_a_body_that_comes_now_and_then_has_a_row_each_time(store: Store) -> None:
    for number in range(MANY):
        await sent(store, f"k-{number}", "staging", at=NOW + number * (ALIKE_FOR / ALIKE_MOST + 1))
    assert len(await rows(store)) == MANY


async def test_what_is_ignored_or_has_no_id_is_counted_too(store: Store) -> None:
    ignored = await flood(store, ignored="a ping")
    assert {answer.ignored for answer in ignored} == {"a ping"}
    assert len(await rows(store, fate=Fate.IGNORED)) == ALIKE_MOST
    for _ in range(MANY):
        await sent(store, None, "staging", digest="without")
    accepted = await rows(store, fate=Fate.ACCEPTED)
    assert (len(accepted), sum(each.count for each in accepted)) == (ALIKE_MOST, MANY)


async def test_what_was_ignored_and_counted_gets_a_run_once_it_selects_something(store: Store) -> None:
    await store.hold(Hold("site", "staging", "a test", "ada", NOW))
    assert all(answer.ignored for answer in await flood(store, "staging"))
    await store.release("site", "staging")
    for key in ("f-0", f"f-{MANY - 2}", f"f-{MANY - 1}", f"f-{ALIKE_MOST - 1}"):
        taken = await sent(store, key, "staging", at=NOW + 1)
        assert (taken.repeated, taken.ignored, len(taken.runs)) == (False, "", 1)
        await run_to_the_end(store)
        assert (await sent(store, key, "staging", at=NOW + 2)).runs == taken.runs
    assert len(await store.runs(RunFilter())) == 4


async def test_what_a_delivery_said_goes_first_and_its_id_stays_for_as_long_as_it_may_be_sent_again(
    store: Store,
) -> None:
    old, young = NOW - 4 * DAY, NOW - 2 * DAY
    for number in range(20):
        await sent(store, f"old-{number}", "staging", at=old + number, digest=f"o-{number}")
    await run_to_the_end(store)
    taken = [await sent(store, f"young-{n}", "staging", at=young + n, digest=f"y-{n}") for n in range(20)]
    await run_to_the_end(store)
    assert await store.kept(1_000) == {"forge": 40}
    assert await store.kept(15) == {"forge": 15}
    assert await trimmed(store, 5) == Pruned(deliveries=20, details=35)
    found = await rows(store)
    assert [each.id for each in reversed(found)] == [answer.delivery for answer in taken]
    assert [bool(each.facts) for each in found] == [True] * 5 + [False] * 15
    assert [bool(each.headers) for each in found] == [True] * 5 + [False] * 15
    assert {each.fate for each in found} == {Fate.ACCEPTED}
    again = await sent(store, "young-0", "staging", digest="y-0")
    assert (again.repeated, again.runs) == (True, taken[0].runs)
    assert await store.kept(1_000) == {"forge": 5}
    assert await trimmed(store, 5) == Pruned()


async def test_what_a_waiting_or_running_run_refers_to_is_never_dropped(store: Store) -> None:
    waiting = await sent(store, "waiting", "qa", at=NOW - 10 * DAY, digest="w")
    running = await sent(store, "running", "staging", at=NOW - 11 * DAY, digest="r")
    claimed = await store.claim(NOW)
    assert claimed is not None
    for number in range(5):
        await sent(store, f"k-{number}", at=NOW, digest=f"k-{number}", ignored="a tag")
    await trimmed(store, 2)
    for each in (waiting, running):
        assert (await store.arrival(each.delivery)).fate is Fate.ACCEPTED
        assert len(await store.triggers(each.runs[0])) == 1
    await store.finish(claimed, State.SUCCEEDED, Outcome(), NOW)
    await run_to_the_end(store)
    await trimmed(store, 2)
    for each in (waiting, running):
        with pytest.raises(DeliveryNotFoundError):
            await store.arrival(each.delivery)
        assert (await store.run(each.runs[0])).state is State.SUCCEEDED


async def test_a_flood_at_one_hook_takes_nothing_from_another(store: Store) -> None:
    for number in range(5):
        await sent(store, f"o-{number}", at=NOW - 9 * DAY, hook="other", digest=f"{number}", ignored="a tag")
    for number in range(30):
        await sent(store, f"k-{number}", at=NOW - 5 * DAY, digest=f"{number}", ignored="a tag")
    await trimmed(store, 10)
    assert await store.kept(1_000) == {"forge": 10, "other": 5}
    assert len(await rows(store)) == 15


async def test_ids_of_counted_ones_are_forgotten_once_nobody_sends_them_again(store: Store) -> None:
    await flood(store, at=NOW - 4 * DAY, ignored="a ping", start="old")
    await flood(store, at=NOW - 2 * DAY, ignored="a ping", start="young")
    counted = MANY - ALIKE_MOST
    assert await trimmed(store, 1_000) == Pruned(deliveries=counted)
    for start, repeated in (("young", True), ("old", False)):
        again = await sent(store, f"{start}-{MANY - 1}", ignored="a ping", at=NOW)
        assert again.repeated is repeated
