"""The threads that read. Each has its own connection, so that no write waits for them."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from listener.errors import StoreUnavailableError
from listener.store.sqlite import database
from listener.store.sqlite.dialect import SqliteReader, step
from listener.store.sqlite.health import Health
from listener.store.sqlite.writer import translated

T = TypeVar("T")

READ_LIMIT = 10.0
"""Seconds for an answer, the wait for a thread included. The log can't start anew during a long read."""
_LOOK_EVERY = 10_000
"""The time is checked once in so many of SQLite's steps."""


class ReaderPool:
    """A number of threads that answer queries."""

    def __init__(self, path: Path, health: Health, threads: int, name: str) -> None:
        self._path = path
        self._health = health
        self._here = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def ask(self, query: Callable[[SqliteReader], Coroutine[Any, Any, T]]) -> T:
        """Return the answer; raise `StoreUnavailableError` if there is none in time."""
        until = time.monotonic() + READ_LIMIT
        try:
            asked = self._executor.submit(self._answer, query, until)
        except RuntimeError:
            raise StoreUnavailableError("The store is closed.") from None
        try:
            async with asyncio.timeout(READ_LIMIT):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            raise StoreUnavailableError(f"The store did not answer in {READ_LIMIT:.0f} s.") from None
        except sqlite3.Error as error:
            self._health.note(error)
            raise translated(error) from error

    async def close(self) -> None:
        """Answer what is queued, and close the connections."""
        await asyncio.to_thread(self._executor.shutdown)
        for connection in self._connections:
            connection.close()

    def _answer(self, query: Callable[[SqliteReader], Coroutine[Any, Any, T]], until: float) -> T:
        connection = self._connection()
        connection.set_progress_handler(lambda: time.monotonic() > until, _LOOK_EVERY)
        try:
            return step(query(SqliteReader(connection)))
        finally:
            with suppress(sqlite3.Error):
                connection.set_progress_handler(None, 0)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._here, "connection", None)
        if connection is None:
            connection = self._here.connection = database.connect(self._path)
            connection.execute("PRAGMA query_only = ON")
            self._connections.append(connection)
        return connection
