"""The durable store on PostgreSQL: the queue, the deliveries and the history of several listeners.

Writes go through one connection with group commit (`writer`); reads have a few of their own, and what
other listeners did is heard on one more (`wakeups`). The rules are in `listener.store`, and the ones that
matter most in the schema itself. Runs are leased: what a listener has not been heard of for
`lifecycle.LEASE` seconds, on the server's clock, may be taken over by any other.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import asyncpg

from listener.errors import StoreError, StoreUnavailableError
from listener.runs import Run
from listener.store import lifecycle
from listener.store.acceptance import Key
from listener.store.copying import demand_unmoved
from listener.store.postgres import leases
from listener.store.postgres.schema import migrate
from listener.store.postgres.server import ANSWER_LIMIT, FAULTS, PostgresReader, Server, away, demand_writable
from listener.store.postgres.wakeups import Wakeups
from listener.store.postgres.writer import Writer
from listener.store.ruled import RuledStore
from listener.store.transaction import Query, Transaction

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

READERS = 4
"""Connections for those who look on; two more answer what the work waits for, one writes, one listens."""
LOOKOUTS = 2
BEGIN_LIMIT = 15.0
"""Seconds until it must be listening for the others' wake-ups."""
NOBODY = ""
"""No node."""


class PostgresStore(RuledStore):
    """A `RunStore` in a database of PostgreSQL, for any number of listeners."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._server = Server(url)
        # Equal names would swallow each other's wake-ups and pass each other's fences.
        self._node = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"

    async def open(self) -> None:
        """Make or migrate the schema, and begin to write and to listen.

        Raise `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
        """
        await self._migrate()
        self._readers = await self._server.pool(READERS)
        self._lookout = await self._server.pool(LOOKOUTS)
        self._writer = Writer(self._server, self._signals, self._node)
        self._wakeups = Wakeups(self._server, self._signals, self._node)
        try:
            async with asyncio.timeout(BEGIN_LIMIT):
                await self._wakeups.begun()
            # Only now: whoever moves the store away keeps listeners from listening until it is moved.
            await self._read(demand_unmoved)
        except TimeoutError as error:
            await self.close()
            raise self._server.unavailable(error) from None
        except StoreError:
            await self.close()
            raise

    async def close(self) -> None:
        """Carry out what is queued, give up what is not finished, and let go of the server."""
        self._flush_lines()
        with suppress(StoreUnavailableError):
            await self._writer.submit(leases.let_go)
        await self._writer.close()
        await self._wakeups.close()
        for pool in (self._readers, self._lookout):
            pool.terminate()
        await asyncio.sleep(0)

    async def examine(self) -> None:
        """Look at nothing: the server looks after its files itself."""

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless the store could write."""
        self._flush_lines()
        await self._writer.submit(demand_writable)
        if self._wakeups.failing:
            raise StoreUnavailableError(self._wakeups.failing)

    async def beat(self, held: Collection[Run]) -> frozenset[str]:
        """Extend the leases of the runs that still are this listener's; return their ids."""
        return await self._look(leases.beat, self._node, held)

    async def take_over(self, now: float) -> list[Run]:
        """Put back the runs whose lease has expired, whoever's it was."""
        return await self._take_over(NOBODY, now)

    async def recover(self, now: float) -> list[Run]:
        """Put back what no living listener carries out: expired leases, and whatever would be this one's."""
        await self._write((), lifecycle.mend_times, now)
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
            if not back:  # another listener was faster, or they are at work again
                break
            taken += back
        return taken

    def _submit(
        self, perform: Callable[[Transaction], Coroutine[Any, Any, T]], keys: Iterable[Key]
    ) -> asyncio.Future[T]:
        return self._writer.submit(perform, keys)

    def _submit_both(
        self,
        first: Callable[[Transaction], Coroutine[Any, Any, T]],
        keys: Iterable[Key],
        second: Callable[[Transaction], Coroutine[Any, Any, U]],
    ) -> tuple[asyncio.Future[T], asyncio.Future[U]]:
        one, other = self._writer.submit_together((first, keys), (second, ()))
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
