"""The schema: numbered migrations. The listener that comes first applies them."""

import asyncpg

from listener.errors import ConfigurationError
from listener.store.migrations import missing

MIGRATION_LIMIT = 600.0
"""Seconds for the migrations, and for waiting until another listener has applied them."""
LOCK = 0x73796E63
"""The first key of the advisory locks of this program. The second is 0 for the schema."""
OPEN = -1
"""The second key of the lock that all listeners share. A move of the store needs it alone."""

_VERSION = """
CREATE TABLE IF NOT EXISTS schema_version (
    version integer NOT NULL, one boolean PRIMARY KEY DEFAULT true CHECK (one)
)
"""
_SET_VERSION = """
INSERT INTO schema_version (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = excluded.version
"""


async def migrate(connection: asyncpg.Connection) -> None:
    """Apply the missing migrations; raise `StoreTooNewError` if the schema is newer than this program."""
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"store: the database has the encoding {encoding}, but names and logs may contain any character",
            remedy="create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
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
