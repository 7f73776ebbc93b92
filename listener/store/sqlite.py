"""The durable store on SQLite: the queue, the deliveries and the history in one file.

Writes go through one thread with group commit (`listener.store.writer`); reads have a connection and a thread
of their own, so that they don't wait for fsyncs. The rules are in `acceptance` and `lifecycle`, and the two
that matter most in the schema itself.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from listener.access import Session
from listener.errors import FencedError, StoreUnavailableError
from listener.queue import Acceptance, Backlog, Hold, LogLine, Pruned, Reception, RunFilter, Signal, Standing
from listener.records import Arrival, ArrivalFilter, Refusal, Use
from listener.runs import Outcome, Run, State, Trigger
from listener.store import acceptance, database, history, lifecycle, pruning, records, sessions
from listener.store.signals import Signals
from listener.store.unstored import Unstored
from listener.store.writer import Transaction, Writer, translated, unavailable

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStore:
    """A `RunStore` in one SQLite file, for one listener at a time.

    What a method does stands in the port (`listener.queue.RunStore`). All of them belong to the thread of the
    event loop in which the store was opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signals = Signals()
        self._unstored = Unstored()

    async def open(self) -> None:
        """Lock the file, make or migrate it, and start the threads.

        Raise `StoreLockedError`, `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
        """
        self._lock = database.FileLock(self._path)
        try:
            self._writing, self._reading = await asyncio.to_thread(_connections, self._path)
        except BaseException:
            self._lock.release()
            raise
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._writer = Writer(self._writing, self._signals)

    async def close(self) -> None:
        """Carry out what is queued, and leave the file to the next one."""
        await self._writer.close()
        await asyncio.to_thread(self._reader.shutdown)
        self._reading.close()
        # What can't be moved out of the WAL now is durable there, and is read back at the next start.
        with suppress(sqlite3.Error):
            self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writing.close()
        self._lock.release()

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless the store could write."""
        await self._write(_touch if self._writer.failing else _look)

    async def accept(self, triggers: Sequence[Trigger], delivery: Reception | None, now: float) -> Acceptance:
        """Store a delivery and its triggers, each with a run, and answer once that is durable."""
        return await self._write(acceptance.accept, triggers, delivery, now)

    async def claim(self, now: float, full: Collection[str] = ()) -> Run | None:
        """Start the oldest run that is due.

        A caller that is cancelled meanwhile may never learn of a run that it started; `recover` finds it.
        """
        return await self._write(lifecycle.claim, now, full)

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Return the ids of the runs that are still running in the same attempt."""
        running = {(run.id, run.attempt) for run in await self._read(history.running)}
        return frozenset(run.id for run in held if (run.id, run.attempt) in running)

    async def take_over(self, now: float) -> list[Run]:
        """Return nothing: the file is locked, so there is no other listener whose runs could be left over."""
        return []

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
        return await self._write(acceptance.redeliver, delivery, triggers, now)

    async def record(self, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
        """Store refusals and add uses to those of before."""
        await self._write(records.record, refusals, uses, keep)

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
        return await self._write(lifecycle.roll_back, trigger, undoes, hold)

    async def keep(self, run: Run, outcome: Outcome) -> None:
        """Make durable what a running run is about to do, or raise `FencedError`."""
        await self._write(lifecycle.keep, run, outcome)

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
        """Put every running run back; as after `requeue`, one whose environment is held is cancelled."""
        return await self._write(lifecycle.recover, now)

    async def hasten(self, now: float) -> int:
        """Let every waiting run be due; return how many waited."""
        return await self._write(lifecycle.hasten, now)

    async def cancel(self, run_id: str, now: float, only: Collection[str] | None = None) -> Run:
        """End a waiting run; raise `ConflictError`, `RunNotFoundError` or `ForbiddenError`."""
        return await self._write(lifecycle.cancel, run_id, now, only)

    async def hold(self, hold: Hold) -> None:
        """Freeze an environment and end its waiting run."""
        await self._write(lifecycle.hold, hold)

    async def release(self, site: str, environment: str, catch_up: Trigger | None = None) -> Hold | None:
        """Let an environment go; return the hold that was, or None."""
        return await self._write(lifecycle.release, site, environment, catch_up)

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
        return await self._write(pruning.prune, before, keep, most)

    async def begin_session(self, session: Session) -> None:
        """Keep a session."""
        await self._write(sessions.begin, session)

    async def session(self, key: str) -> Session | None:
        """Return the session of a key, or None."""
        return await self._read(sessions.find, key)

    async def end_session(self, key: str) -> None:
        """Forget a session, if there is one."""
        await self._write(sessions.end, key)

    async def prune_sessions(self, now: float) -> int:
        """Forget what has expired; return how many."""
        return await self._write(sessions.prune, now)

    def listen(self, run_id: str) -> AbstractContextManager[Signal]:
        """Return a signal of the caller's own, set whenever the run has a new line or a new state."""
        return self._signals.listen(run_id)

    @property
    def work(self) -> Signal:
        """The signal that is set whenever a run may have become claimable."""
        return self._signals.work

    async def _write(
        self, perform: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._writer.submit(lambda transaction: perform(transaction, *args, **kwargs))

    async def _read(
        self, query: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            asked = self._reader.submit(query, self._reading, *args, **kwargs)
        except RuntimeError:
            raise StoreUnavailableError("The store is closed.") from None
        try:
            return await asyncio.wrap_future(asked)
        except sqlite3.Error as error:
            raise translated(error) from error

    async def _leave(self, run: Run, leave: Callable[[Transaction], T]) -> T:
        """Store the rest of the owner's log lines and let `leave` end its ownership, both or neither."""

        def perform(transaction: Transaction) -> T:
            lifecycle.store_lines(transaction, run, self._unstored.of(run))
            return leave(transaction)

        try:
            left = await self._writer.submit(perform)
        except FencedError:
            self._unstored.forget(run)
            raise
        self._unstored.forget(run)
        return left


def _connections(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Return a connection that writes, with the schema brought up to date, and one that only reads."""
    os.close(database.create(path))
    with ExitStack() as opened:
        try:
            writing = opened.enter_context(closing(database.connect(path)))
            database.migrate(writing)
            reading = opened.enter_context(closing(database.connect(path)))
            reading.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise unavailable(error) from error
        opened.pop_all()
    return writing, reading


def _look(transaction: Transaction) -> None:
    transaction.one("SELECT 1 FROM runs LIMIT 1", {})


def _touch(transaction: Transaction) -> None:
    """Write and take back: whether the disk takes anything again is not known by looking."""
    for statement in (
        "CREATE TABLE touched (bytes BLOB)",
        "INSERT INTO touched VALUES (zeroblob(1048576))",
        "DROP TABLE touched",
    ):
        transaction.execute(statement, {})
