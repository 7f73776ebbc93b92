"""The one thread that writes, and its group commit.

A durable commit costs an fsync, however much it contains. Requests queue up while a commit is under way, and
the next transaction takes all of them. Nobody is answered before the commit: an earlier answer could be for
something that a power cut takes back.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from listener.errors import StoreUnavailableError
from listener.store.happened import COLUMNS, rows_of
from listener.store.signals import Signals
from listener.store.sqlite.database import LOCK_WAIT_MS, LOG_LIMIT
from listener.store.sqlite.dialect import SqliteTransaction, step
from listener.store.sqlite.health import CORRUPT, REMEDY, Health

T = TypeVar("T")

SHORTEN_WAIT_MS = 100
"""Milliseconds that the writer waits for readers when it starts its log anew."""

_NEXT_BATCH = "SELECT coalesce(max(batch), 0) + 1 FROM events"
_NEW_EVENT = f"""
INSERT INTO events (batch, number, at, {", ".join(COLUMNS)})
VALUES (:batch, :number, :at, {", ".join(f":{name}" for name in COLUMNS)})
"""  # noqa: S608 (ours)

Perform = Callable[[SqliteTransaction], Coroutine[Any, Any, T]]


@dataclass(slots=True)
class _Request:
    perform: Perform[Any]
    future: asyncio.Future[Any]
    transaction: SqliteTransaction
    result: Any = None
    error: Exception | None = None


class Writer:
    """Carries out requests in their order. One transaction takes all that wait."""

    def __init__(self, connection: sqlite3.Connection, signals: Signals, health: Health, log: Path) -> None:
        self._connection = connection
        self._health = health
        self._log = log
        self._log_most = LOG_LIMIT
        self._signals = signals
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[_Request] | None] = SimpleQueue()
        self._closed = False
        self.failing = False
        """Whether a part of the last batch could not be written."""
        # A daemon thread: a program that ends without closing its store must not hang.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, perform: Perform[T]) -> asyncio.Future[T]:
        """Queue `perform`. The future has its result, or its error, once the batch is committed.

        It is carried out even if the future is cancelled. Raise `StoreUnavailableError` after `close`.
        """
        (future,) = self.submit_together(perform)
        return future

    def submit_together(self, *performs: Perform[Any]) -> list[asyncio.Future[Any]]:
        """Queue several for the same batch. Each is a request like those of `submit`."""
        if self._closed:
            raise StoreUnavailableError("The store is closed.")
        requests = [
            _Request(perform, self._loop.create_future(), SqliteTransaction(self._connection))
            for perform in performs
        ]
        # As one item of the queue: the thread could take the first of two, and commit it alone.
        self._queue.put(requests)
        return [request.future for request in requests]

    async def close(self) -> None:
        """Take nothing more, carry out what is queued, and end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next_batch()
            if batch:
                self._commit(batch)
                # If the loop is closed, nobody is left to be answered.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._answer, batch)
                self._shorten_log()

    def _next_batch(self) -> tuple[list[_Request], bool]:
        """Wait for a request; return it with all that wait behind it, and whether this is the last batch."""
        batch: list[_Request] = []
        requests = self._queue.get()
        with suppress(Empty):
            while requests is not None:
                batch += requests
                requests = self._queue.get_nowait()
        return batch, requests is None

    def _commit(self, batch: list[_Request]) -> None:
        try:
            self._health.demand()
            self._connection.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._perform(request, first=request is batch[0])
            self._store_events(batch)
            self._connection.execute("COMMIT")
            self.failing = any(isinstance(request.error, StoreUnavailableError) for request in batch)
        except Exception as error:  # noqa: BLE001 (the callers get the error, and the thread goes on)
            self.failing = True
            self._health.note(error)
            self._roll_back()
            for request in batch:
                request.error = unavailable(error) if isinstance(error, sqlite3.Error) else error

    def _store_events(self, batch: Iterable[_Request]) -> None:
        """Store the events of all requests that have not failed, as those of this commit."""
        happened = [each for one in batch if one.error is None for each in one.transaction.happened]
        if happened:
            (number,) = self._connection.execute(_NEXT_BATCH).fetchone()
            commit = {"batch": number, "at": time.time()}
            rows = [
                {**commit, "number": place, **dict(zip(COLUMNS, row, strict=True))}
                for place, row in enumerate(rows_of(happened), 1)
            ]
            step(SqliteTransaction(self._connection).many(_NEW_EVENT, rows))

    def _perform(self, request: _Request, *, first: bool) -> None:
        """Carry out one request. If it fails, undo what it wrote; the other requests are not affected.

        Raise if SQLite has rolled back the whole transaction, as it may when the disk is full. The first
        request needs no savepoint, which would copy each page that it changes: nothing is before it.
        """
        if not first:
            self._connection.execute("SAVEPOINT request")
        try:
            request.result = step(request.perform(request.transaction))
        except Exception as error:
            # The caller gets the error: a defect in one request must not end the thread.
            if not self._connection.in_transaction:
                raise
            if first:
                self._connection.execute("ROLLBACK")
                # The requests behind it need a transaction, and so does the COMMIT: it fails if SQLite has
                # lost the transaction on the way, which is the only sign of that.
                self._connection.execute("BEGIN IMMEDIATE")
            else:
                self._connection.execute("ROLLBACK TO request")
            self._health.note(error)
            request.error = translated(error)
        if not first:
            self._connection.execute("RELEASE request")

    def _roll_back(self) -> None:
        # If this fails too, the next batch fails at its BEGIN, and rolls back again.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _shorten_log(self) -> None:
        """Start the write-ahead log anew once it is long. Overlapping readers would let it grow for ever.

        A long reader, such as a backup, is not waited for. The next try is after as much growth again.
        """
        with suppress(Exception):  # Nobody awaits this, and the thread must go on.
            length = self._log.stat().st_size
            if length < self._log_most:
                return
            self._connection.execute(f"PRAGMA busy_timeout = {SHORTEN_WAIT_MS}")
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._log_most = length + LOG_LIMIT if busy else LOG_LIMIT
            self._connection.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_MS}")

    def _answer(self, batch: Iterable[_Request]) -> None:
        """Answer a whole batch, in the thread of the event loop."""
        for request in batch:
            if request.error is None:
                made = request.transaction
                self._signals.ring(made.changed, work=made.work, happened=bool(made.happened))
            if request.future.cancelled():
                continue
            if request.error is None:
                request.future.set_result(request.result)
            else:
                request.future.set_exception(request.error)


def unavailable(error: sqlite3.Error) -> StoreUnavailableError:
    """Return the error with the message of SQLite."""
    whole = getattr(error, "sqlite_errorcode", 0) & 0xFF not in CORRUPT
    raised = StoreUnavailableError(
        f"The store does not answer: {error}",
        remedy="check that the disk of the store is not full and not read-only" if whole else REMEDY,
    )
    raised.__cause__ = error
    return raised


def translated(error: Exception) -> Exception:
    """Return the error for the callers of the port: a failure of the database is a `StoreUnavailableError`.

    A violated constraint or a wrong statement stays as it is: a defect that no retry heals.
    """
    if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
        return unavailable(error)
    return error
