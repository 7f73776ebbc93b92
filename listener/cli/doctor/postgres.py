"""Checks a store in PostgreSQL: whether it can be used, and whether its server keeps what it commits."""

from collections.abc import Iterator

from listener.cli.doctor.findings import Finding, Group, clock
from listener.errors import ListenerError
from listener.store.postgres.diagnosis import CONNECTIONS, Diagnosis, diagnose


async def findings(url: str, name: str) -> list[Finding]:
    """Check a store in PostgreSQL. `name` is its URL without the password. Nothing is written."""
    try:
        said = await diagnose(url)
    except ListenerError as error:
        return [Finding.of(Group.STORE, name, error)]
    bad = list(judged(said, name))
    return [*(bad or [Finding.good(Group.STORE, name, _described(said))]), clock(name, said.ahead)]


def _described(said: Diagnosis) -> str:
    schema = f"schema {said.schema}" if said.schema else "empty; the first start creates the tables"
    update = f", the next start brings it to schema {said.newest}" if 0 < said.schema < said.newest else ""
    return f"PostgreSQL {said.version}, {schema}{update}"


def judged(said: Diagnosis, name: str) -> Iterator[Finding]:
    """Yield what is wrong with a server and its database."""
    if said.fault is not None:
        yield Finding.of(Group.STORE, name, said.fault)
    if said.off:
        settings = " and ".join(f"{setting} = off" for setting in said.off)
        message = (
            f"the server has {settings}: a power cut can lose accepted deliveries, or damage the database"
        )
        remedy = "set them on in postgresql.conf, and reload the server"
        yield Finding.problem(Group.STORE, name, "store-not-durable", message, remedy)
    if said.read_only:
        message, remedy = "the server is read-only", "name the primary server in store, not a standby"
        yield Finding.problem(Group.STORE, name, "store-read-only", message, remedy)
    if said.encoding != "UTF8":
        message = f"the database has the encoding {said.encoding}, not UTF8"
        remedy = "create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        yield Finding.problem(Group.STORE, name, "store-encoding", message, remedy)
    if not said.usable:
        message = "the user of the URL may not create tables in the database"
        remedy = "give the database to this user (config/README.md, store)"
        yield Finding.problem(Group.STORE, name, "store-permission", message, remedy)
    if not said.listeners and said.free < CONNECTIONS:
        message = f"{said.free} connections are free; a listener needs {CONNECTIONS}"
        remedy = "raise max_connections of the server"
        yield Finding.warning(Group.STORE, name, "store-connections", message, remedy)
