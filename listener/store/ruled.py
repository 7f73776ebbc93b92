"""A store whose every method is one rule. Each database has its own way to carry a rule out.

What a method does is said in its port: `listener.queue`, `listener.records`, `listener.access`,
`listener.looks`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

from listener.errors import FencedError, StoreUnavailableError
from listener.outcomes import Outcome
from listener.queue import Acceptance, DeliveryRecord, Hold, Intent, LogLine, Pruned, Signal
from listener.runs import Run, State, Trigger
from listener.store import acceptance, happened, history, lifecycle, looked, pruning, records, sessions
from listener.store.acceptance import Submission, claims
from listener.store.gathering import Gathering
from listener.store.joining import Key
from listener.store.signals import Offer, Signals
from listener.store.transaction import Query, Rule, Transaction
from listener.store.unstored import Unstored

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

Keys = Callable[[], Iterable[Key]]
"""Returns what a write must have to itself, when its transaction begins."""
OwnersWrite = Callable[[Transaction, Sequence[LogLine]], Coroutine[Any, Any, T]]

Submit = Callable[[Callable[[Transaction], Coroutine[Any, Any, Any]], Keys], asyncio.Future[Any]]
"""Queues a write that has these keys to itself."""

LINES_WAIT = 0.05
"""Seconds that a log line waits for another write of its run's owner, which takes it along for nothing."""


class Writes(Generic[P, T]):
    """A method that carries out a rule, and returns its result once that is durable.

    `keys` says what the rule must have to itself. It is given the positional arguments of the method.
    """

    def __init__(self, rule: Rule[P, T], keys: Callable[..., Iterable[Key]] | None = None) -> None:
        self._rule = rule
        self._keys = keys

    def __get__(self, store: "RuledStore", kind: type["RuledStore"]) -> Callable[P, Coroutine[Any, Any, T]]:
        return partial(self._call, store)

    async def _call(self, store: "RuledStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        keys = partial(self._keys, *args) if self._keys is not None else tuple
        rule = self._rule
        return await store._submit(lambda transaction: rule(transaction, *args, **kwargs), keys)  # noqa: SLF001


class Reads(Generic[P, T]):
    """A method that answers a query for a person or a page: it waits for no write, and has a time limit."""

    def __init__(self, query: Query[P, T]) -> None:
        self._query = query

    def __get__(self, store: "RuledStore", kind: type["RuledStore"]) -> Callable[P, Coroutine[Any, Any, T]]:
        return partial(store._read, self._query)  # noqa: SLF001 (the store's own method)


class RuledStore(ABC):
    """What both databases have in common.

    All methods belong to the event loop in which the store was opened.
    """

    _shared: ClassVar[bool]
    """Whether several listeners may use the store at the same time."""

    def __init__(self) -> None:
        self._signals = Signals()
        self._unstored = Unstored()
        self._flush: asyncio.TimerHandle | None = None
        """The write of log lines that is due, if there are any."""
        self._gathering: Gathering | None = None
        """The acceptances that wait for the writer. None while there were none."""
        self._offer: Offer | None = None
        """The worker's last one; None while there was none."""

    @abstractmethod
    def _submit(
        self, perform: Callable[[Transaction], Coroutine[Any, Any, T]], keys: Keys
    ) -> asyncio.Future[T]:
        """Queue a write. The future has its result, or its error, once that is durable.

        The write has `keys()`, environments most often, to itself. It is carried out even if the future is
        cancelled.
        """

    @abstractmethod
    def _submit_both(
        self,
        first: Callable[[Transaction], Coroutine[Any, Any, T]],
        keys: Keys,
        second: Callable[[Transaction], Coroutine[Any, Any, U]],
    ) -> tuple[asyncio.Future[T], asyncio.Future[U]]:
        """Queue two writes for one transaction. What goes wrong in the second leaves the first alone."""

    @abstractmethod
    async def _read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Answer a query for a person or a page. These have their own connections and a time limit."""

    @abstractmethod
    async def _look(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Answer a query that the worker waits for. Other readers never delay it."""

    async def _write(self, keys: Iterable[Key], rule: Rule[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._submit(lambda transaction: rule(transaction, *args, **kwargs), lambda: keys)

    redeliver = Writes(acceptance.redeliver, lambda _, triggers, now: claims(Submission(triggers, None, now)))
    roll_back = Writes(lifecycle.roll_back, lambda trigger, *_: [(trigger.site, trigger.environment)])
    claim = Writes(lifecycle.claim)
    hasten = Writes(lifecycle.hasten)
    hold = Writes(lifecycle.hold, lambda hold: [(hold.site, hold.environment)])
    record = Writes(records.record, lambda *_: [records.CLAIM])
    begin_session = Writes(sessions.begin)
    end_session = Writes(sessions.end)
    prune_sessions = Writes(sessions.prune)
    keep_looks = Writes(looked.keep, lambda _: [looked.CLAIM])
    forget_looks = Writes(looked.forget, lambda _: [looked.CLAIM])
    note_events = Writes(happened.note)

    holds = Reads(history.holds)
    run = Reads(history.run)
    runs = Reads(history.runs)
    serving = Reads(history.serving)
    triggers = Reads(history.triggers)
    last_successes = Reads(history.last_successes)
    last_failures = Reads(history.last_failures)
    lines = Reads(history.lines)
    queue_position = Reads(history.queue_position)
    backlog = Reads(history.backlog)
    kept = Reads(pruning.kept)
    arrivals = Reads(records.arrivals)
    arrival = Reads(records.arrival)
    uses = Reads(records.uses)
    session = Reads(sessions.find)
    events = Reads(happened.page)
    newest_event = Reads(happened.newest)
    events_since = Reads(happened.since)
    looks = Reads(looked.find)
    look_summaries = Reads(looked.summaries)

    async def next_due(self, full: Collection[str] = ()) -> float | None:
        """Return when the next waiting run is due that nothing else holds back."""
        return await self._look(history.next_due, full)

    async def release(self, site: str, environment: str, catch_up: Trigger | None = None) -> Hold | None:
        """Let an environment go; return the hold that was, or None."""
        return await self._write([(site, environment)], lifecycle.release, site, environment, catch_up)

    async def cancel(self, run_id: str, now: float, only: Collection[str] | None = None) -> Run:
        """End a waiting run; raise `ConflictError`, `RunNotFoundError` or `ForbiddenError`."""
        run = await self.run(run_id)
        return await self._write([(run.site, run.environment)], lifecycle.cancel, run_id, now, only)

    async def prune(self, before: float, keep: int, most: int) -> Pruned:
        """Delete old runs with their lines and triggers, and old deliveries; return how many."""
        old = await self._read(pruning.old_runs, before, keep, most)
        # First the events: their readers would miss the lines of a run that is gone.
        forgotten = await self._read(happened.horizon, before, old, keep)
        while await self._write((), happened.forget, forgotten, most) == most:
            pass
        runs = await self._write((), pruning.delete_runs, old) if old else 0
        found = await self._read(pruning.old_deliveries, before, most)
        return Pruned(runs, await self._write((), pruning.delete_arrivals, found, before, most))

    async def trim(self, keep: int, before: float, most: int) -> Pruned:
        """Bound what is kept of each hook; return how many rows that were."""
        many = await self._read(pruning.too_many, keep, most)
        old = await self._read(pruning.old_bare, before, most)
        return await self._write((), pruning.trim, many, old, before, most)

    async def accept(
        self, triggers: Sequence[Trigger], delivery: DeliveryRecord | None, now: float
    ) -> Acceptance:
        """Store a delivery and its triggers, each with a run, and answer once that is durable."""
        submission = Submission(triggers, delivery, now)
        answer: asyncio.Future[Acceptance] = asyncio.get_running_loop().create_future()
        if self._gathering is None or not self._gathering.add(submission, answer):
            gathering = Gathering()
            gathering.add(submission, answer)
            self._accept_all(gathering)
            self._gathering = gathering
        return await answer

    def _accept_all(self, gathering: Gathering) -> None:
        """Queue the write of acceptances, and with it a claim if a worker has offered its slot."""
        offer, work = self._offer, False

        async def take(transaction: Transaction) -> list[Acceptance]:
            nonlocal work
            work = False
            accepted = await acceptance.accept(transaction, gathering.take())
            work = transaction.work
            return accepted

        if offer is None or not offer.stands:
            written = self._submit(take, gathering.claims)
        else:
            full, intent = offer.full(), offer.intent

            async def claim(transaction: Transaction) -> Run | None:
                now = max(each.now for each in gathering.take())
                return await lifecycle.claim(transaction, now, full, intent) if work else None

            # Two requests in one transaction: a claim that fails must not take the deliveries with it.
            written, claimed = self._submit_both(take, gathering.claims, claim)
            offer.fill(claimed)
        written.add_done_callback(partial(self._accepted, gathering))

    def _accepted(self, gathering: Gathering, written: asyncio.Future[list[Acceptance]]) -> None:
        for alone in gathering.settle(written):
            try:
                self._accept_all(alone)
            except StoreUnavailableError as error:
                alone.fail(error)

    def offer(self, full: Callable[[], Collection[str]], intent: Intent | None = None) -> Offer:
        """Let the next acceptance claim a run, in its own transaction, until the offer is withdrawn."""
        self._offer = Offer(full, intent)
        return self._offer

    def append(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines with the owner's next write, or after `LINES_WAIT`.

        What can't be stored then is tried again with the owner's next write.
        """
        self._unstored.add(run, lines)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(LINES_WAIT, self._flush_lines)

    def _flush_lines(self) -> None:
        """Queue a write of all lines that wait for one."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        for run in self._unstored.untried():
            # A closed store takes no more lines: an owner that is still there has lost its run.
            with suppress(StoreUnavailableError):
                self._store_lines(run)

    def _store_lines(self, run: Run) -> None:
        stored = self._submit(
            lambda transaction: lifecycle.store_lines(transaction, run, self._unstored.of(run)), tuple
        )
        stored.add_done_callback(lambda future: self._unstored.tried(run, future))

    async def keep(self, run: Run, outcome: Outcome) -> None:
        """Make durable what a running run is about to do, or raise `FencedError`."""
        await self._own(run, (), lambda transaction, lines: lifecycle.keep(transaction, run, outcome, lines))

    async def finish(self, run: Run, state: State, outcome: Outcome, now: float) -> None:
        """End a running run, or raise `FencedError`."""
        await self._leave(
            run, lambda transaction, lines: lifecycle.finish(transaction, run, state, outcome, now, lines)
        )

    async def finish_and_claim(
        self,
        run: Run,
        state: State,
        outcome: Outcome,
        now: float,
        full: Collection[str] = (),
        intent: Intent | None = None,
    ) -> Run | None:
        """End a running run, or raise `FencedError`, and claim the next one in the same transaction."""
        ended: list[Transaction] = []
        claims: list[asyncio.Future[Run | None]] = []

        async def end(transaction: Transaction, lines: Sequence[LogLine]) -> None:
            # The writer may carry it out again. Then only the last time counts.
            ended.clear()
            await lifecycle.finish(transaction, run, state, outcome, now, lines)
            ended.append(transaction)

        async def claim(transaction: Transaction) -> Run | None:
            claimed = await lifecycle.claim(transaction, now, full, intent) if ended else None
            if claimed is not None and not self._shared:
                # Its place is taken again. On a shared store, others may have places for a waiting successor.
                ended[0].work = False
            return claimed

        def submit(
            perform: Callable[[Transaction], Coroutine[Any, Any, Any]], keys: Keys
        ) -> asyncio.Future[Any]:
            first, second = self._submit_both(perform, keys, claim)
            # If the run can't be ended, nobody asks what became of the claim.
            second.add_done_callback(lambda future: future.cancelled() or future.exception())
            claims.append(second)
            return first

        await self._leave(run, end, submit)
        await asyncio.wait(claims)
        return None if claims[0].exception() else claims[0].result()

    async def requeue(
        self, run: Run, outcome: Outcome, not_before: float, now: float, *, failed: bool
    ) -> Run:
        """Put a running run back into the queue and return it as it is now, or raise `FencedError`."""
        return await self._leave(
            run,
            lambda transaction, lines: lifecycle.requeue(
                transaction, run, outcome, not_before, now, lines, failed=failed
            ),
        )

    async def _leave(self, run: Run, leave: OwnersWrite[T], submit: Submit | None = None) -> T:
        """Store the rest of the owner's log lines and end its ownership: both or neither."""
        left = await self._own(run, [(run.site, run.environment)], leave, submit)
        self._unstored.forget(run)
        return left

    async def _own(
        self, run: Run, keys: Iterable[Key], write: OwnersWrite[T], submit: Submit | None = None
    ) -> T:
        """Carry out a write of a run's owner, with the log lines that wait for one."""
        lines: Sequence[LogLine] = ()

        def perform(transaction: Transaction) -> Coroutine[Any, Any, T]:
            nonlocal lines
            lines = self._unstored.of(run)
            return write(transaction, lines)

        self._unstored.taken_along(run)
        try:
            written: T = await (submit or self._submit)(perform, lambda: keys)
        except FencedError:
            self._unstored.forget(run)
            raise
        self._unstored.stored(run, lines[-1].sequence if lines else 0)
        return written

    def listen(self, run_id: str) -> AbstractContextManager[Signal]:
        """Return a signal of the caller's own, set whenever the run has a new line or a new state."""
        return self._signals.listen(run_id)

    @property
    def happening(self) -> Signal:
        """The signal that is set whenever there may be a new event."""
        return self._signals.happening

    @property
    def work(self) -> Signal:
        """The signal that is set whenever a run may have become claimable."""
        return self._signals.work
