"""What every `RunStore` promises about who goes first, and about what is deleted when it is old."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from listener.errors import RunNotFoundError
from listener.outcomes import Outcome
from listener.queue import Acceptance, DeliveryRecord, Hold, LogLine
from listener.runs import Origin, Run, State, Trigger, new_id
from listener.store import Store
from listener.store.history import SOON

NOW = 1_700_000_000.0
DAY = 86400.0

Ask = Callable[..., Awaitable[Acceptance]]


async def ask(store: Store, environment: str, at: float = NOW, **facts: object) -> str:
    """Ask by a hook, or as `facts` say, and return the run."""
    trigger = Trigger(new_id(at), "site", environment, Origin.HOOK, "forge", at)
    return (await store.accept([replace(trigger, **facts)], None, at)).runs[0]  # type: ignore[arg-type]


async def claimed(store: Store, now: float = NOW, full: tuple[str, ...] = ()) -> Run:
    run = await store.claim(now, full)
    assert run is not None
    return run


async def ended(store: Store, environment: str, at: float, state: State = State.SUCCEEDED) -> Run:
    """A run that took 2 s and ended then."""
    await ask(store, environment, at - 2)
    run = await claimed(store, at - 2)
    store.append(run, [LogLine(1, "{}")])
    await store.finish(run, state, Outcome(), at)
    return await store.run(run.id)


async def test_what_is_asked_for_explicitly_goes_first(store: Store) -> None:
    automatic = [await ask(store, name, NOW + n) for n, name in enumerate(("a", "b"))]
    explicit = await ask(store, "c", NOW + 2, origin=Origin.API)
    assert [(await claimed(store, NOW + 3)).id for _ in range(3)] == [explicit, *automatic]


async def test_a_run_that_somebody_joins_explicitly_goes_first_too(store: Store) -> None:
    runs = [await ask(store, name, NOW + n) for n, name in enumerate(("a", "b"))]
    assert await ask(store, "b", NOW + 2, origin=Origin.CLI) == runs[1]
    assert (await claimed(store, NOW + 3)).id == runs[1]


async def test_a_hooks_run_gets_its_turn_while_explicit_calls_keep_coming(store: Store) -> None:
    hook = await ask(store, "a", NOW)
    started = []
    for second in range(30):
        await ask(store, f"called-{second}", NOW + second, origin=Origin.API)
        started.append((await claimed(store, NOW + second)).id)
    assert 0 < started.index(hook) <= 11, "explicit calls went first, and the hook's aged"


async def test_a_hooks_run_goes_before_older_ones_of_the_schedule(store: Store) -> None:
    scheduled = [await ask(store, f"s{n}", NOW + n, origin=Origin.SCHEDULE) for n in range(5)]
    hook = await ask(store, "a", NOW + 6)
    assert [(await claimed(store, NOW + 7)).id for _ in range(6)] == [hook, *scheduled]


async def test_a_run_of_the_schedule_that_a_hook_joins_goes_before_others_of_the_schedule(
    store: Store,
) -> None:
    scheduled = [await ask(store, name, NOW + n, origin=Origin.SCHEDULE) for n, name in enumerate(("a", "b"))]
    assert await ask(store, "b", NOW + 2) == scheduled[1]
    assert await ask(store, "b", NOW + 3, origin=Origin.SCHEDULE) == scheduled[1]
    assert [(await claimed(store, NOW + 4)).id for _ in range(2)] == scheduled[::-1]


async def test_a_run_of_the_schedule_gets_its_turn_while_hooks_keep_coming(store: Store) -> None:
    scheduled = await ask(store, "a", NOW, origin=Origin.SCHEDULE)
    started = []
    for n in range(20):
        await ask(store, f"hook-{n}", NOW + 6 * n)
        started.append((await claimed(store, NOW + 6 * n)).id)
    assert 0 < started.index(scheduled) <= 11, "hooks went first, and the schedule's aged"


async def test_what_lies_behind_hundreds_that_wait_for_a_full_host_is_found(store: Store) -> None:
    for number in range(SOON + 50):
        await ask(store, f"slow-{number}", NOW + number / 1000, lane="slow")
    quick = [await ask(store, f"quick-{n}", NOW + 1 + n, lane=lane) for n, lane in enumerate(("b", "a"))]
    assert await store.next_due(("slow",)) is not None
    assert [(await claimed(store, NOW + 9, ("slow",))).id for _ in quick] == quick
    assert await store.claim(NOW + 9, ("slow",)) is None
    assert await store.next_due(("slow",)) is None
    assert await store.next_due() is not None


async def test_a_full_lane_is_passed_by(store: Store) -> None:
    slow, quick = await ask(store, "a", lane="slow"), await ask(store, "b", NOW + 1, lane="quick")
    assert (await claimed(store, NOW + 2, full=("slow",))).id == quick
    assert await store.claim(NOW + 2, ("slow",)) is None
    assert await store.next_due(("slow",)) is None
    assert await store.next_due() == NOW
    assert (await claimed(store, NOW + 2)).id == slow


async def test_triggers_that_settle_become_one_run_after_the_last_one(store: Store) -> None:
    run = await ask(store, "a", NOW, settle=10.0, settle_most=25.0)
    assert await store.claim(NOW + 9) is None
    for later in (8, 16, 20):
        assert await ask(store, "a", NOW + later, settle=10.0, settle_most=25.0) == run
    assert await store.next_due() == NOW + 25
    assert await store.claim(NOW + 24) is None
    assert (await claimed(store, NOW + 25)).id == run


async def test_who_asks_explicitly_does_not_wait_for_others_to_settle(store: Store) -> None:
    run = await ask(store, "a", NOW, settle=10.0, settle_most=60.0)
    assert await ask(store, "a", NOW + 1, origin=Origin.API) == run
    await ask(store, "a", NOW + 2, settle=10.0, settle_most=60.0)
    assert (await claimed(store, NOW + 2)).id == run


async def test_what_waits_is_due_once_the_clock_was_set_back(store: Store) -> None:
    runs = [await ask(store, "a", NOW), await ask(store, "b", NOW + 1, settle=50.0, settle_most=50.0)]
    await store.requeue(await claimed(store), Outcome(), NOW + 300, NOW, failed=True)
    earlier = NOW - 3600
    assert await store.claim(earlier) is None
    assert await store.hasten(earlier) == 2
    assert {(await claimed(store, earlier)).id for _ in range(2)} == set(runs)


AHEAD = NOW + 7200.0
"""What a clock said that was ahead."""


async def fails(store: Store) -> None:
    await store.requeue(await claimed(store, AHEAD), Outcome(), AHEAD + 300, AHEAD, failed=True)


async def fails_for_good(store: Store) -> None:
    await fails(store)
    await store.finish(await claimed(store, AHEAD + 300), State.FAILED, Outcome(), AHEAD + 300)


async def is_busy(store: Store) -> None:
    await store.requeue(await claimed(store, AHEAD), Outcome(), AHEAD + 5, AHEAD, failed=False)


async def is_left_running(store: Store) -> None:
    await claimed(store, AHEAD)


async def settles(store: Store) -> None:
    await ask(store, "b", AHEAD, settle=10.0, settle_most=60.0)


@pytest.mark.parametrize("happens", [fails, fails_for_good, is_busy, is_left_running, settles])
async def test_a_clock_that_was_ahead_locks_nothing_across_a_restart(
    opened: Callable[[], Awaitable[Store]], happens: Callable[[Store], Awaitable[None]]
) -> None:
    store = await opened()
    await ask(store, "a", NOW)
    await happens(store)
    await store.close()
    again = await opened()
    await again.recover(NOW + 60)
    await ask(again, "a", NOW + 60)
    await ask(again, "b", NOW + 60)
    assert {(await claimed(again, NOW + 60)).environment for _ in range(2)} == {"a", "b"}


async def test_a_restart_clears_no_backoff_where_the_clock_was_right(
    opened: Callable[[], Awaitable[Store]],
) -> None:
    store = await opened()
    await ask(store, "a", NOW)
    await store.requeue(await claimed(store), Outcome(), NOW + 300, NOW, failed=True)
    await store.close()
    again = await opened()
    await again.recover(NOW + 60)
    assert await again.claim(NOW + 60) is None
    assert await again.next_due() == NOW + 300


async def test_where_a_run_stands_is_told(store: Store) -> None:
    first = await ask(store, "a", NOW)
    second = await ask(store, "b", NOW + 1)
    urgent = await ask(store, "c", NOW + 2, origin=Origin.API)
    later = await ask(store, "d", NOW + 2, settle=100.0, settle_most=100.0)

    async def ahead(run: str) -> int | None:
        queue_position = await store.queue_position(run, NOW + 3)
        return None if queue_position is None else queue_position.ahead

    assert [await ahead(run) for run in (urgent, first, second, later)] == [0, 1, 2, 3]
    await claimed(store, NOW + 3)
    assert [await ahead(run) for run in (urgent, first, second)] == [None, 0, 1]
    with pytest.raises(RunNotFoundError):
        await store.queue_position("nothing", NOW)


async def test_how_long_runs_take_is_told_once_somebody_knows(store: Store) -> None:
    run = await ask(store, "z", NOW + 50)
    queue_position = await store.queue_position(run, NOW + 50)
    assert queue_position is not None
    assert queue_position.pace is None
    await ended(store, "a", NOW + 10)
    queue_position = await store.queue_position(run, NOW + 50)
    assert queue_position is not None
    assert queue_position.pace == 2.0


async def test_a_listener_hears_which_runs_are_still_its_own(store: Store) -> None:
    await ask(store, "a")
    await ask(store, "b")
    mine, lost = await claimed(store), await claimed(store)
    await store.finish(lost, State.FAILED, Outcome(), NOW)
    assert await store.beat([mine, lost]) == {mine.id}
    stale = replace(mine, attempt=mine.attempt - 1)
    assert await store.beat([stale]) == frozenset()
    assert await store.beat([]) == frozenset()
    assert await store.take_over(NOW) == []


async def test_what_is_old_is_deleted_with_its_triggers_and_lines(store: Store) -> None:
    old = await ended(store, "a", NOW - 10 * DAY, State.FAILED)
    young = await ended(store, "a", NOW - DAY, State.FAILED)
    pruned = await store.prune(NOW - 5 * DAY, 100, 100)
    assert pruned.runs == 1
    with pytest.raises(RunNotFoundError):
        await store.run(old.id)
    assert await store.triggers(old.id) == []
    assert await store.lines(old.id, 0) == []
    assert (await store.run(young.id)).state is State.FAILED
    assert len(await store.lines(young.id, 0)) == 1


async def test_no_more_than_so_many_ended_runs_are_kept(store: Store) -> None:
    runs = [await ended(store, "a", NOW - DAY + n, State.FAILED) for n in range(6)]
    assert (await store.prune(NOW - 5 * DAY, 4, 1)).runs == 1
    assert (await store.prune(NOW - 5 * DAY, 4, 100)).runs == 1
    assert (await store.prune(NOW - 5 * DAY, 4, 100)).runs == 0
    for run in runs[:2]:
        with pytest.raises(RunNotFoundError):
            await store.run(run.id)
    assert (await store.run(runs[2].id)).id == runs[2].id


async def test_what_waits_runs_or_is_needed_is_never_deleted(store: Store, call: Ask) -> None:
    success = await ended(store, "a", NOW - 10 * DAY)
    await store.roll_back(
        Trigger("back", "site", "a", Origin.ROLLBACK, "root", NOW - 9 * DAY),
        success.id,
        Hold("site", "a", "rolled back", "root", NOW - 9 * DAY, "f" * 40),
    )
    back = await claimed(store, NOW - 9 * DAY)
    await store.finish(back, State.SUCCEEDED, Outcome(), NOW - 9 * DAY)
    newer = await ended(store, "a", NOW - 8 * DAY)
    await ask(store, "b", NOW - 8 * DAY)
    running = await claimed(store, NOW - 8 * DAY)
    waiting = await ask(store, "b", NOW - 7 * DAY)
    assert (await store.prune(NOW, 100, 100)).runs == 1, "the rollback, whose hold is over"
    assert (await store.prune(NOW, 100, 100)).runs == 1, "the run that it undid"
    assert (await store.prune(NOW, 0, 100)).runs == 0
    for run in (newer.id, running.id, waiting):
        assert (await store.run(run)).id == run


async def test_a_superseded_run_goes_before_its_successor(store: Store) -> None:
    await ask(store, "a", NOW - 10 * DAY)
    run = await claimed(store, NOW - 10 * DAY)
    await ask(store, "a", NOW - 10 * DAY)
    await store.requeue(run, Outcome(), NOW - 10 * DAY, NOW - 10 * DAY, failed=False)
    successor = await claimed(store, NOW - 10 * DAY)
    await store.finish(successor, State.FAILED, Outcome(), NOW - 10 * DAY)
    assert [(await store.prune(NOW, 100, 100)).runs for _ in range(3)] == [1, 1, 0]


async def test_old_deliveries_go_when_no_trigger_needs_them(store: Store, deliver: Ask) -> None:
    await deliver(store, "old", "a", now=NOW - 10 * DAY)
    await deliver(store, "ignored", now=NOW - 10 * DAY, ignored="a ping")
    run = await claimed(store, NOW - 10 * DAY)
    assert await store.prune(NOW - 5 * DAY, 100, 100) == replace(
        await store.prune(NOW - 5 * DAY, 100, 100), deliveries=1
    )
    again = DeliveryRecord(new_id(NOW), "forge", "old", NOW, 2, "digest", {}, {}, "")
    assert (await store.accept([], again, NOW)).repeated
    await store.finish(run, State.FAILED, Outcome(), NOW - 10 * DAY)
    pruned = await store.prune(NOW - 5 * DAY, 100, 100)
    assert (pruned.runs, pruned.deliveries) == (1, 1)
    assert not (await store.accept([], again, NOW)).repeated


async def test_what_arrives_is_taken_in_between_the_batches_of_a_long_pruning(
    store: Store, deliver: Ask
) -> None:
    environments = [f"e-{number}" for number in range(100)]
    old = await deliver(store, "old", *environments)
    for run in old.runs:
        await store.cancel(run, NOW)
    batches: list[int] = []

    async def pruned() -> None:
        while (batch := await store.prune(NOW + DAY, 1000, 10)).runs:
            batches.append(batch.runs)

    pruning = asyncio.create_task(pruned())
    taken = 0
    while not pruning.done():
        assert len((await deliver(store, f"new {taken}", "staging", now=NOW + 2 * DAY)).runs) == 1
        taken += 1
    await pruning
    assert batches == [10] * 10
    # Each batch is a few questions and writes; what arrives waits for one of them at most.
    assert taken >= len(batches)
