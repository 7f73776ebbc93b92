"""The durable store on SQLite: the queue, the deliveries and the history in one file.

Writes go through one thread with group commit (`writer`). Reads have their own threads and connections
(`readers`). The rules are in `listener.store`. The two most important ones are unique indexes of the schema.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from listener.runs import Run
from listener.store import history, lifecycle
from listener.store.copying import demand_unmoved
from listener.store.ruled import Keys, RuledStore
from listener.store.sqlite import database
from listener.store.sqlite.dialect import SqliteReader, step
from listener.store.sqlite.health import Health, log_left
from listener.store.sqlite.readers import ReaderPool
from listener.store.sqlite.writer import Writer, unavailable
from listener.store.transaction import Query, Transaction

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

READERS = 3
"""Threads for pages and API calls. One more answers the worker, so that they never delay it."""


class SqliteStore(RuledStore):
    """A `RunStore` in one SQLite file, for one listener at a time."""

    _shared = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def open(self) -> None:
        """Lock the file, create or migrate it, and start the threads.

        Raise `StoreLockedError`, `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
        """
        self._lock = database.FileLock(self._path)
        path = self._lock.path
        self._health = Health(self._lock)
        try:
            self._writing = await asyncio.to_thread(_connection, path, self._health)
        except BaseException:
            self._lock.release()
            raise
        self._readers = ReaderPool(path, self._health, READERS, "store-reader")
        self._lookout = ReaderPool(path, self._health, 1, "store-lookout")
        log = path.with_name(path.name + "-wal")
        self._writer = Writer(self._writing, self._signals, self._health, log)

    async def close(self) -> None:
        """Carry out what is queued, and release the file."""
        self._flush_lines()
        await self._writer.close()
        for readers in (self._readers, self._lookout):
            await readers.close()
        # What stays in the log is durable there, and the next start reads it.
        with suppress(sqlite3.Error):
            self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writing.close()
        self._lock.release()

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` if the store can't write, or is known to be damaged."""
        self._flush_lines()
        await self._write((), _touch if self._writer.failing else _glance)

    async def examine(self) -> None:
        """Check the whole file once. `ping` raises what is found."""
        await self._health.examine()

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Return the ids of the runs that are still running in the same attempt."""
        running = {(run.id, run.attempt) for run in await self._look(history.running)}
        return frozenset(run.id for run in held if (run.id, run.attempt) in running)

    async def take_over(self, now: float) -> list[Run]:
        """Return nothing: the file is locked, so no other listener can have left runs."""
        return []

    async def recover(self, now: float) -> list[Run]:
        """Put every running run back. As with `requeue`, it is cancelled if its environment is on hold."""
        return [] if self._health.damaged else await self._write((), recover, now)

    def _submit(
        self, perform: Callable[[Transaction], Coroutine[Any, Any, T]], keys: Keys
    ) -> asyncio.Future[T]:
        return self._writer.submit(perform)

    def _submit_both(
        self,
        first: Callable[[Transaction], Coroutine[Any, Any, T]],
        keys: Keys,
        second: Callable[[Transaction], Coroutine[Any, Any, U]],
    ) -> tuple[asyncio.Future[T], asyncio.Future[U]]:
        one, other = self._writer.submit_together(first, second)
        return one, other

    async def _read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._readers.ask(lambda reader: query(reader, *args, **kwargs))

    async def _look(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._lookout.ask(lambda reader: query(reader, *args, **kwargs))


def _connection(path: Path, health: Health) -> sqlite3.Connection:
    """Return the connection that writes, with a migrated schema and a checked file."""
    left = log_left(path)
    try:
        connection = database.connect(path)
        try:
            database.migrate(connection)
            # A savepoint keeps the pages that it may have to restore. Beyond 64 KiB, which an acceptance
            # reaches, it would write a temporary file for each request. Set after the migrations: these sort
            # whole tables, for which memory may not be enough.
            connection.execute("PRAGMA temp_store = MEMORY")
            health.look(log_left=left)
            # Nothing is written to a damaged store, so it does not matter if it was moved.
            if not health.damaged:
                step(demand_unmoved(SqliteReader(connection)))
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unavailable(error) from error
    return connection


async def recover(transaction: Transaction, now: float) -> list[Run]:
    """Put back the runs that a dead listener left running. This does not count as a failure."""
    await lifecycle.mend_times(transaction, now)
    orphans = await history.running(transaction)
    return [
        await lifecycle.put_back(transaction, run, transaction.node, run.outcome, run.not_before, now)
        for run in orphans
    ]


async def _glance(transaction: Transaction) -> None:
    await transaction.one("SELECT 1 FROM runs LIMIT 1")


async def _touch(transaction: Transaction) -> None:
    """Write, and undo it: only a write shows that the disk takes writes again."""
    for statement in (
        "CREATE TABLE touched (bytes BLOB)",
        "INSERT INTO touched VALUES (zeroblob(1048576))",
        "DROP TABLE touched",
    ):
        await transaction.write(statement)
