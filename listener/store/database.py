"""The database file: its lock, its connections and its schema."""

import fcntl
import os
import re
import sqlite3
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from listener.errors import ConfigurationError, StoreLockedError, StoreTooNewError

_LOCK_WAIT = 5.0
"""Seconds to wait for a foreign reader, such as a backup, that holds the database for a moment."""


class FileLock:
    """Keeps a second listener out of the store for as long as this one lives."""

    def __init__(self, database: Path) -> None:
        """Lock the store, or raise `StoreLockedError` or `ConfigurationError`."""
        # The kernel lets go of it when the process ends, however that happens. The file itself stays: were
        # it removed, a third process could lock a new one while a second still waits with the old.
        _check_directory(database.parent)
        self._file = os.fdopen(create(database.with_name(database.name + ".lock")), "r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._file.read(32).decode("ascii", "replace").strip()
            self._file.close()
            raise StoreLockedError(
                f"Another listener (process {owner or 'unknown'}) has the store open: {database}",
                remedy="stop that process first, or give this listener a store of its own",
            ) from None
        # The lock holds without the number in it: a full disk must not keep the listener from starting.
        with suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let the next listener in."""
        self._file.close()


def _check_directory(directory: Path) -> None:
    # The database makes files of its own beside itself: that the file can be written is not enough.
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigurationError(
            f"store: the directory {directory} does not exist, or can't be written to",
            remedy=f"make it, and give it to the user that the listener runs as (uid {os.geteuid()})",
        )


def create(path: Path) -> int:
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
    connection = sqlite3.connect(path, timeout=_LOCK_WAIT, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    # Each transaction is on the disk before anybody is answered; WAL lets readers go on meanwhile.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to what this program knows; raise `StoreTooNewError` if it is beyond that."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    known = migrations()
    if version > max(known):
        raise StoreTooNewError(
            f"The store has schema {version}, and this program knows no later one than {max(known)}.",
            remedy="run the newer version again, or restore the copy from before the upgrade",
        )
    for number in sorted(known):
        if number > version:
            _apply(connection, number, known[number])


def migrations(package: str = __package__) -> dict[int, str]:
    """Return the SQL of every migration of a package by its number."""
    found = {}
    for file in files(package).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_\w+\.sql", file.name):
            found[int(match[1])] = file.read_text(encoding="utf-8")
    return found


def _apply(connection: sqlite3.Connection, number: int, sql: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
