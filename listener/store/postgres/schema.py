"""The schema: numbered migrations, brought about by whichever listener comes first."""

import asyncpg

from listener.errors import ConfigurationError
from listener.store.migrations import missing

MIGRATION_LIMIT = 600.0
"""Seconds for bringing a schema up to date, and for waiting until another listener has."""
LOCK = 0x73796E63
"""The first key of this program's advisory locks; the second one is 0 for the schema."""
OPEN = -1
"""The second key of the lock that every listener shares, and that whoever moves the store has alone."""

_VERSION = """
CREATE TABLE IF NOT EXISTS schema_version (
    version integer NOT NULL, one boolean PRIMARY KEY DEFAULT true CHECK (one)
)
"""
_SET_VERSION = """
INSERT INTO schema_version (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = excluded.version
"""


async def migrate(connection: asyncpg.Connection) -> None:
    """Bring the schema up to what this program knows; raise `StoreTooNewError` if it is beyond that."""
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"store: the database is in {encoding}, and names and logs may hold any character",
            remedy="make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    async with connection.transaction():
        for limit in ("statement_timeout", "lock_timeout"):
            await connection.execute(f"SET LOCAL {limit} = '{MIGRATION_LIMIT:.0f}s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1, 0)", LOCK, timeout=MIGRATION_LIMIT)
        await _migrate(connection)


async def _migrate(connection: asyncpg.Connection) -> None:
    await connection.execute(_VERSION)
    version = await connection.fetchval("SELECT version FROM schema_version") or 0
    for number, sql in missing(__package__, version).items():
        await connection.execute(sql, timeout=MIGRATION_LIMIT)
        await connection.execute(_SET_VERSION, number)
