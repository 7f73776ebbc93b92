"""Any order of events keeps the store's rules: real databases against a model of a few dictionaries."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from listener.outcomes import Outcome
from listener.queue import DeliveryRecord, Hold, LogLine, RunFilter
from listener.runs import EXPLICIT, Origin, Run, State, Trigger, new_id
from listener.store import Store, open_store

T = TypeVar("T")

ENVIRONMENTS = ("qa", "staging")
CLEARING_PAUSE = 5.0

environments = st.sampled_from(ENVIRONMENTS)
delays = st.sampled_from((0.0, 1.0, 7.0))
lost = frozenset({State.FAILED, State.CANCELLED})


class AnyOrder(RuleBasedStateMachine):
    """Two environments of one site, a handful of deliveries that repeat, and one worker."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.now = 1_700_000_000.0
        self.runner = asyncio.Runner()
        self.store = self.opened()
        self.states: dict[str, State] = {}
        self.waiting: dict[str, str] = {}
        self.due: dict[str, float] = {}
        """When a waiting run may start by itself, whatever the backoff of its environment."""
        self.started: set[str] = set()
        self.running: dict[str, Run] = {}
        self.lines: dict[str, int] = {}
        self.held: set[str] = set()
        self.serving: dict[str, str] = {}
        self.backoffs: dict[str, float] = {}
        self.cleared: dict[str, float] = {}
        self.deliveries: dict[str, dict[str, str]] = {}
        """The latest trigger by environment of each delivery that was not ignored."""
        self.ignored: set[str] = set()

    def do(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asked)

    def opened(self) -> Store:
        store = open_store(self.url)
        self.do(store.open())
        return store

    def teardown(self) -> None:
        self.do(self.store.close())
        self.runner.close()

    def trigger(self, environment: str, origin: Origin) -> Trigger:
        self.now += 0.01
        return Trigger(new_id(self.now), "site", environment, origin, "actor", self.now)

    def served(self, trigger: Trigger, run_id: str) -> None:
        """The model of a trigger that gets the run that waits, or a new one."""
        environment = trigger.environment
        if environment in self.held:
            assert run_id not in self.states
            self.states[run_id] = State.FAILED
        elif environment in self.waiting:
            assert run_id == self.waiting[environment]
            # What has not been tried yet has no reason of its own to wait, only its predecessor's.
            if trigger.origin in EXPLICIT and run_id not in self.started:
                self.due[environment] = min(self.due[environment], self.now)
        else:
            assert run_id not in self.states
            self.states[run_id] = State.QUEUED
            self.waiting[environment] = run_id
            self.due[environment] = self.now
        self.serving[trigger.id] = run_id

    def ended(self, environment: str, state: State) -> None:
        self.states[self.running.pop(environment).id] = state

    def goes_back(self, environment: str, own: float) -> State:
        """The model of a run that leaves its owner unfinished."""
        run = self.running.pop(environment)
        state = State.QUEUED
        if environment in self.held:
            state = State.CANCELLED
        elif environment in self.waiting:
            state = State.SUPERSEDED
            successor = self.waiting[environment]
            self.due[environment] = max(self.due[environment], own)
            moved = {trigger: successor for trigger, by in self.serving.items() if by == run.id}
            self.serving.update(moved)
        else:
            self.waiting[environment] = run.id
            self.due[environment] = own
        self.states[run.id] = state
        return state

    @rule(key=st.sampled_from("abc"), selected=st.lists(environments, min_size=1, unique=True))
    def a_delivery_arrives(self, key: str, selected: list[str]) -> None:
        triggers = [self.trigger(environment, Origin.HOOK) for environment in selected]
        record = DeliveryRecord(new_id(self.now), "forge", key, self.now, 0, "", {}, {})
        answer = self.do(self.store.accept(triggers, record, self.now))
        free = {t.environment: t for t in triggers if t.environment not in self.held}
        known = self.deliveries.get(key)
        assert answer.repeated == (known is not None or (key in self.ignored and not free))
        if known is None:
            self.taken(key, free, answer.runs)
            assert bool(answer.ignored) == (not free)
            return
        runs = dict(zip(known, answer.runs, strict=True))
        for environment, old in list(known.items()):
            if environment in free and self.states[self.serving[old]] in lost:
                self.served(free[environment], runs[environment])
                known[environment] = free[environment].id
        assert answer.triggers == tuple(known.values())
        assert answer.runs == tuple(self.serving[trigger] for trigger in known.values())

    def taken(self, key: str, free: dict[str, Trigger], runs: tuple[str, ...]) -> None:
        for trigger, run_id in zip(free.values(), runs, strict=True):
            self.served(trigger, run_id)
        if free:
            self.deliveries[key] = {environment: trigger.id for environment, trigger in free.items()}
        else:
            self.ignored.add(key)

    @rule(environment=environments)
    def somebody_calls_while_a_worker_is_free(self, environment: str) -> None:
        offer = self.store.offer(frozenset)
        waiting = set(self.waiting.values())
        self.somebody_calls(environment)

        async def withdrawn() -> Run | None:
            return await offer.withdraw()

        run = self.do(withdrawn())
        if run is not None:
            self.is_claimed(run)
        else:  # nothing new is due, though what was due before may still be
            new = set(self.waiting.values()) - waiting
            due = {e for e, at in self.claimable().items() if at <= self.now}
            assert not new & {self.waiting[e] for e in due}

    @rule(environment=environments)
    def somebody_calls(self, environment: str) -> None:
        trigger = self.trigger(environment, Origin.API)
        (run_id,) = self.do(self.store.accept([trigger], None, self.now)).runs
        self.served(trigger, run_id)
        may = self.cleared.get(environment, 0.0) <= self.now - CLEARING_PAUSE
        if environment not in self.held and may and self.backoffs.get(environment, 0.0) > self.now:
            self.backoffs[environment] = self.now
            self.cleared[environment] = self.now

    def claimable(self) -> dict[str, float]:
        free = set(self.waiting) - set(self.running) - self.held
        return {e: max(self.due[e], self.backoffs.get(e, 0.0)) for e in free}

    @precondition(lambda self: self.claimable())
    @rule()
    def the_worker_claims(self) -> None:
        run = self.do(self.store.claim(self.now))
        if run is not None:
            self.is_claimed(run)
        else:
            assert not {environment for environment, at in self.claimable().items() if at <= self.now}

    def is_claimed(self, run: Run) -> None:
        """The model of a run that a worker has claimed."""
        assert self.claimable()[run.environment] <= self.now
        assert run.id == self.waiting.pop(run.environment)
        assert run.lines == self.lines.get(run.id, 0)
        self.running[run.environment] = run
        self.started.add(run.id)
        self.states[run.id] = State.RUNNING

    def has_work(self) -> bool:
        return bool(self.running or self.claimable())

    def owned(self, data: st.DataObject) -> Run:
        """Return a run that is running, after waiting for one to be due if need be."""
        if not self.running:
            self.now = max(self.now, min(self.claimable().values()))
            self.the_worker_claims()
        return self.running[data.draw(st.sampled_from(sorted(self.running)))]

    @precondition(has_work)
    @rule(data=st.data(), state=st.sampled_from((State.SUCCEEDED, State.FAILED)))
    def the_worker_finishes(self, data: st.DataObject, state: State) -> None:
        run = self.owned(data)
        self.do(self.store.finish(run, state, Outcome(), self.now))
        self.ended(run.environment, state)
        if state is State.SUCCEEDED:
            self.backoffs.pop(run.environment, None)
            self.cleared.pop(run.environment, None)

    @precondition(has_work)
    @rule(data=st.data(), delay=delays, failed=st.booleans())
    def the_worker_gives_up_for_now(self, data: st.DataObject, delay: float, failed: bool) -> None:
        run, again = self.owned(data), self.now + delay
        back = self.do(self.store.requeue(run, Outcome(), again, self.now, failed=failed))
        if failed:
            self.backoffs[run.environment] = again
        assert back.state is self.goes_back(run.environment, self.now if failed else again)
        assert (back.failures, back.looks) == (run.failures + failed, run.looks + (not failed))

    @precondition(has_work)
    @rule(data=st.data(), count=st.integers(1, 5))
    def the_worker_logs(self, data: st.DataObject, count: int) -> None:
        run = self.owned(data)
        first = self.lines.get(run.id, 0) + 1

        async def append() -> None:
            self.store.append(run, [LogLine(first + n, "{}") for n in range(count)])
            await self.store.ping()

        self.do(append())
        self.lines[run.id] = first + count - 1
        stored = self.do(self.store.lines(run.id, 0))
        assert [line.sequence for line in stored] == list(range(1, first + count))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        environment = data.draw(st.sampled_from(sorted(self.waiting)))
        run_id = self.waiting.pop(environment)
        assert self.do(self.store.cancel(run_id, self.now)).state is State.CANCELLED
        self.states[run_id] = State.CANCELLED

    @precondition(lambda self: not self.held and (self.waiting or self.running))
    @rule(environment=environments)
    def somebody_holds(self, environment: str) -> None:
        self.do(self.store.hold(Hold("site", environment, "reason", "actor", self.now)))
        self.held.add(environment)
        run_id = self.waiting.pop(environment, None)
        if run_id is not None:
            self.states[run_id] = State.CANCELLED

    @precondition(lambda self: self.held)
    @rule()
    def somebody_releases(self) -> None:
        environment = self.held.pop()
        assert self.do(self.store.release("site", environment)) is not None

    @rule(seconds=st.sampled_from((0.5, 3.0, 10.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.running)
    @rule()
    def the_listener_starts_again(self) -> None:
        self.do(self.store.close())
        self.store = self.opened()
        recovered = {run.environment: run for run in self.do(self.store.recover(self.now))}
        assert set(recovered) == set(self.running)
        for environment, run in recovered.items():
            own = self.running[environment].not_before
            assert run.state is self.goes_back(environment, own)

    @invariant()
    def every_run_is_where_the_model_has_it(self) -> None:
        history = self.do(self.store.runs(RunFilter(limit=10_000)))
        assert {run.id: run.state for run in history} == self.states
        for state, model in (
            (State.QUEUED, self.waiting),
            (State.RUNNING, {environment: run.id for environment, run in self.running.items()}),
        ):
            there = [(run.environment, run.id) for run in history if run.state is state]
            assert sorted(there) == sorted(model.items())

    @invariant()
    def every_trigger_is_served_by_the_run_that_the_model_says(self) -> None:
        for trigger, run_id in self.serving.items():
            assert self.do(self.store.serving(trigger)).id == run_id

    @invariant()
    def the_next_due_time_is_the_earliest_claimable_one(self) -> None:
        due, expected = self.do(self.store.next_due()), min(self.claimable().values(), default=None)
        if expected is not None and expected <= self.now:
            assert due is not None
            assert due <= self.now, "one is due already, whichever"
        else:
            assert due == expected


EXAMPLES = int(os.environ.get("SYNC_STAGING_ORDERS", "3"))
"""How many orders of events each part draws; more in the long form."""

# Shrinking a failure takes long; forty steps can be read as they are.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.mark.parametrize("part", range(3))
def test_any_order_of_events_keeps_the_rules(new_store: Callable[[], str], part: int) -> None:
    class OnANewStore(AnyOrder):
        def __init__(self) -> None:
            super().__init__(new_store())

    limits = settings(
        max_examples=EXAMPLES,
        stateful_step_count=40,
        deadline=None,
        phases=PHASES,
    )
    run_state_machine_as_test(OnANewStore, settings=limits)
