"""The one connection that writes, and its group commit.

A durable commit costs an fsync and round trips, however much it contains. Requests queue up while a commit
is under way, the next transaction takes all of them, and nobody is answered before the commit. Within it,
requests are carried out one after another. If one aborts the transaction, each gets a transaction of its own.

Other listeners write at the same time. Advisory locks on environments keep their writes apart. A transaction
takes them at its beginning: so a rule may look first and write then. It takes them in sorted order: else two
batches could wait for each other for ever.
"""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from listener.errors import ListenerError, StoreUnavailableError
from listener.events import Happened
from listener.store.happened import COLUMNS, rows_of
from listener.store.postgres.schema import LOCK
from listener.store.postgres.server import PostgresReader, Server, away
from listener.store.rows import Row
from listener.store.signals import Signals
from listener.store.transaction import NOTHING, Values

T = TypeVar("T")

CHANNEL = "sync_staging"
"""The channel of notifications: the node, then the id of a changed run, or nothing for new work."""
EVENTS_ONLY = "*"
"""Stands in a notification for no run: something else has happened."""
BATCH = 250
"""The most requests in one transaction: others may wait for its locks."""
BATCH_LIMIT = 20.0
"""Seconds for a batch, with the round trips to the server."""
TRIES = 4
"""How often a request is tried that loses a race against another listener."""

_STRIPES = 1024
_LOCK = "SELECT pg_advisory_xact_lock(:lock, stripe) FROM unnest(:stripes::integer[]) AS stripe"
_NOTIFY = "SELECT pg_notify(:channel, heard) FROM unnest(:heard::text[]) AS heard"
_TELL = f"""
WITH events_of_commit AS (
    INSERT INTO events (batch, number, at, {", ".join(COLUMNS)})
    SELECT txid_current(), e.number, :at::float8, {", ".join(f"e.{name}" for name in COLUMNS)}
    FROM unnest(
        :kind::text[], :site::text[], :environment::text[], :reference::text[], :first::integer[],
        :last::integer[], :text::text[]
    ) WITH ORDINALITY AS e ({", ".join(COLUMNS)}, number)
)
{_NOTIFY}
"""  # noqa: S608 (ours)

_RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCachedStatementError,
)


class PostgresTransaction(PostgresReader):
    """The part of one request in a batch, and whom to wake after the commit."""

    def __init__(self, connection: asyncpg.Connection, node: str) -> None:
        super().__init__(connection)
        self.node = node
        """The listener that writes."""
        self.changed: set[str] = set()
        """The runs that have a new state or new lines."""
        self.work = False
        """Whether a run may have become claimable."""
        self.happened = list[Happened]()
        """Its events."""
        self.wrote = False
        """Whether anything was written that an error would have to undo."""

    async def write(self, sql: str, values: Values = NOTHING) -> None:
        """Run a statement that changes something."""
        self.wrote = True
        await self.all(sql, values)

    async def change(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Run a statement that may change something; return the rows that it returns."""
        changed = await self.all(sql, values)
        self.wrote |= bool(changed)
        return changed

    async def many(self, sql: str, rows: Sequence[Values]) -> None:
        """Run a statement that changes something once for each of the rows."""
        self.wrote = True
        await super().many(sql, rows)


Perform = Callable[[PostgresTransaction], Awaitable[T]]
Keys = Callable[[], Iterable[tuple[str, str]]]


@dataclass(slots=True)
class _Request:
    perform: Perform[Any]
    claims: Keys
    future: asyncio.Future[Any]
    transaction: PostgresTransaction | None = None
    result: Any = None
    error: Exception | None = None
    settled: bool = field(default=False)
    """Whether result or error is final."""


class Writer:
    """Carries out requests in their order. One transaction takes all that wait, up to `BATCH`."""

    def __init__(self, server: Server, signals: Signals, node: str) -> None:
        self._server = server
        self._signals = signals
        self._node = node
        self._queue: asyncio.Queue[list[_Request] | None] = asyncio.Queue()
        self._connection: asyncpg.Connection | None = None
        self._closed = False
        self._running = asyncio.create_task(self._run(), name="store writer")

    def submit(self, perform: Perform[T], keys: Keys = tuple) -> asyncio.Future[T]:
        """Queue `perform`. The future has its result, or its error, once the batch is committed.

        It has `keys()`, environments most often, to itself; they are asked for when its transaction begins.
        It may be carried out more than once: the last time counts. It is carried out even if the future is
        cancelled. Raise `StoreUnavailableError` after `close`.
        """
        (future,) = self.submit_together((perform, keys))
        return future

    def submit_together(self, *writes: tuple[Perform[Any], Keys]) -> list[asyncio.Future[Any]]:
        """Queue several for the same batch. Each is a request like those of `submit`."""
        if self._closed:
            raise StoreUnavailableError("The store is closed.")
        loop = asyncio.get_running_loop()
        requests = [_Request(perform, keys, loop.create_future()) for perform, keys in writes]
        self._queue.put_nowait(requests)
        return [request.future for request in requests]

    async def close(self) -> None:
        """Take no more requests, carry out what is queued, and close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put_nowait(None)
        await asyncio.shield(self._running)
        await self._drop()

    async def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = await self._next_batch()
            if batch:
                await self._carry_out(batch)
                self._answer(batch)

    async def _next_batch(self) -> tuple[list[_Request], bool]:
        """Wait for a request; return it with all that wait behind it, and whether this is the last batch."""
        batch: list[_Request] = []
        requests = await self._queue.get()
        with suppress(asyncio.QueueEmpty):
            while requests is not None:
                batch += requests
                if len(batch) >= BATCH:
                    break
                requests = self._queue.get_nowait()
        return batch, requests is None

    async def _carry_out(self, batch: Sequence[_Request]) -> None:
        try:
            async with asyncio.timeout(BATCH_LIMIT):
                await self._commit(await self._connected(), batch)
        except Exception as error:  # noqa: BLE001 (the callers get the error, and the writer goes on)
            await self._drop()
            raised = self._server.unavailable(error) if away(error) else error
            for request in batch:
                if not request.settled:
                    request.error = raised

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._server.connect()
        return self._connection

    async def _drop(self) -> None:
        """Close the connection at once, whatever it is doing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # It is not used any more, and the writer must go on.
                connection.terminate()
            # The transport is closed in the next turn of the loop.
            await asyncio.sleep(0)

    async def _commit(self, connection: asyncpg.Connection, batch: Sequence[_Request]) -> None:
        if len(batch) > 1:
            try:
                await self._together(connection, batch)
            except Exception as error:
                if away(error):
                    raise
            else:
                return
        for request in batch:
            await self._alone(connection, request)

    async def _alone(self, connection: asyncpg.Connection, request: _Request) -> None:
        """Carry out a request in a transaction of its own, and again if it loses a race."""
        for tries_left in reversed(range(TRIES)):
            try:
                await self._together(connection, [request])
            except Exception as error:
                if away(error):
                    raise
                if isinstance(error, _RACES) and tries_left:
                    continue
                request.error, request.settled = error, True
            return

    async def _together(self, connection: asyncpg.Connection, batch: Sequence[_Request]) -> None:
        """Carry requests out in one transaction, all of them or none."""
        stripes = sorted({_stripe(key) for request in batch for key in request.claims()})
        async with connection.transaction():
            if stripes:
                await PostgresReader(connection).all(_LOCK, {"lock": LOCK, "stripes": stripes})
            for request in batch:
                await self._perform(connection, request)
            await self._tell(PostgresReader(connection), batch)
        for request in batch:
            request.settled = True

    async def _tell(self, connection: PostgresReader, batch: Iterable[_Request]) -> None:
        """Store the events of a batch and notify the other listeners, in one statement."""
        done = [one.transaction for one in batch if one.transaction is not None and one.error is None]
        happened = [each for transaction in done for each in transaction.happened]
        values: dict[str, Any] = {"channel": CHANNEL, "heard": sorted(set().union(*map(self._news, done)))}
        if happened:
            columns = zip(*rows_of(happened), strict=True)
            values |= {"at": time.time(), **dict(zip(COLUMNS, map(list, columns), strict=True))}
        if values["heard"]:
            await connection.all(_TELL if happened else _NOTIFY, values)

    async def _perform(self, connection: asyncpg.Connection, request: _Request) -> None:
        """Carry out one request. If it fails before it has written, the others are not affected."""
        request.transaction = transaction = PostgresTransaction(connection, self._node)
        request.error = None
        try:
            request.result = await request.perform(transaction)
        except ListenerError as error:
            if transaction.wrote:
                raise
            request.error = error

    def _news(self, transaction: PostgresTransaction) -> set[str]:
        """Return the notifications for a request that was carried out."""
        changed = transaction.changed | ({""} if transaction.work else set())
        if transaction.happened and not changed:
            changed = {EVENTS_ONLY}
        return {f"{self._node} {run_id}" for run_id in changed}

    def _answer(self, batch: Iterable[_Request]) -> None:
        """Set the signals of this listener, and answer a whole batch."""
        for request in batch:
            done = request.error is None
            if done and request.transaction is not None:
                made = request.transaction
                self._signals.ring(made.changed, work=made.work, happened=bool(made.happened))
            if request.future.cancelled():
                continue
            if done:
                request.future.set_result(request.result)
            else:
                assert request.error is not None  # noqa: S101 (a request without an error is done)
                request.future.set_exception(request.error)


def _stripe(environment: tuple[str, str]) -> int:
    """Return the second key of an environment's advisory lock. Some share one, and wait for each other."""
    return 1 + zlib.crc32("\0".join(environment).encode("utf-8", "replace")) % _STRIPES
