"""Whether the database file is sound and in its place. If not, nothing is written, and `/readyz` says why."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from listener.errors import StoreUnavailableError
from listener.store.sqlite import database

QUICK_LIMIT = 1.0
"""Seconds for checking a file with a leftover write-ahead log, before the start goes on."""
REMEDY = "run sync-staging store check; stop the listener and run sync-staging store restore with a backup"
_LOOK_EVERY = 10_000
CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Health:
    """What is known about the file of a locked store. Any thread may use it."""

    def __init__(self, lock: database.FileLock) -> None:
        self._lock = lock
        self._damage = ""
        self._ended = threading.Event()

    @property
    def damaged(self) -> bool:
        """Whether the file is known to be damaged."""
        return bool(self._damage)

    def demand(self) -> None:
        """Raise `StoreUnavailableError` unless the file may be written to."""
        if self._damage:
            raise StoreUnavailableError(f"The store is damaged ({self._damage}): {REMEDY}.", remedy=REMEDY)
        if not self._lock.in_place():
            raise StoreUnavailableError(
                f"The store's file is not at {self._lock.path} any more. What is written now would be lost.",
                remedy="move it back, or restart the listener, which then uses the file at this path",
            )

    def note(self, error: Exception) -> None:
        """Remember it if an error says that the file is damaged."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in CORRUPT and not self._damage:
            self._damage = str(error)

    def look(self, *, log_left: bool) -> None:
        """Check what takes constant time. If a log was left beside it, check the file for up to a second.

        SQLite applies a leftover log to the file without checking that it belongs to it. After a `cp` over a
        store, it does not.
        """
        until = time.monotonic() + QUICK_LIMIT
        for name, connection in self._tables(lambda: time.monotonic() > until):
            self._ask(connection, f"SELECT * FROM {name} LIMIT 1")  # noqa: S608 (the schema's own names)
            if log_left:
                self._ask(connection, f"PRAGMA quick_check({name})")

    async def examine(self) -> None:
        """Check the whole file, table by table, in another thread."""
        try:
            await asyncio.to_thread(self._examine)
        finally:
            self._ended.set()

    def _examine(self) -> None:
        for name, connection in self._tables(self._ended.is_set):
            self._ask(connection, f"PRAGMA quick_check({name})")

    def _tables(self, enough: Callable[[], bool]) -> Iterator[tuple[str, sqlite3.Connection]]:
        """Yield the name of each table, with a connection that stops once `enough` returns True."""
        with closing(database.connect(self._lock.path)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.set_progress_handler(lambda: int(enough()), _LOOK_EVERY)
            try:
                tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            except sqlite3.Error as error:
                self.note(error)
                return
            yield from ((str(row["name"]), connection) for row in tables)

    def _ask(self, connection: sqlite3.Connection, sql: str) -> None:
        try:
            rows = connection.execute(sql).fetchall()
        except sqlite3.Error as error:
            self.note(error)
        else:
            if sql.startswith("PRAGMA") and rows and rows[0][0] != "ok" and not self._damage:
                self._damage = str(rows[0][0])


def log_left(path: Path) -> bool:
    """Return whether a write-ahead log was left beside a file that is not open."""
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0
