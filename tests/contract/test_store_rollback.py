"""What every `RunStore` promises about rollbacks and the holds that go with them."""

from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from listener.errors import ConflictError, FencedError
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.queue import Acceptance, Hold
from listener.runs import Origin, Run, State, Trigger
from listener.store import Store

NOW = 1_700_000_000.0
LIVE = "a" * 40
MOVED = Outcome(
    (LegOutcome("studio:/srv/mysite", "staging", "forward-commit", LegState.MADE_EQUAL, old="1", new="2"),)
)

Ask = Callable[..., Awaitable[Acceptance]]
NUMBERS = count(1)


async def done(store: Store, call: Ask) -> Run:
    """A sync that has moved the branch."""
    await call(store, "staging")
    run = await store.claim(NOW)
    assert run is not None
    await store.finish(run, State.SUCCEEDED, MOVED, NOW)
    return await store.run(run.id)


async def roll_back(store: Store, run: Run, *, now: float = NOW + 1) -> Run:
    trigger = Trigger(f"back-{next(NUMBERS)}", "site", "staging", Origin.ROLLBACK, "root", now)
    hold = Hold("site", "staging", "rolled back", "root", now, LIVE)
    return await store.roll_back(trigger, run.id, hold)


async def claimed(store: Store, now: float = NOW + 2) -> Run:
    run = await store.claim(now)
    assert run is not None
    return run


async def test_a_rollback_waits_in_the_queue_and_is_claimed_in_spite_of_its_hold(
    store: Store, call: Ask
) -> None:
    run = await done(store, call)
    back = await roll_back(store, run)
    assert (back.state, back.undoes) == (State.QUEUED, run.id)
    assert [(hold.reason, hold.live) for hold in await store.holds()] == [("rolled back", LIVE)]
    started = await claimed(store)
    assert (started.id, started.undoes) == (back.id, run.id)
    assert [trigger.origin for trigger in await store.triggers(back.id)] == [Origin.ROLLBACK]


async def test_a_sync_that_waits_is_ended_by_a_rollback(store: Store, call: Ask) -> None:
    run = await done(store, call)
    waiting = (await call(store, "staging", now=NOW + 0.5)).runs[0]
    await roll_back(store, run)
    assert (await store.run(waiting)).state is State.CANCELLED


async def test_a_trigger_never_joins_a_rollback_that_waits(store: Store, call: Ask, deliver: Ask) -> None:
    back = await roll_back(store, await done(store, call))
    (joined,) = (await deliver(store, "1", "staging", now=NOW + 2)).runs
    assert joined != back.id
    assert (await claimed(store)).id == back.id
    assert await store.claim(NOW + 3) is None, "one at a time"


async def test_a_hook_gets_a_run_that_knows_at_which_live_it_is_held(
    store: Store, call: Ask, deliver: Ask
) -> None:
    back = await roll_back(store, await done(store, call))
    await store.finish(await claimed(store), State.SUCCEEDED, MOVED, NOW + 2)
    await deliver(store, "1", "staging", now=NOW + 3)
    run = await claimed(store, NOW + 4)
    assert (run.undoes, run.held_live) == (None, LIVE)
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW + 5)
    assert await store.holds() == []
    assert (await store.run(back.id)).held_live == ""


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
async def test_a_sync_that_does_not_succeed_leaves_the_hold(
    store: Store, call: Ask, deliver: Ask, state: State
) -> None:
    await roll_back(store, await done(store, call))
    await store.finish(await claimed(store), State.SUCCEEDED, MOVED, NOW + 2)
    await deliver(store, "1", "staging", now=NOW + 3)
    await store.finish(await claimed(store, NOW + 4), state, Outcome(error="on-hold"), NOW + 5)
    assert len(await store.holds()) == 1


async def test_an_explicit_call_ends_the_hold_at_once(store: Store, call: Ask) -> None:
    await roll_back(store, await done(store, call))
    await store.finish(await claimed(store), State.SUCCEEDED, MOVED, NOW + 2)
    await call(store, "staging", now=NOW + 3)
    assert await store.holds() == []
    assert (await claimed(store, NOW + 4)).held_live == ""


async def test_a_sync_that_was_running_already_does_not_end_the_hold(store: Store, call: Ask) -> None:
    run = await done(store, call)
    await call(store, "staging", now=NOW + 0.2)
    running = await claimed(store, NOW + 0.3)
    await roll_back(store, run)
    assert await store.claim(NOW + 2) is None
    await store.finish(running, State.SUCCEEDED, MOVED, NOW + 3)
    assert len(await store.holds()) == 1
    assert (await claimed(store, NOW + 4)).undoes == run.id


async def test_a_rollback_that_moved_nothing_ends_its_own_hold(store: Store, call: Ask) -> None:
    run = await done(store, call)
    await roll_back(store, run)
    await store.finish(await claimed(store), State.FAILED, Outcome(error="moved-since"), NOW + 2)
    assert await store.holds() == []
    back = await roll_back(store, run, now=NOW + 3)
    await store.cancel(back.id, NOW + 4)
    assert await store.holds() == []


async def test_a_rollback_that_moved_something_and_failed_keeps_its_hold(store: Store, call: Ask) -> None:
    await roll_back(store, await done(store, call))
    await store.finish(await claimed(store), State.FAILED, MOVED, NOW + 2)
    assert len(await store.holds()) == 1


async def test_one_rollback_of_an_environment_at_a_time(store: Store, call: Ask) -> None:
    run = await done(store, call)
    await roll_back(store, run)
    for _ in ("while it waits", "while it runs"):
        with pytest.raises(ConflictError, match="under way"):
            await roll_back(store, run)
        await store.claim(NOW + 2)


async def test_a_frozen_environment_is_not_rolled_back_and_stays_frozen(store: Store, call: Ask) -> None:
    run = await done(store, call)
    freeze = Hold("site", "staging", "acceptance test", "root", NOW)
    await store.hold(freeze)
    with pytest.raises(ConflictError, match="acceptance test"):
        await roll_back(store, run)
    assert await store.holds() == [freeze]


async def test_a_freeze_takes_the_place_of_a_rollbacks_hold(store: Store, call: Ask, deliver: Ask) -> None:
    await roll_back(store, await done(store, call))
    await store.finish(await claimed(store), State.SUCCEEDED, MOVED, NOW + 2)
    await store.hold(Hold("site", "staging", "acceptance test", "root", NOW + 3))
    again = await deliver(store, "1", "staging", now=NOW + 4)
    assert again.ignored == "site/staging is on hold: acceptance test"


async def test_a_rollback_is_put_back_and_recovered_as_what_it_is(store: Store, call: Ask) -> None:
    run = await done(store, call)
    back = await roll_back(store, run)
    await call(store, "staging", now=NOW + 1.5)
    started = await claimed(store)
    put_back = await store.requeue(started, Outcome(), NOW + 3, NOW + 2, failed=False)
    assert (put_back.state, put_back.undoes) == (State.QUEUED, run.id), "no successor takes its place"
    started = await claimed(store, NOW + 4)
    assert started.id != back.id or (await store.recover(NOW + 5))[0].undoes == run.id


async def test_a_rollback_is_no_success_of_the_environment(store: Store, call: Ask) -> None:
    run = await done(store, call)
    await roll_back(store, run)
    await store.finish(await claimed(store), State.SUCCEEDED, MOVED, NOW + 2)
    last = await store.last_successes([("site", "staging")])
    assert last["site", "staging"].run == run.id


async def test_what_a_run_is_about_to_do_is_kept_and_fenced(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    await store.keep(run, MOVED)
    assert (await store.run(run.id)).outcome == MOVED
    (orphan,) = await store.recover(NOW + 3)
    assert orphan.outcome == MOVED
    with pytest.raises(FencedError):
        await store.keep(run, Outcome())
    with pytest.raises(ConflictError, match="moved already"):
        await store.cancel(run.id, NOW + 4)
