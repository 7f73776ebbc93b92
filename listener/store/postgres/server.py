"""The server: how to connect to it, what its errors mean, and how a query is sent to it."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from listener.errors import ConfigurationError, StoreUnavailableError
from listener.store.rows import Row
from listener.store.statements import numbered, portions
from listener.store.transaction import NOTHING, Values

CONNECT_LIMIT = 5.0
"""Seconds for connecting and logging in."""
ANSWER_LIMIT = 10.0
"""Seconds for the answer to a statement. The server gives up a little earlier, and says why."""

# Set after connecting, because a pooler refuses unknown settings in the start-up packet. The defaults of a
# database or a role are for other programs, so everything that the rules rely on is set here. Every plan uses
# indexes: without statistics, the planner takes a new table for a small one, and scans it. Plans are not made
# anew for each statement's values: that takes longer than the statement itself. Pages are an exception.
_SETTINGS = """
SET application_name = 'sync-staging';
SET default_transaction_isolation = 'read committed';
SET default_transaction_deferrable = off;
SET statement_timeout = '8s';
SET lock_timeout = '5s';
SET idle_in_transaction_session_timeout = '3s';
SET client_min_messages = 'warning';
SET standard_conforming_strings = on;
SET bytea_output = 'hex';
SET jit = off;
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN ('idle_session_timeout', 'transaction_timeout');
"""
# A plan without the values knows neither the state nor the length of a page. It takes the order from the
# primary key, and reads all ended runs if few or none are in that state.
_FOR_PAGES = "SET plan_cache_mode = force_custom_plan"
_REMEDY = "check that PostgreSQL runs, that it can be reached from here, and that its disk is not full"
_HINT = re.compile(r" INDEXED BY \w+")
"""A hint for SQLite only."""
_LOOK = "SELECT current_setting('transaction_read_only') AS read_only, EXISTS (SELECT FROM runs) AS used"

_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,
)
_AWAY = (
    *_REFUSED,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
FAULTS = (*_AWAY, asyncpg.PostgresError, ValueError)
"""The errors that a connection to the server may raise."""


class Server:
    """A database on a server, by its URL. No message about it shows the password of the URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def connect(self) -> asyncpg.Connection:
        """Return a new connection."""
        connection = await asyncpg.connect(self._url, timeout=CONNECT_LIMIT, command_timeout=ANSWER_LIMIT)
        await _prepare(connection)
        return connection

    def pool(self, most: int, *, pages: bool = False) -> asyncpg.Pool:
        """Return a pool of up to `most` connections for reads; with `pages`, for reads of pages."""
        return asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=most,
            init=_prepare_for_pages if pages else _prepare,
            reset=_leave_as_it_is,
            timeout=CONNECT_LIMIT,
            command_timeout=ANSWER_LIMIT,
        )

    def unavailable(self, error: Exception) -> StoreUnavailableError:
        """Return the error with the message of the server or of the connection to it."""
        # Without the cause: its traceback could show the password.
        return StoreUnavailableError(f"The store does not answer: {self._message_of(error)}", remedy=_REMEDY)

    def refused(self, error: Exception) -> Exception:
        """Return the error for the caller that opens the store. Some errors only a person can solve."""
        if isinstance(error, _REFUSED):
            return ConfigurationError(
                f"store: PostgreSQL refuses: {self._message_of(error)}",
                remedy="create the database, and give it to the user of the URL (config/README.md, store)",
            )
        if isinstance(error, ValueError):
            return ConfigurationError(
                # The message of the error may quote a part of the password.
                "store: the URL of the database, or one of its options, is not valid",
                remedy="write postgresql://USER@HOST/DATABASE; check the port and sslmode, and whether the "
                "files that it names exist",
            )
        return self.unavailable(error) if away(error) else error

    def _message_of(self, error: Exception) -> str:
        """Return the message of an error, without the password."""
        text = str(error) or type(error).__name__
        password = urlsplit(self._url).password or ""
        for secret in filter(None, (self._url, password, unquote(password))):
            text = text.replace(secret, "[secret]")
        return text


class PostgresReader:
    """A connection that takes statements with named parameters, such as `:id`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def one(self, sql: str, values: Values = NOTHING) -> Row | None:
        """Return the statement's first row, or None."""
        rows = await self.all(sql, values)
        return rows[0] if rows else None

    async def all(self, sql: str, values: Values = NOTHING) -> list[Row]:
        """Return every row of the statement."""
        text, names = _numbered(sql)
        rows: list[Row] = await self._connection.fetch(text, *(_storable(values[name]) for name in names))
        return rows

    async def many(self, sql: str, rows: Sequence[Values]) -> None:
        """Run an INSERT for all rows, some in each statement."""
        # Not by `executemany`: it ends its messages late. A listener that is stopped before that holds its
        # locks for ever, because the server counts it as active, and no time limit applies.
        for portion in portions(rows):
            text, names = _numbered(sql, len(portion))
            await self._connection.fetch(text, *(_storable(row[name]) for row in portion for name in names))


async def demand_writable(reader: PostgresReader) -> None:
    """Raise an error if the server takes no writes, for example after a fail-over."""
    row = await reader.one(_LOOK)
    if row is None or row["read_only"] == "on":
        raise asyncpg.ReadOnlySQLTransactionError("the database is read-only")


def away(error: Exception) -> bool:
    """Return whether an error means that the server is not available. Others are defects of ours."""
    return isinstance(error, _AWAY) and not isinstance(error, asyncpg.DataError)


async def _prepare(connection: asyncpg.Connection) -> None:
    """Set up the session for the rules. Commits are durable, also if the default says otherwise."""
    await connection.execute(_SETTINGS)
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        await connection.execute("SET synchronous_commit = on")


async def _prepare_for_pages(connection: asyncpg.Connection) -> None:
    """Set up the session, and let it plan each statement with its values."""
    await _prepare(connection)
    await connection.execute(_FOR_PAGES)


async def _leave_as_it_is(connection: asyncpg.Connection) -> None:
    """Skip the reset of a connection by the pool: a query leaves nothing behind."""


@cache
def _numbered(sql: str, rows: int = 1) -> tuple[str, tuple[str, ...]]:
    return numbered(_HINT.sub("", sql), "$", rows)


def _storable(value: Any) -> Any:
    """Return text, or a list of texts, without the null character, which PostgreSQL can't store."""
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
