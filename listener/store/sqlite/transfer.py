"""A SQLite store that is being moved: open for that alone, in one transaction."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from listener.store.sqlite import database
from listener.store.sqlite.dialect import SqliteTransaction
from listener.store.sqlite.store import recover
from listener.store.sqlite.writer import unavailable


@asynccontextmanager
async def alone(path: Path, now: float) -> AsyncIterator[SqliteTransaction]:
    """Yield a transaction over a store that no listener has open. No run in it is running.

    Raises `StoreLockedError`, `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
    """
    lock = database.FileLock(path)
    try:
        with closing(database.connect(lock.path)) as connection:
            database.migrate(connection)
            connection.execute("BEGIN IMMEDIATE")
            # A run may be copied before its successor, which it refers to.
            connection.execute("PRAGMA defer_foreign_keys = ON")
            transaction = SqliteTransaction(connection)
            await recover(transaction, now)
            yield transaction
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise unavailable(error) from error
    finally:
        lock.release()
