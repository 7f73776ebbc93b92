"""What every `RunStore` promises about a run's way: claim, fence, backoff, log, signals, history."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from listener.errors import ConflictError, FencedError, ForbiddenError, RunNotFoundError
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.queue import Acceptance, Hold, LogLine, RunFilter, Signal, Success
from listener.runs import Origin, Run, State
from listener.store import Store, ruled

NOW = 1_700_000_000.0
OUTCOME = Outcome(
    legs=(
        LegOutcome(
            plan="forward-commit",
            live="a" * 40,
            removed_count=2,
            removed=("/site/a", "/site/b"),
        ),
    ),
    warnings=("a publish seems to have crashed",),
    durations={"observe": 0.25},
)
FAILURE = Outcome(error="host-unreachable", message="no answer")

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[Store]]


async def claimed(store: Store, now: float = NOW) -> Run:
    run = await store.claim(now)
    assert run is not None
    return run


def written(*sequences: int) -> list[LogLine]:
    return [LogLine(sequence, f'{{"n": {sequence}}}') for sequence in sequences]


async def wakes(signal: Signal) -> None:
    async with asyncio.timeout(300):
        await signal.wait()
    signal.clear()


# Claiming.


async def test_a_claimed_run_is_running_in_its_first_attempt(store: Store, call: Ask) -> None:
    accepted = await call(store, "staging")
    run = await claimed(store, NOW + 1)
    assert (run.id, run.state, run.attempt, run.started_at) == (
        accepted.runs[0],
        State.RUNNING,
        1,
        NOW + 1,
    )
    assert await store.run(run.id) == run


async def test_the_oldest_run_is_claimed_first(store: Store, call: Ask) -> None:
    for number, environment in enumerate("cab"):
        await call(store, environment, now=NOW + number)
    order = [(await claimed(store, NOW + 9)).environment for _ in range(3)]
    assert order == ["c", "a", "b"]
    assert await store.claim(NOW + 9) is None


async def test_runs_of_one_delivery_are_claimed_in_its_order(store: Store, deliver: Ask) -> None:
    environments = ["e", "b", "d", "a", "c"]
    await deliver(store, "1", *environments)
    assert [(await claimed(store)).environment for _ in environments] == environments


async def test_a_run_is_not_claimed_while_another_one_of_its_environment_runs(
    store: Store, call: Ask
) -> None:
    await call(store, "staging")
    first = await claimed(store)
    second = await call(store, "staging")
    assert await store.claim(NOW) is None
    assert await store.next_due() is None
    await store.finish(first, State.SUCCEEDED, Outcome(), NOW)
    assert (await claimed(store)).id == second.runs[0]


async def test_many_claims_at_once_start_each_environment_once(store: Store, call: Ask) -> None:
    for environment in "abc":
        await call(store, environment)
        await call(store, environment)
    claims = [run for run in await asyncio.gather(*(store.claim(NOW) for _ in range(20))) if run]
    assert sorted(run.environment for run in claims) == ["a", "b", "c"]


async def test_a_run_is_claimed_when_it_is_due_and_not_before(store: Store, call: Ask) -> None:
    await call(store, "staging")
    await store.requeue(await claimed(store), FAILURE, NOW + 10, NOW, failed=True)
    assert await store.next_due() == NOW + 10
    assert await store.claim(NOW + 9.9) is None
    assert (await claimed(store, NOW + 10)).attempt == 2


async def test_the_next_due_time_is_the_earliest_of_what_only_its_time_holds_back(
    store: Store, call: Ask
) -> None:
    assert await store.next_due() is None
    for delay, environment in ((30, "a"), (20, "b"), (10, "c")):
        await call(store, environment)
        await store.requeue(await claimed(store), Outcome(), NOW + delay, NOW, failed=False)
    await store.hold(Hold("site", "c", "freeze", "ada", NOW))
    assert await store.next_due() == NOW + 20


# The fence.


@pytest.fixture
async def fenced(store: Store, call: Ask) -> Run:
    """A run as its first owner knows it, while the second one is at work."""
    await call(store, "staging")
    run = await claimed(store)
    await store.recover(NOW)
    await claimed(store)
    return run


async def test_a_fenced_owner_can_not_finish(store: Store, fenced: Run) -> None:
    with pytest.raises(FencedError):
        await store.finish(fenced, State.SUCCEEDED, Outcome(), NOW)
    assert (await store.run(fenced.id)).state is State.RUNNING


async def test_a_fenced_owner_can_not_requeue_nor_set_a_backoff(store: Store, fenced: Run, call: Ask) -> None:
    with pytest.raises(FencedError):
        await store.requeue(fenced, FAILURE, NOW + 100, NOW, failed=True)
    current = await store.run(fenced.id)
    assert (current.state, current.failures) == (State.RUNNING, 0)
    accepted = await call(store, "staging", origin=Origin.HOOK)
    assert (await store.run(accepted.runs[0])).not_before == NOW


async def test_a_fenced_owner_writes_no_log_lines(store: Store, fenced: Run) -> None:
    store.append(fenced, written(1, 2))
    owner = await store.run(fenced.id)
    store.append(owner, [LogLine(1, "the owner's")])
    await store.finish(owner, State.SUCCEEDED, Outcome(), NOW)
    assert await store.lines(fenced.id, 0) == [LogLine(1, "the owner's")]


async def test_an_owner_can_not_end_a_run_twice(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    await store.finish(run, State.SUCCEEDED, OUTCOME, NOW + 1)
    with pytest.raises(FencedError):
        await store.finish(run, State.FAILED, FAILURE, NOW + 2)
    ended = await store.run(run.id)
    assert (ended.state, ended.finished_at, ended.outcome) == (State.SUCCEEDED, NOW + 1, OUTCOME)


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
async def test_only_an_end_finishes_a_run(store: Store, call: Ask, state: State) -> None:
    await call(store, "staging")
    run = await claimed(store)
    with pytest.raises(ValueError, match=state):
        await store.finish(run, state, Outcome(), NOW)
    assert (await store.run(run.id)).state is State.RUNNING


# Going back to the queue.


async def test_a_requeued_run_tells_why_it_waits_and_counts_its_failure(store: Store, call: Ask) -> None:
    await call(store, "staging")
    back = await store.requeue(await claimed(store), FAILURE, NOW + 5, NOW, failed=True)
    assert (back.state, back.failures, back.looks, back.not_before) == (State.QUEUED, 1, 0, NOW + 5)
    assert back.outcome == FAILURE
    assert await store.run(back.id) == back


async def test_finding_studio_busy_is_no_failure_and_delays_only_that_run(store: Store, call: Ask) -> None:
    await call(store, "staging")
    back = await store.requeue(await claimed(store), Outcome(), NOW + 5, NOW, failed=False)
    assert (back.failures, back.looks, back.not_before) == (0, 1, NOW + 5)
    await store.cancel(back.id, NOW)
    fresh = await call(store, "staging", origin=Origin.HOOK)
    assert (await store.run(fresh.runs[0])).not_before == NOW


async def test_a_requeued_run_is_superseded_by_its_waiting_successor_which_takes_its_triggers(
    store: Store, call: Ask
) -> None:
    first = await call(store, "staging")
    run = await claimed(store)
    second = await call(store, "staging")
    old = await store.requeue(run, FAILURE, NOW + 7, NOW + 1, failed=True)
    assert (old.state, old.successor, old.finished_at) == (State.SUPERSEDED, second.runs[0], NOW + 1)
    assert await store.triggers(old.id) == []
    successor = await store.serving(first.triggers[0])
    assert (successor.id, successor.not_before) == (second.runs[0], NOW + 7)
    served = [trigger.id for trigger in await store.triggers(successor.id)]
    assert served == [*first.triggers, *second.triggers]


async def test_a_successor_waits_for_studio_as_long_as_its_predecessor_would(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    second = await call(store, "staging", now=NOW + 1)
    await store.requeue(run, Outcome(), NOW + 0.5, NOW, failed=False)
    assert (await store.run(second.runs[0])).not_before == NOW + 1
    run = await claimed(store, NOW + 1)
    third = await call(store, "staging", now=NOW + 1)
    await store.requeue(run, Outcome(), NOW + 4, NOW, failed=False)
    assert (await store.run(third.runs[0])).not_before == NOW + 4


# The backoff.


async def back_off(store: Store, seconds: float, now: float = NOW) -> Run:
    return await store.requeue(await claimed(store, now), FAILURE, now + seconds, now, failed=True)


async def test_a_backoff_belongs_to_the_environment_and_not_to_the_run(store: Store, call: Ask) -> None:
    await call(store, "staging")
    failing = await back_off(store, 60)
    await store.cancel(failing.id, NOW)
    fresh = await call(store, "staging", origin=Origin.HOOK)
    assert (await store.run(fresh.runs[0])).not_before == NOW + 60
    assert await store.claim(NOW + 59) is None
    other = await call(store, "qa", origin=Origin.HOOK)
    assert (await claimed(store)).id == other.runs[0]


async def test_a_backoff_outlives_a_restart_and_a_failure_for_good(
    store: Store, opened: Open, call: Ask
) -> None:
    await call(store, "staging")
    await back_off(store, 60)
    await store.finish(await claimed(store, NOW + 60), State.FAILED, FAILURE, NOW + 60)
    await store.close()
    again = await opened()
    fresh = await call(again, "staging", origin=Origin.HOOK, now=NOW + 30)
    assert (await again.run(fresh.runs[0])).not_before == NOW + 60


async def test_failures_in_a_row_are_counted_over_the_runs_of_an_environment(store: Store, call: Ask) -> None:
    await call(store, "staging")
    failing = await claimed(store)
    await call(store, "staging", origin=Origin.HOOK)
    assert (await store.requeue(failing, FAILURE, NOW + 60, NOW, failed=True)).state is State.SUPERSEDED
    successor = await claimed(store, NOW + 60)
    assert (successor.failures, successor.streak) == (0, 1)
    await store.finish(successor, State.SUCCEEDED, Outcome(), NOW + 60)
    await call(store, "staging")
    assert (await claimed(store, NOW + 60)).streak == 0


async def test_a_success_ends_the_backoff(store: Store, call: Ask) -> None:
    await call(store, "staging")
    await back_off(store, 60)
    await store.finish(await claimed(store, NOW + 60), State.SUCCEEDED, Outcome(), NOW + 60)
    fresh = await call(store, "staging", origin=Origin.HOOK, now=NOW + 30)
    assert (await store.run(fresh.runs[0])).not_before == NOW + 30


async def test_a_hook_joins_a_run_that_backs_off_without_clearing_it(store: Store, call: Ask) -> None:
    await call(store, "staging")
    failing = await back_off(store, 60)
    await call(store, "staging", origin=Origin.HOOK, now=NOW + 1)
    assert (await store.run(failing.id)).not_before == NOW + 60


@pytest.mark.parametrize("origin", [Origin.API, Origin.CLI, Origin.RETRY, Origin.RELEASE])
async def test_an_explicit_call_clears_the_backoff_also_for_a_run_that_waits(
    store: Store, call: Ask, origin: Origin
) -> None:
    await call(store, "staging")
    failing = await back_off(store, 60)
    joined = await call(store, "staging", now=NOW + 1, origin=origin)
    assert joined.runs == (failing.id,)
    assert (await store.run(failing.id)).not_before == NOW + 1
    assert (await claimed(store, NOW + 1)).id == failing.id


async def test_a_backoff_is_cleared_at_most_once_in_five_seconds(store: Store, call: Ask) -> None:
    await call(store, "staging")
    await back_off(store, 60)
    await call(store, "staging", now=NOW + 1)
    failing = await back_off(store, 60, NOW + 1)
    await call(store, "staging", now=NOW + 5.9)
    assert (await store.run(failing.id)).not_before == NOW + 61
    await call(store, "staging", now=NOW + 6)
    assert (await claimed(store, NOW + 6)).id == failing.id


async def test_a_call_that_had_nothing_to_clear_does_not_use_up_the_clearing(store: Store, call: Ask) -> None:
    await call(store, "staging")
    failing = await back_off(store, 1)
    await call(store, "staging", now=NOW + 2)
    await back_off(store, 60, NOW + 2)
    await call(store, "staging", now=NOW + 3)
    assert (await claimed(store, NOW + 3)).id == failing.id


async def test_an_explicit_call_does_not_clear_the_wait_for_studio(store: Store, call: Ask) -> None:
    await call(store, "staging")
    await back_off(store, 1)
    busy = await store.requeue(await claimed(store, NOW + 1), Outcome(), NOW + 9, NOW + 1, failed=False)
    await call(store, "staging", now=NOW + 2)
    assert (await store.run(busy.id)).not_before == NOW + 9


# Recovery and cancelling.


async def test_recovery_puts_every_running_run_back_and_counts_no_failure(
    store: Store, opened: Open, call: Ask
) -> None:
    for environment in ("staging", "qa"):
        await call(store, environment)
    for _ in range(2):
        await claimed(store)
    await store.close()
    again = await opened()
    recovered = await again.recover(NOW)
    assert sorted(run.environment for run in recovered) == ["qa", "staging"]
    assert {(run.state, run.failures, run.looks) for run in recovered} == {(State.QUEUED, 0, 0)}
    assert (await claimed(again)).attempt == 2
    assert len(await again.recover(NOW)) == 1


async def test_recovery_supersedes_a_run_whose_successor_waits(store: Store, call: Ask) -> None:
    first = await call(store, "staging")
    await claimed(store)
    second = await call(store, "staging")
    (old,) = await store.recover(NOW + 1)
    assert (old.state, old.successor) == (State.SUPERSEDED, second.runs[0])
    assert (await store.serving(first.triggers[0])).id == second.runs[0]


async def test_recovery_ends_a_run_whose_environment_is_held(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    await store.hold(Hold("site", "staging", "freeze", "ada", NOW))
    (old,) = await store.recover(NOW)
    assert (old.id, old.state) == (run.id, State.CANCELLED)


async def test_a_waiting_run_can_be_cancelled(store: Store, call: Ask) -> None:
    accepted = await call(store, "staging")
    run = await store.cancel(accepted.runs[0], NOW + 1)
    assert (run.state, run.finished_at) == (State.CANCELLED, NOW + 1)
    assert run.outcome is not None
    assert run.outcome.error == "cancelled"
    assert await store.claim(NOW + 1) is None


async def test_a_run_that_others_have_joined_is_not_cancelled_by_who_did_not_know(
    store: Store, call: Ask
) -> None:
    mine = await call(store, "staging")
    others = await call(store, "staging")
    assert others.runs == mine.runs
    with pytest.raises(ForbiddenError, match="serves others"):
        await store.cancel(mine.runs[0], NOW, mine.triggers)
    assert (await store.run(mine.runs[0])).state is State.QUEUED
    ended = await store.cancel(mine.runs[0], NOW, {*mine.triggers, *others.triggers})
    assert ended.state is State.CANCELLED


async def test_a_run_that_does_not_wait_can_not_be_cancelled(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    with pytest.raises(ConflictError, match="running"):
        await store.cancel(run.id, NOW)
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    with pytest.raises(ConflictError, match="succeeded"):
        await store.cancel(run.id, NOW)
    with pytest.raises(RunNotFoundError):
        await store.cancel("no-such-run", NOW)


# The log.


async def test_log_lines_are_stored_in_order_and_read_on_from_any_of_them(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    for sequence in range(1, 101):
        store.append(run, written(sequence))
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    assert await store.lines(run.id, 0) == written(*range(1, 101))
    assert await store.lines(run.id, 97) == written(98, 99, 100)
    assert await store.lines(run.id, 10, limit=2) == written(11, 12)
    assert await store.lines(run.id, 100) == []


async def test_the_next_attempt_goes_on_numbering_after_the_stored_lines(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    assert run.lines == 0
    store.append(run, written(1, 2))
    store.append(run, written(3))
    await store.requeue(run, FAILURE, NOW, NOW, failed=True)
    again = await claimed(store)
    assert again.lines == 3
    store.append(again, written(4))
    await store.finish(again, State.SUCCEEDED, Outcome(), NOW)
    assert await store.lines(run.id, 0) == written(1, 2, 3, 4)


async def test_log_lines_go_with_what_their_owner_writes_next(
    store: Store, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruled, "LINES_WAIT", 600.0)
    await call(store, "staging")
    run = await claimed(store)
    store.append(run, written(1, 2))
    assert await store.lines(run.id, 0) == []
    await store.keep(run, OUTCOME)
    assert await store.lines(run.id, 0) == written(1, 2)
    store.append(run, written(3))
    await store.requeue(run, OUTCOME, NOW, NOW, failed=False)
    assert await store.lines(run.id, 0) == written(1, 2, 3)


async def test_log_lines_that_nothing_takes_along_are_stored_after_a_moment(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    with store.listen(run.id) as signal:
        for sequence in range(1, 6):
            store.append(run, written(sequence))
        assert await store.lines(run.id, 0) == []
        await wakes(signal)
        assert await store.lines(run.id, 0) == written(1, 2, 3, 4, 5)


async def test_a_line_that_comes_after_the_store_was_closed_is_no_defect(
    opened: Open, call: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruled, "LINES_WAIT", 0.0)
    defects: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
    store = await opened()
    await call(store, "staging")
    run = await claimed(store)
    await store.close()
    assert isinstance(store, ruled.RuledStore)
    store.append(run, written(1))
    while store._flush is not None:
        await asyncio.sleep(0)
    assert defects == []


# Signals.


async def test_every_listener_of_a_run_hears_its_states_and_lines(store: Store, call: Ask) -> None:
    accepted = await call(store, "staging")
    with store.listen(accepted.runs[0]) as one, store.listen(accepted.runs[0]) as other:
        run = await claimed(store)
        await wakes(one)
        await wakes(other)
        store.append(run, written(1))
        await wakes(one)
        assert await store.lines(run.id, 0) == written(1)
        await wakes(other)
        await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
        await wakes(one)
        await wakes(other)


async def test_a_listener_does_not_hear_other_runs(store: Store, call: Ask) -> None:
    mine = await call(store, "staging")
    with store.listen(mine.runs[0]) as signal:
        other = await call(store, "qa")
        await store.cancel(other.runs[0], NOW)
        waiting = asyncio.ensure_future(signal.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        await store.cancel(mine.runs[0], NOW)
        await waiting


async def test_listeners_hear_that_their_run_was_superseded(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await claimed(store)
    await call(store, "staging")
    with store.listen(run.id) as signal:
        await store.recover(NOW)
        await wakes(signal)


async def test_whatever_makes_a_run_claimable_signals_work(store: Store, call: Ask) -> None:
    async def requeue() -> None:
        await store.requeue(await claimed(store), FAILURE, NOW + 60, NOW, failed=True)

    async def finish() -> None:
        await store.finish(await claimed(store), State.SUCCEEDED, Outcome(), NOW)

    async def recover() -> None:
        await claimed(store)
        await store.recover(NOW)

    async def release() -> None:
        await store.hold(Hold("site", "staging", "freeze", "ada", NOW))
        await store.release("site", "staging")

    async def ask() -> None:
        await call(store, "staging")

    for happening in (ask, requeue, ask, recover, finish, release):
        store.work.clear()
        await happening()
        await wakes(store.work)


# The history.


async def test_the_history_is_paged_newest_first(store: Store, call: Ask) -> None:
    made = [(await call(store, f"e{number}", now=NOW + number)).runs[0] for number in range(5)]
    newest = await store.runs(RunFilter(limit=2))
    assert [run.id for run in newest] == [made[4], made[3]]
    rest = await store.runs(RunFilter(before=newest[-1].id))
    assert [run.id for run in rest] == [made[2], made[1], made[0]]


async def test_the_history_is_filtered_by_site_environment_state_and_what_may_be_seen(
    store: Store, call: Ask
) -> None:
    for number, (site, environment) in enumerate((("a", "staging"), ("a", "qa"), ("b", "staging"))):
        await call(store, environment, site=site, now=NOW + number)
    await claimed(store, NOW + 9)

    async def found(which: RunFilter) -> list[tuple[str, str]]:
        return [(run.site, run.environment) for run in await store.runs(which)]

    assert await found(RunFilter(site="a")) == [("a", "qa"), ("a", "staging")]
    assert await found(RunFilter(environment="staging")) == [("b", "staging"), ("a", "staging")]
    assert await found(RunFilter(state=State.RUNNING)) == [("a", "staging")]
    assert await found(RunFilter(sites=frozenset({"b", "c"}))) == [("b", "staging")]
    assert await found(RunFilter(site="a", sites=frozenset({"b"}))) == []
    assert await found(RunFilter(sites=frozenset())) == []


async def test_the_last_success_is_the_newest_one_of_that_environment(store: Store, call: Ask) -> None:
    asked = [("site", "staging"), ("site", "qa"), ("other", "staging")]
    assert await store.last_successes(asked) == {}
    endings = [
        ("staging", State.SUCCEEDED),
        ("staging", State.SUCCEEDED),
        ("staging", State.FAILED),
        ("qa", State.SUCCEEDED),
    ]
    ended = []
    for number, (environment, state) in enumerate(endings):
        await call(store, environment, now=NOW + number)
        run = await claimed(store, NOW + number)
        await store.finish(run, state, OUTCOME, NOW + number)
        ended.append(run.id)
    assert await store.last_successes(asked) == {
        ("site", "staging"): Success(ended[1], NOW + 1),
        ("site", "qa"): Success(ended[3], NOW + 3),
    }
    assert await store.last_successes([("site", "qa")]) == {("site", "qa"): Success(ended[3], NOW + 3)}
    assert await store.last_successes([]) == {}


async def test_the_last_failure_is_the_newest_run_that_was_tried_and_failed(store: Store, call: Ask) -> None:
    asked = [("site", "staging"), ("site", "qa"), ("other", "staging")]
    assert await store.last_failures(asked) == {}
    for number, state in enumerate((State.FAILED, State.FAILED, State.SUCCEEDED)):
        await call(store, "staging", now=NOW + number)
        await store.finish(await claimed(store, NOW + number), state, OUTCOME, NOW + number)
    await store.hold(Hold("site", "qa", "a test", "root", NOW))
    await call(store, "qa", now=NOW)
    assert await store.last_failures(asked) == {("site", "staging"): NOW + 1}
    assert await store.last_failures([("site", "qa")]) == {}


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(RunNotFoundError):
        await store.run("no-such-run")
    with pytest.raises(RunNotFoundError):
        await store.serving("no-such-trigger")


async def test_a_waiting_run_whose_branch_has_moved_is_not_cancelled(store: Store, call: Ask) -> None:
    await call(store, "staging")
    waiting = await store.requeue(
        await claimed(store), Outcome((LegOutcome(state=LegState.SENT),)), NOW, NOW, failed=False
    )
    with pytest.raises(ConflictError, match="has moved"):
        await store.cancel(waiting.id, NOW)
    assert (await store.run(waiting.id)).state is State.QUEUED
