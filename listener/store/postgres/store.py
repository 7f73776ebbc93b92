"""The durable store on PostgreSQL: the queue, the deliveries and the history of several listeners.

Writes go through one connection with group commit (`writer`). Reads have a few connections of their own, and
one more listens to the other listeners (`wakeups`). The rules are in `listener.store`. The most important
ones are unique indexes of the schema. Runs are leased: if a listener does not extend a lease for
`lifecycle.LEASE` seconds, on the clock of the server, any other listener may take the run over.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import asyncpg

from listener.errors import StoreError, StoreUnavailableError
from listener.runs import Run
from listener.store import happened, lifecycle
from listener.store.copying import demand_unmoved
from listener.store.postgres import leases
from listener.store.postgres.schema import migrate
from listener.store.postgres.server import ANSWER_LIMIT, FAULTS, PostgresReader, Server, away, demand_writable
from listener.store.postgres.wakeups import Wakeups
from listener.store.postgres.writer import Writer
from listener.store.ruled import Keys, RuledStore
from listener.store.transaction import Query, Transaction

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

READERS = 4
"""Connections for pages and API calls. Two more answer the worker, one writes, and one listens."""
LOOKOUTS = 2
BEGIN_LIMIT = 15.0
"""Seconds in which it must have begun to listen to the other listeners."""
NOBODY = ""
"""No node."""


class PostgresStore(RuledStore):
    """A `RunStore` in a database of PostgreSQL, for any number of listeners."""

    _shared = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self._server = Server(url)
        # Unique: listeners with one name would ignore each other's wake-ups, and pass each other's fences.
        self._node = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"

    async def open(self) -> None:
        """Create or migrate the schema, and begin to write and to listen.

        Raise `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
        """
        await self._migrate()
        self._readers = await self._server.pool(READERS, pages=True)
        self._lookout = await self._server.pool(LOOKOUTS)
        self._writer = Writer(self._server, self._signals, self._node)
        self._wakeups = Wakeups(self._server, self._signals, self._node)
        try:
            async with asyncio.timeout(BEGIN_LIMIT):
                await self._wakeups.begun()
            # Only now: a move of the store holds the lock that listening needs until the mark is set.
            await self._read(demand_unmoved)
        except TimeoutError as error:
            await self.close()
            raise self._server.unavailable(error) from None
        except StoreError:
            await self.close()
            raise

    async def close(self) -> None:
        """Carry out what is queued, end the leases, and close the connections."""
        self._flush_lines()
        with suppress(StoreUnavailableError):
            await self._writer.submit(leases.let_go)
        await self._writer.close()
        await self._wakeups.close()
        for pool in (self._readers, self._lookout):
            pool.terminate()
        await asyncio.sleep(0)

    async def examine(self) -> None:
        """Do nothing: the server checks its files itself."""

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` if the store can't write."""
        self._flush_lines()
        await self._writer.submit(demand_writable)
        if self._wakeups.failing:
            raise StoreUnavailableError(self._wakeups.failing)

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Extend the leases of the runs that this listener still owns; return their ids."""
        return await self._look(leases.beat, self._node, held)

    async def take_over(self, now: float) -> list[Run]:
        """Put back all runs with an expired lease."""
        return await self._take_over(NOBODY, now)

    async def recover(self, now: float) -> list[Run]:
        """Put back the runs with an expired lease, and those of this node."""
        await self._write((), lifecycle.mend_times, now)
        await self._write((), happened.forget_other_servers)
        return await self._take_over(self._node, now)

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
        while left_over := await self._look(leases.left_over, node):
            back = await self._write(left_over.values(), leases.take_over, left_over, node, now)
            if not back:  # Another listener was faster, or their owners beat again.
                break
            taken += back
        return taken

    def _submit(
        self, perform: Callable[[Transaction], Coroutine[Any, Any, T]], keys: Keys
    ) -> asyncio.Future[T]:
        return self._writer.submit(perform, keys)

    def _submit_both(
        self,
        first: Callable[[Transaction], Coroutine[Any, Any, T]],
        keys: Keys,
        second: Callable[[Transaction], Coroutine[Any, Any, U]],
    ) -> tuple[asyncio.Future[T], asyncio.Future[U]]:
        one, other = self._writer.submit_together((first, keys), (second, tuple))
        return one, other

    async def _read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._ask(self._readers, lambda reader: query(reader, *args, **kwargs))

    async def _look(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._ask(self._lookout, lambda reader: query(reader, *args, **kwargs))

    async def _ask(self, pool: asyncpg.Pool, query: Callable[[PostgresReader], Awaitable[T]]) -> T:
        """Run a query; run it once more on another connection if the first was lost."""
        for again in (True, False):
            try:
                async with asyncio.timeout(ANSWER_LIMIT), pool.acquire() as connection:
                    return await query(PostgresReader(connection))
            except FAULTS as error:
                if not away(error):
                    raise
                if isinstance(error, TimeoutError) or not again:
                    raise self._server.unavailable(error) from None
        raise AssertionError
