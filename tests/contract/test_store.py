"""What every `RunStore` promises about taking in: deliveries, triggers, holds."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from listener.errors import OnHoldError
from listener.outcomes import LegOutcome, Outcome
from listener.queue import Acceptance, Backlog, Hold, RunFilter
from listener.runs import Origin, Run, State, Trigger
from listener.store import Store

NOW = 1_700_000_000.0
FREEZE = Hold("site", "staging", "acceptance test", "ada", NOW)

Ask = Callable[..., Awaitable[Acceptance]]
Open = Callable[[], Awaitable[Store]]


async def claimed(store: Store, now: float = NOW) -> Run:
    run = await store.claim(now)
    assert run is not None
    return run


async def test_what_was_accepted_is_there_after_reopening(store: Store, opened: Open, deliver: Ask) -> None:
    accepted = await deliver(store, "1", "staging", "qa")
    before = [await store.run(run) for run in accepted.runs]
    await store.close()
    again = await opened()
    assert [await again.run(run) for run in accepted.runs] == before
    assert [(run.environment, run.state) for run in before] == [
        ("staging", State.QUEUED),
        ("qa", State.QUEUED),
    ]
    assert [(await again.triggers(run))[0].id for run in accepted.runs] == list(accepted.triggers)


async def test_an_acceptance_names_its_delivery_its_triggers_and_their_runs(
    store: Store, deliver: Ask, call: Ask
) -> None:
    delivered = await deliver(store, "1", "staging")
    assert delivered.delivery
    assert not delivered.repeated
    called = await call(store, "qa")
    assert called.delivery == ""
    for acceptance in (delivered, called):
        (trigger,) = acceptance.triggers
        assert (await store.serving(trigger)).id == acceptance.runs[0]


async def test_a_trigger_joins_the_run_that_waits(store: Store, deliver: Ask, call: Ask) -> None:
    first = await deliver(store, "1", "staging")
    second = await deliver(store, "2", "staging")
    third = await call(store, "staging")
    assert first.runs == second.runs == third.runs
    origins = [trigger.origin for trigger in await store.triggers(first.runs[0])]
    assert origins == [Origin.HOOK, Origin.HOOK, Origin.API]


async def test_a_trigger_never_attaches_to_a_running_run_but_makes_a_new_one(
    store: Store, deliver: Ask, call: Ask
) -> None:
    first = await deliver(store, "1", "staging")
    running = await claimed(store)
    second = await deliver(store, "2", "staging")
    third = await call(store, "staging")
    assert running.id == first.runs[0]
    assert second.runs == third.runs != first.runs
    assert len(await store.triggers(running.id)) == 1


async def test_environments_of_the_same_name_on_two_sites_are_two(store: Store, call: Ask) -> None:
    assert (await call(store, "staging")).runs != (await call(store, "staging", site="other")).runs


async def test_fifty_copies_of_one_delivery_at_once_are_one_run(store: Store, deliver: Ask) -> None:
    answers = await asyncio.gather(*(deliver(store, "1", "staging") for _ in range(50)))
    assert len({(answer.runs, answer.delivery, answer.triggers) for answer in answers}) == 1
    assert sorted(answer.repeated for answer in answers) == [False] + [True] * 49
    assert len(await store.triggers(answers[0].runs[0])) == 1


async def test_deliveries_without_a_key_are_never_the_same(store: Store, deliver: Ask) -> None:
    first = await deliver(store, None, "staging")
    second = await deliver(store, None, "staging")
    assert first.delivery != second.delivery
    assert not second.repeated


@pytest.mark.parametrize("reached", [State.QUEUED, State.RUNNING, State.SUCCEEDED])
async def test_a_repeated_delivery_gets_the_first_answer_while_its_run_is_good(
    store: Store, deliver: Ask, reached: State
) -> None:
    first = await deliver(store, "1", "staging")
    if reached is not State.QUEUED:
        run = await claimed(store)
        if reached is State.SUCCEEDED:
            await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    again = await deliver(store, "1", "staging", now=NOW + 1)
    assert (again.runs, again.delivery, again.triggers) == (first.runs, first.delivery, first.triggers)
    assert again.repeated
    assert len(await store.runs(RunFilter())) == 1


async def fail(store: Store, run_id: str) -> None:
    run = await claimed(store)
    assert run.id == run_id
    await store.finish(run, State.FAILED, Outcome(error="sync"), NOW)


async def cancel(store: Store, run_id: str) -> None:
    await store.cancel(run_id, NOW)


@pytest.mark.parametrize("lose", [fail, cancel])
async def test_a_repeated_delivery_whose_run_was_lost_gets_a_new_one_once(
    store: Store, deliver: Ask, lose: Callable[[Store, str], Awaitable[None]]
) -> None:
    first = await deliver(store, "1", "staging")
    await lose(store, first.runs[0])
    again = await deliver(store, "1", "staging", now=NOW + 1)
    assert again.repeated
    assert again.delivery == first.delivery
    assert again.runs != first.runs
    assert (await store.run(again.runs[0])).state is State.QUEUED
    assert (await deliver(store, "1", "staging", now=NOW + 2)).runs == again.runs


async def test_a_repeated_delivery_whose_run_failed_joins_a_run_that_waits(
    store: Store, deliver: Ask
) -> None:
    first = await deliver(store, "1", "staging")
    await fail(store, first.runs[0])
    other = await deliver(store, "2", "staging")
    assert (await deliver(store, "1", "staging")).runs == other.runs


async def test_only_the_environment_whose_run_was_lost_is_synced_again_and_the_order_stays(
    store: Store, deliver: Ask
) -> None:
    first = await deliver(store, "1", "staging", "qa")
    await store.cancel(first.runs[0], NOW)
    again = await deliver(store, "1", "staging", "qa", "another")
    assert again.runs[0] != first.runs[0]
    assert again.runs[1:] == first.runs[1:]


async def test_an_environment_that_is_not_selected_any_more_is_not_synced_again(
    store: Store, deliver: Ask
) -> None:
    first = await deliver(store, "1", "staging")
    await store.cancel(first.runs[0], NOW)
    again = await deliver(store, "1", ignored="another branch")
    assert (again.runs, again.ignored, again.repeated) == (first.runs, "", True)


async def test_a_repeated_delivery_follows_its_trigger_to_the_successor(store: Store, deliver: Ask) -> None:
    await deliver(store, "1", "staging")
    run = await claimed(store)
    second = await deliver(store, "2", "staging")
    assert (await store.requeue(run, Outcome(), NOW, NOW, failed=True)).state is State.SUPERSEDED
    assert (await deliver(store, "1", "staging")).runs == second.runs
    await store.cancel(second.runs[0], NOW)
    again = await deliver(store, "1", "staging")
    assert again.runs not in {second.runs, (run.id,)}


async def test_an_ignored_delivery_is_kept_without_runs(store: Store, deliver: Ask) -> None:
    first = await deliver(store, "1", ignored="a tag")
    assert (first.runs, first.triggers, first.ignored, first.repeated) == ((), (), "a tag", False)
    again = await deliver(store, "1", ignored="still a tag")
    assert (again.delivery, again.ignored, again.repeated) == (first.delivery, "a tag", True)


async def test_an_ignored_delivery_that_selects_something_now_is_new_and_keeps_its_id(
    store: Store, deliver: Ask
) -> None:
    first = await deliver(store, "1", ignored="no such site")
    second = await deliver(store, "1", "staging")
    assert (second.delivery, second.ignored, second.repeated) == (first.delivery, "", False)
    assert (await store.run(second.runs[0])).state is State.QUEUED
    third = await deliver(store, "1", "staging")
    assert (third.runs, third.repeated) == (second.runs, True)


async def test_a_hold_ends_the_waiting_run(store: Store, deliver: Ask) -> None:
    first = await deliver(store, "1", "staging")
    await store.hold(FREEZE)
    run = await store.run(first.runs[0])
    assert run.state is State.CANCELLED
    assert run.outcome is not None
    assert run.outcome.error == "on-hold"
    assert "acceptance test" in run.outcome.message
    assert await store.claim(NOW) is None


async def test_a_hold_leaves_the_running_run_alone(store: Store, deliver: Ask) -> None:
    await deliver(store, "1", "staging")
    run = await claimed(store)
    await store.hold(FREEZE)
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)
    assert (await store.run(run.id)).state is State.SUCCEEDED


async def test_a_run_that_comes_back_to_a_held_environment_is_cancelled(store: Store, deliver: Ask) -> None:
    await deliver(store, "1", "staging")
    run = await claimed(store)
    await store.hold(FREEZE)
    back = await store.requeue(run, Outcome((LegOutcome(plan="reset"),), error="sync"), NOW, NOW, failed=True)
    assert back.state is State.CANCELLED
    assert back.outcome is not None
    assert (back.outcome.legs[0].plan, back.outcome.error) == ("reset", "on-hold")


async def test_a_hold_ends_a_rollback_that_waits_or_comes_back(store: Store, deliver: Ask) -> None:
    first = await deliver(store, "1", "staging")
    await store.finish(await claimed(store), State.SUCCEEDED, Outcome(), NOW)
    for number, running in enumerate((False, True)):
        trigger = Trigger(f"back-{number}", "site", "staging", Origin.ROLLBACK, "ada", NOW)
        own = Hold("site", "staging", "rolled back", "ada", NOW, "a" * 40)
        run = await store.roll_back(trigger, first.runs[0], own)
        if running:
            run = await claimed(store)
        await store.hold(FREEZE)
        if running:
            await store.requeue(run, Outcome(error="sync"), NOW, NOW, failed=True)
        assert (await store.run(run.id)).state is State.CANCELLED
        assert await store.release("site", "staging") == FREEZE
        assert await store.claim(NOW) is None


async def test_a_hook_does_not_select_a_held_environment(store: Store, deliver: Ask) -> None:
    await store.hold(FREEZE)
    some = await deliver(store, "1", "staging", "qa")
    assert [(await store.run(run)).environment for run in some.runs] == ["qa"]
    assert len(some.triggers) == 1
    none = await deliver(store, "2", "staging")
    assert (none.runs, none.ignored) == ((), "site/staging is on hold: acceptance test")


async def test_a_delivery_ignored_for_a_hold_is_taken_when_it_comes_again_after_the_release(
    store: Store, deliver: Ask
) -> None:
    await store.hold(FREEZE)
    held = await deliver(store, "1", "staging")
    assert (await deliver(store, "1", "staging")).repeated
    await store.release("site", "staging")
    again = await deliver(store, "1", "staging")
    assert (again.delivery, again.repeated, len(again.runs)) == (held.delivery, False, 1)


async def test_a_delivery_whose_run_a_hold_ended_is_synced_again_after_the_release_only(
    store: Store, deliver: Ask
) -> None:
    first = await deliver(store, "1", "staging")
    await store.hold(FREEZE)
    assert (await deliver(store, "1", "staging")).runs == first.runs
    await store.release("site", "staging")
    assert (await deliver(store, "1", "staging")).runs != first.runs


@pytest.mark.parametrize("origin", [Origin.API, Origin.CLI, Origin.RETRY, Origin.RELEASE])
async def test_an_explicit_call_on_a_held_environment_fails_at_once_and_says_who_holds_it(
    store: Store, call: Ask, origin: Origin
) -> None:
    await store.hold(FREEZE)
    accepted = await call(store, "staging", origin=origin)
    run = await store.serving(accepted.triggers[0])
    assert (run.id, run.state, run.finished_at) == (accepted.runs[0], State.FAILED, NOW)
    assert run.outcome is not None
    assert (run.outcome.error, run.outcome.remedy) == ("on-hold", OnHoldError.default_remedy)
    assert "acceptance test" in run.outcome.message
    assert "ada" in run.outcome.message


async def test_a_held_environment_does_not_hold_others_back(store: Store, call: Ask) -> None:
    await store.hold(FREEZE)
    await call(store, "qa")
    assert (await claimed(store)).environment == "qa"


async def test_release_returns_the_hold_that_was_and_lets_runs_through(store: Store, call: Ask) -> None:
    await store.hold(FREEZE)
    assert await store.release("site", "staging") == FREEZE
    assert await store.holds() == []
    assert await store.release("site", "staging") is None
    await call(store, "staging")
    assert (await claimed(store)).environment == "staging"


async def test_a_second_hold_replaces_the_first(store: Store) -> None:
    later = Hold("site", "staging", "rollback", "bob", NOW + 1)
    elsewhere = Hold("site", "qa", "audit", "ada", NOW)
    for hold in (FREEZE, later, elsewhere):
        await store.hold(hold)
    assert await store.holds() == [elsewhere, later]
    assert await store.holds([later.site]) == [each for each in (elsewhere, later) if each.site == later.site]
    assert await store.holds(["nosuch"]) == await store.holds([]) == []


async def test_holds_are_there_after_reopening(store: Store, opened: Open) -> None:
    await store.hold(FREEZE)
    await store.close()
    assert await (await opened()).holds() == [FREEZE]


async def test_a_release_and_its_catching_up_are_one_thing(store: Store) -> None:
    trigger = Trigger("t-1", "site", "staging", Origin.RELEASE, "root", NOW)
    assert await store.release("site", "staging", trigger) is None
    assert await store.runs(RunFilter()) == []
    await store.hold(FREEZE)
    assert await store.release("site", "staging", trigger) == FREEZE
    assert (await store.serving("t-1")).state is State.QUEUED


async def test_the_backlog_counts_what_waits_and_what_runs(store: Store, call: Ask) -> None:
    assert await store.backlog() == Backlog()
    await call(store, "qa")
    await call(store, "staging", now=NOW + 1)
    assert await store.backlog() == Backlog(queued=2, running=0, oldest=NOW)
    run = await claimed(store, NOW + 2)
    assert await store.backlog() == Backlog(queued=1, running=1, oldest=NOW + 1)
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW + 3)
    assert await store.backlog() == Backlog(queued=1, running=0, oldest=NOW + 1)
