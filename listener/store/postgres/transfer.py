"""A store on PostgreSQL that is being moved: open for that alone, in one transaction."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from listener.errors import StoreLockedError
from listener.store.postgres import leases
from listener.store.postgres.schema import LOCK, OPEN, migrate
from listener.store.postgres.server import FAULTS, Server
from listener.store.postgres.writer import PostgresTransaction

_PATIENCE = """
SET statement_timeout = 0; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = 0;
"""
_ALONE = "SELECT pg_try_advisory_lock(:lock, :open) AS alone"
_GIVE_UP = "UPDATE runs SET lease_until = statement_timestamp() WHERE state = 'running'"
_COUNT_ON = """
SELECT setval(
    pg_get_serial_sequence('{0}', 'position'), coalesce((SELECT max(position) FROM {0}), 0) + 1, false
)
"""


@asynccontextmanager
async def alone(url: str, now: float) -> AsyncIterator[PostgresTransaction]:
    """Yield a transaction over a store that no listener has open. No run in it is running.

    Raises `StoreLockedError`, `StoreTooNewError`, `ConfigurationError` or `StoreUnavailableError`.
    """
    server = Server(url)
    try:
        connection = await server.connect()
        try:
            await migrate(connection)
            await connection.execute(_PATIENCE)
            transaction = PostgresTransaction(connection, secrets.token_hex(8))
            row = await transaction.one(_ALONE, {"lock": LOCK, "open": OPEN})
            if row is None or not row["alone"]:
                raise StoreLockedError("A listener has the store open.", remedy="stop every listener first")
            async with connection.transaction():
                await connection.execute("SET CONSTRAINTS ALL DEFERRED")
                await transaction.write(_GIVE_UP)
                while left := await leases.left_over(transaction, ""):
                    await leases.take_over(transaction, left, "", now)
                yield transaction
                for table in ("runs", "triggers"):
                    await transaction.write(_COUNT_ON.format(table))
        finally:
            connection.terminate()
    except FAULTS as error:
        raise server.refused(error) from None
