"""What `doctor` asks a PostgreSQL server about itself and the database."""

import asyncio
import time
from dataclasses import dataclass

from listener.errors import StoreError
from listener.store.copying import demand_unmoved
from listener.store.migrations import latest, missing
from listener.store.postgres.server import FAULTS, PostgresReader, Server
from listener.store.postgres.store import LOOKOUTS, READERS

CONNECTIONS = READERS + LOOKOUTS + 2
"""How many connections one listener needs."""

_FACTS = """
SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('transaction_read_only') AS read_only,
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS free,
    (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sync-staging'
        AND datname = current_database() AND pid <> pg_backend_pid()) AS listeners,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
    to_regclass('schema_version') IS NOT NULL AS used,
    extract(epoch FROM clock_timestamp())::float8 AS now
"""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found. Times are seconds."""

    version: str
    encoding: str
    off: tuple[str, ...]
    """The settings without which a power cut loses commits."""
    read_only: bool
    free: int
    """Connections that this user could open now."""
    listeners: int
    """Connections of listeners to this database."""
    usable: bool
    """Whether the tables are there, or this user may create them."""
    schema: int
    """0 for an empty database."""
    newest: int
    """The schema that this program writes."""
    ahead: float
    """By how much the server's clock is at least ahead of ours; negative if it is behind."""
    fault: StoreError | None
    """Why a listener would refuse the store: its schema is too new, or it was moved."""


async def diagnose(url: str) -> Diagnosis:
    """Ask a server about itself, and write nothing; raise `ConfigurationError` or `StoreUnavailableError`."""
    server = Server(url)
    try:
        connection = await server.connect()
        try:
            return await _diagnosed(PostgresReader(connection))
        finally:
            connection.terminate()
            await asyncio.sleep(0)
    except FAULTS as error:
        raise server.refused(error) from None


async def _diagnosed(reader: PostgresReader) -> Diagnosis:
    sent = time.time()
    (row,) = await reader.all(_FACTS)
    ahead = max(row["now"] - time.time(), 0.0) + min(row["now"] - sent, 0.0)
    schema, fault = await _schema(reader, used=row["used"])
    return Diagnosis(
        version=row["version"],
        encoding=row["encoding"],
        off=tuple(name for name in ("fsync", "full_page_writes") if row[name] == "off"),
        read_only=row["read_only"] == "on",
        free=row["free"],
        listeners=row["listeners"],
        usable=row["used"] or row["may_create"],
        schema=schema,
        newest=latest(__package__),
        ahead=ahead,
        fault=fault,
    )


async def _schema(reader: PostgresReader, *, used: bool) -> tuple[int, StoreError | None]:
    row = await reader.one("SELECT version FROM schema_version") if used else None
    schema = row["version"] if row is not None else 0
    try:
        if not missing(__package__, schema):
            await demand_unmoved(reader)
    except StoreError as error:
        return schema, error
    return schema, None
