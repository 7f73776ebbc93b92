"""Restoring a SQLite store from a copy, with no part of the old store in it."""

import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from listener.errors import ConfigurationError, StoreError, StoreTooNewError, StoreUnavailableError
from listener.store.migrations import latest
from listener.store.sqlite import database
from listener.store.sqlite.maintenance import Report, look_through, opened, synced
from listener.store.sqlite.writer import unavailable

_NEWER = """
SELECT
    (SELECT count(*) FROM runs WHERE id > :run) AS runs,
    (SELECT count(*) FROM deliveries WHERE id > :delivery) AS deliveries
"""
_NEWEST = """
SELECT
    coalesce((SELECT max(id) FROM runs), '') AS run,
    coalesce((SELECT max(id) FROM deliveries), '') AS delivery
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restored store contains, and what the store before it contained."""

    report: Report
    kept: str
    """The path of the store before it. Empty if there was none."""
    newer_runs: int | None
    """The number of runs of the store before it that the copy lacks. None if it can't be read any more."""
    newer_deliveries: int | None


def restore(path: Path, copy: Path) -> Restored:
    """Replace the store at `path` by a checked copy of `copy`. The old store is kept beside it.

    Raises `StoreLockedError` while a listener runs, `StoreError` if the copy is not sound, and
    `ConfigurationError`.
    """
    if not copy.is_file():
        raise ConfigurationError(f"There is no file at {copy}.", remedy="name a copy made by store backup")
    there = path.is_file()
    owner = (path if there else path.parent).stat()
    lock = database.FileLock(path)
    try:
        _give(lock.path.with_name(lock.path.name + ".lock"), owner)
        fresh = lock.path.with_name(f"{lock.path.name}.restoring")
        try:
            report, newest = _prepared(copy, fresh, owner)
            newer = _newer(lock.path, newest) if there else (0, 0)
            kept = _exchange(lock.path, fresh) if there else _moved(fresh, lock.path)
        finally:
            for leftover in (fresh, *_beside(fresh)):
                leftover.unlink(missing_ok=True)
    except sqlite3.Error as error:
        raise unavailable(error) from error
    except OSError as error:
        raise StoreError(
            f"The copy can't be put in place: {error.strerror}",
            remedy="look at the disk and the folder's owner",
        ) from error
    finally:
        lock.release()
    return Restored(report, kept, *newer)


def _give(file: Path, owner: os.stat_result) -> None:
    """Give a file to the owner of the store: what root creates, the listener could not open."""
    if os.geteuid() == 0:
        os.chown(file, owner.st_uid, owner.st_gid)


def _beside(database: Path) -> tuple[Path, Path]:
    return database.with_name(database.name + "-wal"), database.with_name(database.name + "-shm")


def _prepared(copy: Path, fresh: Path, owner: os.stat_result) -> tuple[Report, dict[str, str]]:
    """Make a sound file from the copy, for the owner of the store; return its report and its newest ids."""
    # The copy is not opened itself: SQLite would write beside it. Its log belongs to it.
    for source, target in zip((copy, *_beside(copy)[:1]), (fresh, *_beside(fresh)[:1]), strict=True):
        if source.is_file():
            shutil.copyfile(source, target)
            target.chmod(0o600)
            _give(target, owner)
    try:
        with opened(fresh) as connection:
            report, newest = look_through(connection, fresh), dict(connection.execute(_NEWEST).fetchone())
    except StoreUnavailableError as error:
        raise StoreError(
            f"The copy can't be read as a store: {error.__cause__}", remedy="name a copy made by store backup"
        ) from error
    if report.problems:
        raise StoreError(f"The copy is damaged: {report.problems[0]}", remedy="take an older copy")
    if report.schema > latest(__package__):
        raise StoreTooNewError(
            f"This program does not know the schema of the copy, {report.schema}.",
            remedy="run the version that wrote it",
        )
    with closing(sqlite3.connect(fresh)) as whole:
        whole.execute("PRAGMA journal_mode = DELETE")
    synced(fresh)
    return report, newest


def _newer(old: Path, newest: dict[str, str]) -> tuple[int | None, int | None]:
    """Return how many runs and deliveries of the old store are newer; merge its log into it."""
    with suppress(sqlite3.Error), closing(database.connect(old)) as connection:
        runs, deliveries = connection.execute(_NEWER, newest).fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return runs, deliveries
    return None, None


def _exchange(old: Path, fresh: Path) -> str:
    """Rename the old file and its log, and put the fresh file in place; return the old file's new name."""
    kept = old.with_name(f"{old.name}.{time.strftime('%Y%m%dT%H%M%S')}")
    os.link(old, kept)
    # Before the exchange: SQLite would apply an old log to the fresh file, and destroy it.
    log, index = _beside(old)
    if log.exists():
        log.rename(_beside(kept)[0])
    index.unlink(missing_ok=True)
    return _moved(fresh, old, str(kept))


def _moved(fresh: Path, place: Path, kept: str = "") -> str:
    fresh.replace(place)
    synced(place)
    return kept
