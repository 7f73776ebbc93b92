"""Whether a store in PostgreSQL can be reached and used, and whether its server keeps what it confirms."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

import asyncpg

from listener.cli.doctor.findings import Finding, Group
from listener.errors import ListenerError, StoreError
from listener.store import postgres
from listener.store.copying import demand_unmoved
from listener.store.migrations import latest, missing
from listener.store.postgres.server import FAULTS, PostgresReader, Server
from listener.store.postgres.store import LOOKOUTS, READERS

NEEDED = READERS + LOOKOUTS + 2
"""Connections of one listener."""

CLOCK_TOLERANCE = 10.0

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


async def findings(url: str, name: str) -> list[Finding]:
    """Check a store in PostgreSQL. `name` is its URL without the password. Nothing is written."""
    server = Server(url)
    try:
        connection = await server.connect()
    except FAULTS as error:
        return [_refused(server, error, name)]
    try:
        sent = time.time()
        facts = dict(await connection.fetchrow(_FACTS))
        facts["early"], facts["late"] = facts["now"] - sent, facts["now"] - time.time()
        found = [*judged(facts, name), *await _schema(connection, name, used=facts["used"])]
    except FAULTS as error:
        return [_refused(server, error, name)]
    finally:
        connection.terminate()
        await asyncio.sleep(0)
    bad = any(not each.ok for each in found)
    good = Finding.good(Group.STORE, name, f"PostgreSQL {facts['version']}")
    return found if bad else [good, *found]


def _refused(server: Server, error: Exception, name: str) -> Finding:
    refusal = server.refused(error)
    if not isinstance(refusal, ListenerError):
        raise refusal
    return Finding.of(Group.STORE, name, refusal)


def judged(facts: Mapping[str, Any], name: str) -> Iterator[Finding]:
    """Yield what is wrong with a server, from the answer to `_FACTS`."""
    off = [setting for setting in ("fsync", "full_page_writes") if facts[setting] == "off"]
    if off:
        message = f"the server has {' and '.join(f'{setting} = off' for setting in off)}: a power cut can "
        remedy = "set them on in postgresql.conf, and reload the server"
        lost = "lose accepted deliveries, or damage the database"
        yield Finding.problem(Group.STORE, name, "store-not-durable", message + lost, remedy)
    if facts["read_only"] == "on":
        message, remedy = "the server takes no writes", "name the primary server in store, not a standby"
        yield Finding.problem(Group.STORE, name, "store-read-only", message, remedy)
    if facts["encoding"] != "UTF8":
        message = f"the database has the encoding {facts['encoding']}, not UTF8"
        remedy = "create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        yield Finding.problem(Group.STORE, name, "store-encoding", message, remedy)
    if not facts["used"] and not facts["may_create"]:
        remedy = "give the database to the user of the URL (config/README.md, store)"
        yield Finding.problem(
            Group.STORE, name, "store-permission", "the user may not create tables in it", remedy
        )
    if not facts["listeners"] and facts["free"] < NEEDED:
        message = f"{facts['free']} connections are free; a listener needs {NEEDED}"
        yield Finding.warning(
            Group.STORE, name, "store-connections", message, "raise max_connections of the server"
        )
    yield _clock(facts, name)


def _clock(facts: Mapping[str, Any], name: str) -> Finding:
    difference = max(facts["late"], 0.0) + min(facts["early"], 0.0)
    if abs(difference) <= CLOCK_TOLERANCE:
        return Finding.good(Group.CLOCK, name, "equal to this machine's clock")
    way = "ahead of" if difference > 0 else "behind"
    message = f"its clock is {abs(difference):.0f} s {way} this machine's clock"
    return Finding.warning(Group.CLOCK, name, "clock-differs", message, "synchronise both clocks (NTP)")


async def _schema(connection: asyncpg.Connection, name: str, *, used: bool) -> list[Finding]:
    if not used:
        return [Finding.good(Group.STORE, name, "it is empty; the first start creates the tables")]
    try:
        version = await connection.fetchval("SELECT version FROM schema_version") or 0
        if missing(postgres.__name__, version):
            message = f"it has schema {version}; the next start brings it to {latest(postgres.__name__)}"
            return [Finding.good(Group.STORE, name, message)]
        await demand_unmoved(PostgresReader(connection))
    except StoreError as error:
        return [Finding.of(Group.STORE, name, error)]
    return []
