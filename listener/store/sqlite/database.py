"""The database file: its lock, its connections and its schema."""

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from listener.errors import ConfigurationError, StoreLockedError
from listener.store.migrations import missing

LOCK_WAIT_MS = 5000
"""Milliseconds to wait for another program, such as a backup, that holds the database for a moment."""
LOG_LIMIT = 32 * 1024 * 1024
"""Bytes. When the write-ahead log is longer, it starts anew. Its file keeps at most so many."""


class FileLock:
    """Keeps a second listener out of the store, by any path, until this process ends."""

    def __init__(self, database: Path) -> None:
        """Lock the store, or raise `StoreLockedError` or `ConfigurationError`."""
        # The kernel releases the lock when the process ends, however it ends. The lock file stays: if it
        # were removed, one process could hold the old file while another locks a new one.
        self.path = database.resolve()
        _check_directory(self.path.parent)
        self._file = os.fdopen(_create(self.path.with_name(self.path.name + ".lock")), "r+b", buffering=0)
        self._database = -1
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A hard link is another name with another lock file: so the database itself is locked, too.
            # Closing it drops SQLite's own (POSIX) locks on the file, too: it is closed last.
            self._database = _create(self.path)
            fcntl.flock(self._database, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._file.read(32).decode("ascii", "replace").strip()
            self.release()
            raise StoreLockedError(
                f"Another listener (process {owner or 'unknown'}) has the store open: {database}",
                remedy="stop that process first, or configure another store for this listener",
            ) from None
        except BaseException:
            self.release()
            raise
        # The number is only for the message above. A full disk must not keep the listener from starting.
        with suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n".encode())

    def in_place(self) -> bool:
        """Return whether the file is still at its path. What is written to a moved file would be lost."""
        try:
            there = self.path.stat()
        except OSError:
            return False
        ours = os.fstat(self._database)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Let the next listener in."""
        if self._database >= 0:
            os.close(self._database)
            self._database = -1
        self._file.close()


def _check_directory(directory: Path) -> None:
    # SQLite creates files beside the database: it is not enough if the database itself is writable.
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigurationError(
            f"store: the directory {directory} does not exist, or is not writable",
            remedy=f"create it, and give it to the user that the listener runs as (uid {os.geteuid()})",
        )


def _create(path: Path) -> int:
    """Open a file, and create it with mode 600 if it is missing; or raise `ConfigurationError`."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"store: {path} can't be opened: {error.strerror}",
            remedy=f"give it to the user that the listener runs as (uid {os.geteuid()})",
        ) from error


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection for one thread at a time. It begins no transaction by itself."""
    connection = sqlite3.connect(
        path, timeout=LOCK_WAIT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    # FULL: each commit is on the disk before anybody is answered. WAL: readers do not wait for the writer.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations; raise `StoreTooNewError` if the schema is newer than this program."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, sql in missing(__package__, version).items():
        _apply(connection, number, sql)


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
