"""The durable store on PostgreSQL: the queue, the deliveries and the history of several listeners.

Writes go through one connection with group commit (`writer`); questions have a few of their own, and what
other listeners did is heard on one more (`wakeups`). The rules are in `acceptance` and `lifecycle`, and the
ones that matter most in the schema itself. Runs are leased: what a listener has not been heard of for
`lifecycle.LEASE` seconds, on the server's clock, may be taken over by any other.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Concatenate, ParamSpec, TypeVar

from listener.access import Session
from listener.errors import FencedError, StoreUnavailableError
from listener.queue import Acceptance, Backlog, Hold, LogLine, Pruned, Reception, RunFilter, Signal, Standing
from listener.records import Arrival, ArrivalFilter, Refusal, Use
from listener.runs import Outcome, Run, State, Trigger
from listener.store.postgres import acceptance, history, lifecycle, pruning, records, sessions
from listener.store.postgres.schema import migrate
from listener.store.postgres.server import ANSWER_LIMIT, FAULTS, Questions, Server, away, demand_writable
from listener.store.postgres.wakeups import Wakeups
from listener.store.postgres.writer import Perform, Transaction, Writer
from listener.store.signals import Signals
from listener.store.unstored import Unstored

P = ParamSpec("P")
T = TypeVar("T")

BEGIN_LIMIT = 15.0
"""Seconds until it must be listening for the others' wake-ups."""
NOBODY = ""
"""No node."""


class PostgresStore:
    """A `RunStore` in a database of PostgreSQL, for any number of listeners.

    What a method does stands in the port (`listener.queue.RunStore`). All of them belong to the event loop in
    which the store was opened.
    """

    def __init__(self, url: str) -> None:
        self._server = Server(url)
        self._signals = Signals()
        self._unstored = Unstored()
        # Equal names would swallow each other's wake-ups and pass each other's fences.
        self._node = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"

    async def open(self) -> None:
        """Make or migrate the schema, and begin to write and to listen.

        Raise `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
        """
        await self._migrate()
        self._pool = await self._server.pool()
        self._writer = Writer(self._server, self._signals, self._node)
        self._wakeups = Wakeups(self._server, self._signals, self._node)
        try:
            async with asyncio.timeout(BEGIN_LIMIT):
                await self._wakeups.begun()
        except TimeoutError as error:
            await self.close()
            raise self._server.unavailable(error) from None

    async def close(self) -> None:
        """Carry out what is queued, give up what is not finished, and let go of the server."""
        with suppress(StoreUnavailableError):
            await self._writer.submit(lifecycle.let_go)
        await self._writer.close()
        await self._wakeups.close()
        self._pool.terminate()
        await asyncio.sleep(0)

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless the store could write."""
        await self._writer.submit(demand_writable)

    async def accept(self, triggers: Sequence[Trigger], delivery: Reception | None, now: float) -> Acceptance:
        """Store a delivery and its triggers, each with a run, and answer once that is durable."""
        return await self._writer.submit(
            lambda transaction: acceptance.accept(transaction, triggers, delivery, now),
            acceptance.claims(triggers, delivery),
        )

    async def claim(self, now: float, full: Collection[str] = ()) -> Run | None:
        """Start the first run that is due.

        A caller that is cancelled meanwhile may never learn of a run that it started; its lease expires.
        """
        return await self._writer.submit(lambda transaction: lifecycle.claim(transaction, now, full))

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Extend the leases of the runs that still are this listener's; return their ids."""
        return await self._read(lifecycle.beat, self._node, held)

    async def take_over(self, now: float) -> list[Run]:
        """Put back the runs whose lease has expired, whoever's it was."""
        return await self._take_over(NOBODY, now)

    async def next_due(self, full: Collection[str] = ()) -> float | None:
        """Return when the next waiting run that nothing else holds back is due."""
        return await self._read(history.next_due, full)

    def append(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines soon; those that can't be are tried again with the owner's next write."""
        self._unstored.add(run, lines)
        stored = self._writer.submit(
            lambda transaction: lifecycle.store_lines(transaction, run, self._unstored.of(run))
        )
        stored.add_done_callback(lambda future: self._unstored.tried(run, future))

    async def redeliver(self, delivery: str, triggers: Sequence[Trigger], now: float) -> Acceptance:
        """Store further triggers of a delivery, or raise `DeliveryNotFoundError`."""
        return await self._writer.submit(
            lambda transaction: acceptance.redeliver(transaction, delivery, triggers, now),
            acceptance.claims(triggers, None),
        )

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        """Store refusals and add uses to those of before."""
        await self._writer.submit(
            lambda transaction: records.record(transaction, refusals, uses, keep), [records.CLAIM]
        )

    async def arrivals(self, which: ArrivalFilter) -> list[Arrival]:
        """Return a page of what arrived, newest first."""
        return await self._read(records.arrivals, which)

    async def arrival(self, arrival_id: str) -> Arrival:
        """Return one arrival, or raise `DeliveryNotFoundError`."""
        return await self._read(records.arrival, arrival_id)

    async def uses(self) -> list[Use]:
        """Return every credential's uses."""
        return await self._read(records.uses)

    async def roll_back(self, trigger: Trigger, undoes: str, hold: Hold) -> Run:
        """Store a rollback with its hold and return its run, or raise `ConflictError`."""
        return await self._writer.submit(
            lambda transaction: lifecycle.roll_back(transaction, trigger, undoes, hold),
            [(trigger.site, trigger.environment)],
        )

    async def keep(self, run: Run, outcome: Outcome) -> None:
        """Make durable what a running run is about to do, or raise `FencedError`."""
        await self._writer.submit(lambda transaction: lifecycle.keep(transaction, run, outcome))

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

    async def recover(self, now: float) -> list[Run]:
        """Put back what no living listener carries out: expired leases, and whatever would be this one's."""
        return await self._take_over(self._node, now)

    async def hasten(self, now: float) -> int:
        """Let every waiting run be due; return how many waited."""
        return await self._writer.submit(lambda transaction: lifecycle.hasten(transaction, now), [])

    async def cancel(self, run_id: str, now: float, only: Collection[str] | None = None) -> Run:
        """End a waiting run; raise `ConflictError`, `RunNotFoundError` or `ForbiddenError`."""
        run = await self.run(run_id)
        return await self._writer.submit(
            lambda transaction: lifecycle.cancel(transaction, run_id, now, only),
            [(run.site, run.environment)],
        )

    async def hold(self, hold: Hold) -> None:
        """Freeze an environment and end its waiting run."""
        await self._writer.submit(
            lambda transaction: lifecycle.hold(transaction, hold), [(hold.site, hold.environment)]
        )

    async def release(self, site: str, environment: str, catch_up: Trigger | None = None) -> Hold | None:
        """Let an environment go; return the hold that was, or None."""
        return await self._writer.submit(
            lambda transaction: lifecycle.release(transaction, site, environment, catch_up),
            [(site, environment)],
        )

    async def holds(self) -> list[Hold]:
        """Return every hold."""
        return await self._read(history.holds)

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

    async def last_success(self, site: str, environment: str) -> Run | None:
        """Return the newest run that made the environment equal to live, or None."""
        return await self._read(history.last_success, site, environment)

    async def lines(self, run_id: str, after: int, limit: int = 500) -> list[LogLine]:
        """Return the stored log lines of a run beyond the sequence number `after`."""
        return await self._read(history.lines, run_id, after, limit)

    async def standing(self, run_id: str, now: float) -> Standing | None:
        """Return where a waiting run stands in the queue; None for one that does not wait."""
        return await self._read(history.standing, run_id, now)

    async def backlog(self) -> Backlog:
        """Return how many runs wait and are running, and when the oldest that waits was made."""
        return await self._read(history.backlog)

    async def prune(self, before: float, keep: int, most: int) -> Pruned:
        """Delete old runs with their lines and triggers, and old deliveries; return how many."""
        return await self._writer.submit(lambda transaction: pruning.prune(transaction, before, keep, most))

    async def begin_session(self, session: Session) -> None:
        """Keep a session."""
        await self._writer.submit(lambda transaction: sessions.begin(transaction, session))

    async def session(self, key: str) -> Session | None:
        """Return the session of a key, or None."""
        return await self._read(sessions.find, key)

    async def end_session(self, key: str) -> None:
        """Forget a session, if there is one."""
        await self._writer.submit(lambda transaction: sessions.end(transaction, key))

    async def prune_sessions(self, now: float) -> int:
        """Forget what has expired; return how many."""
        return await self._writer.submit(lambda transaction: sessions.prune(transaction, now))

    def listen(self, run_id: str) -> AbstractContextManager[Signal]:
        """Return a signal of the caller's own, set whenever the run has a new line or a new state."""
        return self._signals.listen(run_id)

    @property
    def work(self) -> Signal:
        """The signal that is set whenever a run may have become claimable."""
        return self._signals.work

    async def _migrate(self) -> None:
        try:
            connection = await self._server.connect()
            try:
                await migrate(connection)
            finally:
                connection.terminate()
                await asyncio.sleep(0)
        except FAULTS as error:
            raise self._server.refused(error) from None

    async def _take_over(self, node: str, now: float) -> list[Run]:
        taken: list[Run] = []
        while left_over := await self._read(lifecycle.left_over, node):
            back = await self._put_back(left_over, node, now)
            if not back:  # another listener was faster, or they are at work again
                break
            taken += back
        return taken

    async def _put_back(self, left_over: Mapping[str, tuple[str, str]], node: str, now: float) -> list[Run]:
        return await self._writer.submit(
            lambda transaction: lifecycle.take_over(transaction, left_over, node, now), left_over.values()
        )

    async def _read(
        self, ask: Callable[Concatenate[Questions, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask a question; one that lost its connection is asked once more on another."""
        for again in (True, False):
            try:
                async with asyncio.timeout(ANSWER_LIMIT), self._pool.acquire() as connection:
                    return await ask(Questions(connection), *args, **kwargs)
            except FAULTS as error:
                if not away(error):
                    raise
                if isinstance(error, TimeoutError) or not again:
                    raise self._server.unavailable(error) from None
        raise AssertionError

    async def _leave(self, run: Run, leave: Perform[T]) -> T:
        """Store the rest of the owner's log lines and let `leave` end its ownership, both or neither."""

        async def perform(transaction: Transaction) -> T:
            await lifecycle.store_lines(transaction, run, self._unstored.of(run))
            return await leave(transaction)

        try:
            left = await self._writer.submit(perform, [(run.site, run.environment)])
        except FencedError:
            self._unstored.forget(run)
            raise
        self._unstored.forget(run)
        return left
