"""The database file: its lock, its connections and its schema."""

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from listener.errors import ConfigurationError, StoreLockedError
from listener.store.migrations import missing

LOCK_WAIT_MS = 5000
"""Milliseconds to wait for a foreign reader, such as a backup, that holds the database for a moment."""
LOG_LIMIT = 32 * 1024 * 1024
"""Bytes of the write-ahead log from which on it is begun anew, and of its file that are kept."""


class FileLock:
    """Keeps a second listener out of the store for as long as this one lives, by whatever path it comes."""

    def __init__(self, database: Path) -> None:
        """Lock the store, or raise `StoreLockedError` or `ConfigurationError`."""
        # The kernel lets go of it when the process ends, however that happens. The file itself stays: were
        # it removed, a third process could lock a new one while a second still waits with the old.
        self.path = database.resolve()
        _check_directory(self.path.parent)
        self._file = os.fdopen(_create(self.path.with_name(self.path.name + ".lock")), "r+b", buffering=0)
        self._database = -1
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The same file may have a second name, with a lock beside that: the file itself is locked too.
            # SQLite's own locks are of another kind, and are lost when this is closed: it is closed last.
            self._database = _create(self.path)
            fcntl.flock(self._database, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._file.read(32).decode("ascii", "replace").strip()
            self.release()
            raise StoreLockedError(
                f"Another listener (process {owner or 'unknown'}) has the store open: {database}",
                remedy="stop that process first, or give this listener a store of its own",
            ) from None
        except BaseException:
            self.release()
            raise
        # The lock holds without the number in it: a full disk must not keep the listener from starting.
        with suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n".encode())

    def in_place(self) -> bool:
        """Return whether the file is still where it was: moved away, it would be written to in vain."""
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
    # The database makes files of its own beside itself: that the file can be written is not enough.
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigurationError(
            f"store: the directory {directory} does not exist, or can't be written to",
            remedy=f"make it, and give it to the user that the listener runs as (uid {os.geteuid()})",
        )


def _create(path: Path) -> int:
    """Open a file, made for its owner only if it is missing, or raise `ConfigurationError`."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"store: {path} can't be opened: {error.strerror}",
            remedy=f"give it to the user that the listener runs as (uid {os.geteuid()})",
        ) from error


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that any one thread at a time may use, and that begins no transaction by itself."""
    connection = sqlite3.connect(
        path, timeout=LOCK_WAIT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    # Each transaction is on the disk before anybody is answered; WAL lets readers go on meanwhile.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to what this program knows; raise `StoreTooNewError` if it is beyond that."""
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
