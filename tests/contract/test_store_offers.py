"""A worker's free slot on offer: the next acceptance claims a run for it, in its own transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from listener.errors import FencedError, StoreUnavailableError
from listener.outcomes import LegOutcome, LegState, Outcome
from listener.queue import Acceptance, DeliveryRecord, Hold
from listener.runs import Origin, Run, State, Trigger, new_id
from listener.store import Store, lifecycle
from listener.store.transaction import Transaction

NOW = 1_700_000_000.0

Ask = Callable[..., Awaitable[Acceptance]]
Claim = Callable[..., Awaitable[Run | None]]


def free() -> frozenset[str]:
    return frozenset()


def hook(environment: str, at: float = NOW, **more: Any) -> Trigger:
    return Trigger(new_id(at), "site", environment, Origin.HOOK, "forge", at, **more)


async def delivered(store: Store, trigger: Trigger) -> Acceptance:
    record = DeliveryRecord(new_id(trigger.at), "forge", new_id(trigger.at), trigger.at, 2, "", {}, {})
    return await store.accept([trigger], record, trigger.at)


async def test_an_acceptance_is_answered_when_its_run_is_running_already(store: Store) -> None:
    offer = store.offer(free)
    accepted = await delivered(store, hook("staging"))
    run = await offer.withdraw()
    assert run is not None
    assert (run.id, run.state, run.attempt) == (accepted.runs[0], State.RUNNING, 1)
    assert (await store.run(run.id)).state is State.RUNNING
    await store.finish(run, State.SUCCEEDED, Outcome(), NOW)


async def test_one_offer_is_one_run(store: Store) -> None:
    offer = store.offer(free)
    one, other = await asyncio.gather(delivered(store, hook("staging")), delivered(store, hook("qa")))
    claimed = await offer.withdraw()
    assert claimed is not None
    states = [(await store.run(accepted.runs[0])).state for accepted in (one, other)]
    assert sorted(states) == [State.QUEUED, State.RUNNING]


INTENDED = Outcome(legs=(LegOutcome("studio:/srv/site", "staging", state=LegState.SENT, sent_for=("",)),))


async def test_what_a_first_attempt_will_do_is_durable_when_it_is_claimed(store: Store) -> None:
    asked: list[str] = []

    def intent(run: Run) -> Outcome:
        asked.append(run.id)
        return INTENDED

    offer = store.offer(free, intent)
    await delivered(store, hook("staging"))
    run = await offer.withdraw()
    assert run is not None
    assert run.outcome == INTENDED
    assert (await store.run(run.id)).outcome == INTENDED
    done = Outcome(legs=(LegOutcome("studio:/srv/site", "staging", state=LegState.MOVED),))
    await store.requeue(run, done, NOW, NOW, failed=False)
    again = await store.claim(NOW, (), intent)
    assert again is not None
    assert again.outcome == done, "what an earlier attempt has done is kept"
    assert asked == [run.id]


async def test_what_is_older_goes_first(store: Store) -> None:
    older = await delivered(store, hook("qa", NOW - 1))
    offer = store.offer(free)
    accepted = await delivered(store, hook("staging"))
    claimed = await offer.withdraw()
    assert claimed is not None
    assert claimed.id == older.runs[0]
    assert (await store.run(accepted.runs[0])).state is State.QUEUED


@pytest.mark.parametrize(
    ("trigger", "full"),
    [
        (hook("staging", settle=5.0, settle_most=30.0), frozenset()),
        (hook("staging", lane="studio"), frozenset({"studio"})),
    ],
    ids=["settles", "lane-is-full"],
)
async def test_a_run_that_may_not_start_yet_waits_and_the_offer_stands(
    store: Store, trigger: Trigger, full: frozenset[str]
) -> None:
    offer = store.offer(lambda: full)
    waiting = await delivered(store, trigger)
    assert (await store.run(waiting.runs[0])).state is State.QUEUED
    started = await delivered(store, hook("qa"))
    claimed = await offer.withdraw()
    assert claimed is not None
    assert claimed.id == started.runs[0]


async def test_a_backoff_is_kept(store: Store, call: Ask) -> None:
    await call(store, "staging")
    run = await store.claim(NOW)
    assert run is not None
    await store.requeue(run, Outcome(), NOW + 60, NOW, failed=True)
    offer = store.offer(free)
    await delivered(store, hook("staging"))
    assert await offer.withdraw() is None


async def test_a_hold_is_kept(store: Store, call: Ask) -> None:
    await store.hold(Hold("site", "staging", "a freeze", "ci", NOW))
    offer = store.offer(free)
    refused = await call(store, "staging")
    assert (await store.run(refused.runs[0])).state is State.FAILED
    assert await offer.withdraw() is None


async def test_a_trigger_that_joins_a_run_costs_no_claim(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = store.offer(free)
    await delivered(store, hook("staging"))
    assert await running.withdraw() is not None
    successor = await delivered(store, hook("staging", NOW + 1))
    claims: list[float] = []
    monkeypatch.setattr(lifecycle, "claim", lambda _, now, __: claims.append(now))
    offer = store.offer(free)
    for second in range(2, 6):
        assert (await delivered(store, hook("staging", NOW + second))).runs == successor.runs
    assert await offer.withdraw() is None
    assert claims == []


async def test_an_offer_that_was_withdrawn_is_not_filled(store: Store) -> None:
    offer = store.offer(free)
    assert await offer.withdraw() is None
    accepted = await delivered(store, hook("staging"))
    assert (await store.run(accepted.runs[0])).state is State.QUEUED


async def test_an_offer_that_is_withdrawn_while_it_is_filled_still_has_its_run(store: Store) -> None:
    offer = store.offer(free)
    accepting = asyncio.ensure_future(delivered(store, hook("staging")))
    await asyncio.sleep(0)
    claimed = await offer.withdraw()
    assert claimed is not None
    assert (await accepting).runs == (claimed.id,)


async def test_a_claim_that_fails_fails_no_acceptance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = lifecycle.claim

    async def half(transaction: Transaction, now: float, full: Any) -> None:
        assert await claim(transaction, now, full) is not None
        raise StoreUnavailableError("The claim fails after it has written.")

    with monkeypatch.context() as patched:
        patched.setattr(lifecycle, "claim", half)
        offer = store.offer(free)
        accepted = await delivered(store, hook("staging"))
    assert (await store.run(accepted.runs[0])).state is State.QUEUED
    started = await delivered(store, replace(hook("qa"), at=NOW + 1))
    claimed = await offer.withdraw()
    assert claimed is not None, "the offer stands again"
    assert claimed.id == accepted.runs[0]
    assert (await store.run(started.runs[0])).state is State.QUEUED


async def test_a_delivery_that_comes_again_starts_nothing_twice(store: Store) -> None:
    trigger, record = hook("staging"), DeliveryRecord(new_id(NOW), "forge", "key", NOW, 2, "", {}, {})
    first = store.offer(free)
    accepted = await store.accept([trigger], record, NOW)
    assert await first.withdraw() is not None
    second = store.offer(free)
    again = await store.accept([replace(trigger, id="again")], replace(record, id=new_id(NOW)), NOW)
    assert (again.runs, again.repeated) == (accepted.runs, True)
    assert await second.withdraw() is None


async def running(store: Store, environment: str, **more: Any) -> Run:
    await delivered(store, hook(environment, **more))
    run = await store.claim(NOW)
    assert run is not None
    assert run.environment == environment
    return run


async def test_a_run_that_ends_and_the_one_that_takes_its_place_are_one_transaction(store: Store) -> None:
    ending = await running(store, "staging")
    next_one = await delivered(store, hook("qa"))
    claimed = await store.finish_and_claim(ending, State.SUCCEEDED, INTENDED, NOW, (), lambda _: INTENDED)
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.outcome) == (next_one.runs[0], State.RUNNING, INTENDED)
    assert (await store.run(claimed.id)).state is State.RUNNING
    ended = await store.run(ending.id)
    assert (ended.state, ended.outcome) == (State.SUCCEEDED, INTENDED)


async def test_the_successor_of_a_run_that_ends_may_take_its_place(store: Store) -> None:
    ending = await running(store, "staging")
    successor = await delivered(store, hook("staging", NOW + 1))
    claimed = await store.finish_and_claim(ending, State.FAILED, Outcome(), NOW + 2)
    assert claimed is not None
    assert claimed.id == successor.runs[0]


async def test_nothing_takes_the_place_if_the_lanes_of_all_that_waits_are_full(store: Store) -> None:
    ending = await running(store, "staging", lane="studio")
    waiting = await delivered(store, hook("qa", lane="forge"))
    assert await store.finish_and_claim(ending, State.SUCCEEDED, Outcome(), NOW, ["forge"]) is None
    assert (await store.run(ending.id)).state is State.SUCCEEDED
    assert (await store.run(waiting.runs[0])).state is State.QUEUED


async def test_an_owner_that_has_lost_its_run_claims_no_other_one(store: Store) -> None:
    lost = await running(store, "staging")
    await store.requeue(lost, Outcome(), NOW + 60, NOW, failed=False)
    waiting = await delivered(store, hook("qa"))
    with pytest.raises(FencedError):
        await store.finish_and_claim(lost, State.SUCCEEDED, Outcome(), NOW)
    assert (await store.run(waiting.runs[0])).state is State.QUEUED


async def test_a_run_ends_even_if_the_claim_for_its_place_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = await running(store, "staging")

    async def fail(*_: object) -> Run:
        raise StoreUnavailableError("the disk")

    monkeypatch.setattr(lifecycle, "claim", fail)
    assert await store.finish_and_claim(ending, State.SUCCEEDED, Outcome(), NOW) is None
    assert (await store.run(ending.id)).state is State.SUCCEEDED
