"""A store whose every method is one rule; how a rule is carried out is its database's own affair."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from listener.access import Session
from listener.errors import FencedError
from listener.outcomes import Outcome
from listener.queue import (
    Acceptance,
    Backlog,
    DeliveryRecord,
    Hold,
    LogLine,
    Pruned,
    QueuePosition,
    RunFilter,
    Signal,
    Success,
)
from listener.records import Arrival, ArrivalFilter, Refusal, Use
from listener.runs import Run, State, Trigger
from listener.store import acceptance, history, lifecycle, pruning, records, sessions
from listener.store.acceptance import Key, claims
from listener.store.signals import Signals
from listener.store.transaction import Query, Rule, Transaction
from listener.store.unstored import Unstored

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")


class RuledStore(ABC):
    """What both databases have in common: what a method does stands in its port (`listener.queue`).

    All methods belong to the event loop in which the store was opened.
    """

    def __init__(self) -> None:
        self._signals = Signals()
        self._unstored = Unstored()

    @abstractmethod
    def _submit(
        self, perform: Callable[[Transaction], Coroutine[Any, Any, T]], keys: Iterable[Key]
    ) -> "asyncio.Future[T]":
        """Queue what writes; the future has its result, or its error, once that is durable.

        It has `keys`, environments most often, to itself. It is carried out even if the future is cancelled.
        """

    @abstractmethod
    async def _read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Answer a query of somebody who looks on: such have their own connections and a limit in time."""

    @abstractmethod
    async def _look(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Answer a query that the work waits for: those who look on never delay it."""

    async def _write(self, keys: Iterable[Key], rule: Rule[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._submit(lambda transaction: rule(transaction, *args, **kwargs), keys)

    async def accept(
        self, triggers: Sequence[Trigger], delivery: DeliveryRecord | None, now: float
    ) -> Acceptance:
        """Store a delivery and its triggers, each with a run, and answer once that is durable."""
        return await self._write(claims(triggers, delivery), acceptance.accept, triggers, delivery, now)

    async def redeliver(self, delivery: str, triggers: Sequence[Trigger], now: float) -> Acceptance:
        """Store further triggers of a delivery, or raise `DeliveryNotFoundError`."""
        return await self._write(claims(triggers, None), acceptance.redeliver, delivery, triggers, now)

    async def roll_back(self, trigger: Trigger, undoes: str, hold: Hold) -> Run:
        """Store a rollback with its hold and return its run, or raise `ConflictError`."""
        return await self._write(claims([trigger], None), lifecycle.roll_back, trigger, undoes, hold)

    async def claim(self, now: float, full: Collection[str] = ()) -> Run | None:
        """Start the first run that is due.

        A caller that is cancelled meanwhile may never learn of a run that it started: `recover` finds it, or
        its lease expires.
        """
        return await self._write((), lifecycle.claim, now, full)

    async def next_due(self, full: Collection[str] = ()) -> float | None:
        """Return when the next waiting run that nothing else holds back is due."""
        return await self._look(history.next_due, full)

    def append(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines soon; those that can't be are tried again with the owner's next write."""
        self._unstored.add(run, lines)
        stored = self._submit(
            lambda transaction: lifecycle.store_lines(transaction, run, self._unstored.of(run)), ()
        )
        stored.add_done_callback(lambda future: self._unstored.tried(run, future))

    async def keep(self, run: Run, outcome: Outcome) -> None:
        """Make durable what a running run is about to do, or raise `FencedError`."""
        await self._write((), lifecycle.keep, run, outcome)

    async def finish(self, run: Run, state: State, outcome: Outcome, now: float) -> None:
        """End a running run, or raise `FencedError`."""
        await self._leave(run, lambda transaction: lifecycle.finish(transaction, run, state, outcome, now))

    async def requeue(
        self, run: Run, outcome: Outcome, not_before: float, now: float, *, failed: bool
    ) -> Run:
        """Put a running run back into the queue and return it as it is now, or raise `FencedError`."""
        return await self._leave(
            run,
            lambda transaction: lifecycle.requeue(transaction, run, outcome, not_before, now, failed=failed),
        )

    async def hasten(self, now: float) -> int:
        """Let every waiting run be due; return how many waited."""
        return await self._write((), lifecycle.hasten, now)

    async def cancel(self, run_id: str, now: float, only: Collection[str] | None = None) -> Run:
        """End a waiting run; raise `ConflictError`, `RunNotFoundError` or `ForbiddenError`."""
        run = await self.run(run_id)
        return await self._write([(run.site, run.environment)], lifecycle.cancel, run_id, now, only)

    async def hold(self, hold: Hold) -> None:
        """Freeze an environment and end its waiting run."""
        await self._write([(hold.site, hold.environment)], lifecycle.hold, hold)

    async def release(self, site: str, environment: str, catch_up: Trigger | None = None) -> Hold | None:
        """Let an environment go; return the hold that was, or None."""
        return await self._write([(site, environment)], lifecycle.release, site, environment, catch_up)

    async def holds(self, sites: Collection[str] | None = None) -> list[Hold]:
        """Return the holds of these sites, or every hold."""
        return await self._read(history.holds, sites)

    async def run(self, run_id: str) -> Run:
        """Return a run, or raise `RunNotFoundError`."""
        return await self._read(history.run, run_id)

    async def runs(self, which: RunFilter) -> list[Run]:
        """Return a page of the history, newest first."""
        return await self._read(history.runs, which)

    async def serving(self, trigger_id: str) -> Run:
        """Return the run that serves a trigger now, or raise `RunNotFoundError`."""
        return await self._read(history.serving, trigger_id)

    async def triggers(self, run_id: str) -> list[Trigger]:
        """Return the triggers that a run serves, oldest first."""
        return await self._read(history.triggers, run_id)

    async def last_successes(
        self, environments: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], Success]:
        """Return the last success of each of these sites and environments that has one."""
        return await self._read(history.last_successes, environments)

    async def lines(self, run_id: str, after: int, limit: int = 500) -> list[LogLine]:
        """Return the stored log lines of a run beyond the sequence number `after`."""
        return await self._read(history.lines, run_id, after, limit)

    async def queue_position(self, run_id: str, now: float) -> QueuePosition | None:
        """Return where a waiting run stands in the queue; None for one that does not wait."""
        return await self._read(history.queue_position, run_id, now)

    async def backlog(self) -> Backlog:
        """Return how many runs wait and are running, and when the oldest that waits was made."""
        return await self._read(history.backlog)

    async def prune(self, before: float, keep: int, most: int) -> Pruned:
        """Delete old runs with their lines and triggers, and old deliveries; return how many."""
        old = await self._read(pruning.old_runs, before, keep, most)
        runs = await self._write((), pruning.delete_runs, old) if old else 0
        found = await self._read(pruning.old_deliveries, before, most)
        return Pruned(runs, await self._write((), pruning.delete_arrivals, found, before, most))

    async def trim(self, keep: int, before: float, most: int) -> Pruned:
        """Bound what is kept of each hook; return how many rows that were."""
        many = await self._read(pruning.too_many, keep, most)
        old = await self._read(pruning.old_bare, before, most)
        return await self._write((), pruning.trim, many, old, before, most)

    async def kept(self, most: int) -> Mapping[str, int]:
        """Return how many deliveries of each hook are kept with all that they said, counted up to `most`."""
        return await self._read(pruning.kept, most)

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        """Store refusals and add uses to those of before."""
        await self._write([records.CLAIM], records.record, refusals, uses, keep)

    async def arrivals(self, which: ArrivalFilter) -> list[Arrival]:
        """Return a page of what arrived, newest first."""
        return await self._read(records.arrivals, which)

    async def arrival(self, arrival_id: str) -> Arrival:
        """Return one arrival, or raise `DeliveryNotFoundError`."""
        return await self._read(records.arrival, arrival_id)

    async def uses(self) -> list[Use]:
        """Return every credential's uses."""
        return await self._read(records.uses)

    async def begin_session(self, session: Session) -> None:
        """Keep a session."""
        await self._write((), sessions.begin, session)

    async def session(self, key: str) -> Session | None:
        """Return the session of a key, or None."""
        return await self._read(sessions.find, key)

    async def end_session(self, key: str) -> None:
        """Forget a session, if there is one."""
        await self._write((), sessions.end, key)

    async def prune_sessions(self, now: float) -> int:
        """Forget what has expired; return how many."""
        return await self._write((), sessions.prune, now)

    def listen(self, run_id: str) -> AbstractContextManager[Signal]:
        """Return a signal of the caller's own, set whenever the run has a new line or a new state."""
        return self._signals.listen(run_id)

    @property
    def work(self) -> Signal:
        """The signal that is set whenever a run may have become claimable."""
        return self._signals.work

    async def _leave(self, run: Run, leave: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        """Store the rest of the owner's log lines and let `leave` end its ownership, both or neither."""

        async def perform(transaction: Transaction) -> T:
            if unstored := self._unstored.of(run):
                await lifecycle.store_lines(transaction, run, unstored)
            return await leave(transaction)

        try:
            left = await self._submit(perform, [(run.site, run.environment)])
        except FencedError:
            self._unstored.forget(run)
            raise
        self._unstored.forget(run)
        return left
