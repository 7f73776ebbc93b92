"""Maintenance of a SQLite store: back up, check, prune. A listener may be running."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from listener.errors import ConfigurationError, StoreError
from listener.queue import Pruned
from listener.store import pruning
from listener.store.migrations import latest
from listener.store.sqlite import database
from listener.store.sqlite.dialect import SqliteTransaction, step
from listener.store.sqlite.writer import unavailable

PAGES_AT_ONCE = 1024
"""Pages of the file that a backup copies before others may go on."""

PRUNED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check."""

    problems: tuple[str, ...]
    schema: int
    size: int
    """Bytes."""
    runs: int
    waiting: int
    deliveries: int


def backup(path: Path, copy: Path) -> Report:
    """Copy a store, whole and at one moment, to a new file; check the copy and return what it holds.

    Raises `ConfigurationError` if the file is there already, `StoreError`. A copy that failed is removed.
    """
    with opened(path) as source:
        try:
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise ConfigurationError(
                f"{copy} can't be made: {error.strerror}", remedy="name a file that does not exist yet"
            ) from error
        try:
            with closing(sqlite3.connect(copy)) as target:
                # Else the backup starts again at each write of the listener, and may never end.
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_schema").fetchone()
                source.backup(target, pages=PAGES_AT_ONCE)
                source.execute("COMMIT")
                # A copy is one file: no part of it may be left in a log beside it.
                target.execute("PRAGMA journal_mode = DELETE")
            synced(copy)
            report = _sound(copy)
        except BaseException as error:
            with suppress(OSError):
                copy.unlink()
            if isinstance(error, sqlite3.Error):
                raise unavailable(error) from error
            raise
    return report


def check(path: Path) -> Report:
    """Check a store; raise `StoreError` or `ConfigurationError` if that is not possible."""
    with opened(path) as connection:
        return look_through(connection, path)


def look_through(connection: sqlite3.Connection, path: Path) -> Report:
    """Check a store that is open."""
    problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    problems += [
        f"a row of {row[0]} refers to a missing row of {row[2]}"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    (schema,) = connection.execute("PRAGMA user_version").fetchone()

    def count(what: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])  # noqa: S608 (ours)

    runs, waiting = count("runs"), count("runs WHERE state IN ('queued', 'running')")
    return Report(tuple(problems), schema, path.stat().st_size, runs, waiting, count("deliveries"))


def _sound(copy: Path) -> Report:
    report = check(copy)
    if report.problems:
        raise StoreError(
            f"The copy is damaged: {report.problems[0]}", remedy="run store check on the original"
        )
    return report


def prune(path: Path, before: float, keep: int, deliveries: int, trimmed: float) -> Pruned:
    """Carry out `RunStore.prune` and `trim` to the end; return how many. Raises `StoreError`."""
    total = Pruned()
    with opened(path, writing=True) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        while True:
            connection.execute("BEGIN IMMEDIATE")
            transaction = SqliteTransaction(connection)
            pruned = step(pruning.prune(transaction, before, keep, PRUNED_AT_ONCE))
            pruned += step(pruning.trim_all(transaction, deliveries, trimmed, PRUNED_AT_ONCE))
            connection.execute("COMMIT")
            if pruned == Pruned():
                return total
            total += pruned


@contextmanager
def opened(path: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """Yield a connection to an existing store. Errors of SQLite become `StoreUnavailableError`."""
    if not path.is_file():
        raise ConfigurationError(
            f"There is no store at {path}.", remedy="start the listener once, or name another --config"
        )
    try:
        with closing(database.connect(path)) as connection:
            if not writing:
                connection.execute("PRAGMA query_only = ON")
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            newest = latest(__package__)
            if writing and schema != newest:
                raise StoreError(
                    f"The store has schema {schema}. This program writes schema {newest}.",
                    remedy="start the listener once: it brings the store up to date",
                )
            yield connection
    except sqlite3.Error as error:
        raise unavailable(error) from error


def synced(path: Path) -> None:
    """Flush a file and its name to the disk, so that they survive a power cut."""
    for each in (path, path.absolute().parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
