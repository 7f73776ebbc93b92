"""Both databases have the same tables, columns and indexes, or a store could not be moved between them."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg

from listener.store import open_store
from listener.store.copying import TABLES
from tests.cluster import Cluster

ONLY_POSTGRES = {("runs", "node"), ("runs", "lease_until")}
"""Whose a run is: a file has one listener."""
KEYS = re.compile(r"^sqlite_autoindex_|_pkey$|_key$")
"""Indexes that a table's own constraints make."""

Columns = set[tuple[str, str]]
Indexes = dict[str, str]


def plain(index: str) -> str:
    """What an index is on, however its database writes that down."""
    _, _, definition = index.partition(" ON ")
    definition = re.sub(r"::\w+|\"|\(|\)|USING btree|public\.", " ", definition)
    definition = re.sub(r"=\s+ANY\s+ARRAY\[", "IN ", definition).replace("]", " ")
    return " ".join(definition.replace(",", " , ").split()).lower()


async def on_sqlite(path: Path) -> tuple[Columns, Indexes]:
    store = open_store(f"sqlite://{path}")
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        columns = connection.execute(
            "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c"
            " WHERE t.type = 'table'"
        ).fetchall()
        indexes = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index'").fetchall()
    return set(columns), {name: plain(sql) for name, sql in indexes if not KEYS.search(name)}


async def on_postgres(url: str) -> tuple[Columns, Indexes]:
    store = open_store(url)
    await store.open()
    await store.close()
    connection = await asyncpg.connect(url)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns AS c"
            " JOIN information_schema.tables AS t USING (table_schema, table_name)"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        )
    finally:
        await connection.close()
    found = {name: plain(definition) for name, definition in indexes if not KEYS.search(name)}
    return {(table, column) for table, column in columns if table != "schema_version"}, found


async def test_both_databases_have_the_same_shape(tmp_path: Path, cluster: Cluster) -> None:
    columns, indexes = await on_sqlite(tmp_path / "listener.db")
    server_columns, server_indexes = await on_postgres(cluster.url(cluster.database()))
    assert server_columns - columns == ONLY_POSTGRES
    assert columns <= server_columns
    assert indexes == server_indexes


async def test_a_move_copies_every_column(tmp_path: Path) -> None:
    columns, _ = await on_sqlite(tmp_path / "listener.db")
    copied = {
        (table, column)
        for table, (key, others) in TABLES.items()
        for column in (*key, *others.replace(",", " ").split())
    }
    # The mark of a moved store stays with it, and so do its events: their places belong to its commits.
    assert {(table, column) for table, column in columns if table not in {"moved", "events"}} == copied
