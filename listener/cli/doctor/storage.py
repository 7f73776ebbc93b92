"""Checks whether the store can be used, and whether the disks have room."""

import os
import pwd
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from listener.cli.doctor.findings import Finding, Group
from listener.config.settings import STORE_PREFIX, Settings
from listener.errors import StoreError
from listener.store import sqlite as sqlite_store
from listener.store.copying import demand_unmoved
from listener.store.migrations import latest, missing
from listener.store.sqlite.dialect import SqliteTransaction, step
from listener.store.sqlite.health import REMEDY

CHECK_LIMIT = 10.0
"""The most seconds for the check of a SQLite file."""
_LOOK_EVERY = 10_000

LITTLE_ROOM, NO_ROOM = 1 << 30, 64 << 20
"""Bytes. Little room is a warning only on a disk with less than `LITTLE_SHARE` free."""
LITTLE_SHARE = 0.05

MOUNTS = Path("/proc/self/mounts")
NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "fuse.sshfs", "afs")
MEMORY = ("tmpfs", "ramfs")


def is_sqlite(settings: Settings) -> bool:
    """Return whether the store is a SQLite file."""
    return settings.store.startswith(STORE_PREFIX)


def sqlite_findings(path: Path, users: Collection[int]) -> Iterator[Finding]:
    """Check a SQLite store. `users` are those that its files may belong to. Nothing is locked or written."""
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        message = f"the folder {folder} does not exist, or this user may not write to it"
        remedy = "create it, and give it to the user that the listener runs as"
        yield Finding.problem(Group.STORE, str(path), "store-folder", message, remedy)
        return
    if not path.exists():
        yield Finding.good(Group.STORE, str(path), "it does not exist yet; the first start creates it")
        return
    found = [*_modes(path, users), *_content(path)]
    yield from found
    if not found:
        yield Finding.good(Group.STORE, str(path), f"schema {latest(sqlite_store.__name__)}")


def _modes(path: Path, users: Collection[int]) -> Iterator[Finding]:
    """Yield the files of the store that other users can open, or that belong to another user."""
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", ".lock"))):
        try:
            found = file.stat()
        except OSError:
            continue
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not file.name.endswith(".lock"):
            message = f"other users can open {file}, which contains deliveries and the names of callers"
            yield Finding.problem(Group.STORE, str(path), "store-exposed", message, f"run chmod 600 {file}")
        if found.st_uid not in users:
            message = f"{file} belongs to {user_name(found.st_uid)}, not to the listener's user"
            remedy = "stop the listener, then give the file to the listener's user (chown)"
            yield Finding.problem(Group.STORE, str(path), "store-owner", message, remedy)


def _content(path: Path) -> Iterator[Finding]:
    """Yield what is wrong in the file. Without a write-ahead log beside it, it is opened as immutable."""
    what, log = str(path), path.with_name(path.name + "-wal")
    mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(what)}?{mode}", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if missing(sqlite_store.__name__, schema):
                message = f"it has schema {schema}; the next start brings it to schema "
                yield Finding.good(Group.STORE, what, f"{message}{latest(sqlite_store.__name__)}")
            else:
                step(demand_unmoved(SqliteTransaction(connection)))
            yield from _damage(connection, what)
    except StoreError as error:
        yield Finding.of(Group.STORE, what, error)
    except sqlite3.Error as error:
        yield Finding.problem(Group.STORE, what, "store-damaged", f"SQLite says: {error}", REMEDY)


def _damage(connection: sqlite3.Connection, what: str) -> Iterator[Finding]:
    until = time.monotonic() + CHECK_LIMIT
    connection.set_progress_handler(lambda: int(time.monotonic() > until), _LOOK_EVERY)
    try:
        rows = connection.execute("PRAGMA quick_check(3)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        message = (
            f"it is large: the check ended after {CHECK_LIMIT:g} s; sync-staging store check has no limit"
        )
        yield Finding.good(Group.STORE, what, message)
        return
    faults = [str(row[0]) for row in rows if row[0] != "ok"]
    if faults:
        yield Finding.problem(Group.STORE, what, "store-damaged", f"SQLite says: {'; '.join(faults)}", REMEDY)


def disk_findings(settings: Settings) -> Iterator[Finding]:
    """Check the file systems of the store and of the cache."""
    places = {"sync.cache": Path(settings.sync.cache)}
    if is_sqlite(settings):
        places = {"store": Path(settings.store_name)} | places
    seen: set[int] = set()
    for setting, path in places.items():
        folder = next(each for each in (path.parent, *path.parents) if each.exists())
        what = f"{setting}, {folder}"
        if setting == "store":
            yield from suited(what, kind_of(folder))
        device = folder.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield room(what, os.statvfs(folder))


def suited(what: str, kind: str) -> Iterator[Finding]:
    """Yield a finding if a SQLite file should not be on a file system of this kind."""
    if kind.startswith(NETWORK):
        message = f"the store is on a network file system ({kind}), where SQLite can lose data"
        remedy = "move it to a local disk, or use PostgreSQL (sync-staging store copy)"
        yield Finding.problem(Group.DISK, what, "store-on-network", message, remedy)
    elif kind in MEMORY:
        message = f"the store is in memory ({kind}): a restart of the machine deletes it"
        yield Finding.warning(Group.DISK, what, "store-in-memory", message, "move it to a disk")


def room(what: str, found: os.statvfs_result) -> Finding:
    """Check whether a file system has room."""
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{free / (1 << 30):.1f} GiB free"
    if found.f_flag & os.ST_RDONLY:
        remedy = "mount it read-write"
        return Finding.problem(
            Group.DISK, what, "disk-read-only", "the file system is mounted read-only", remedy
        )
    if free < NO_ROOM or (found.f_files and not found.f_favail):
        lacking = text if free < NO_ROOM else "no inode is free"
        return Finding.problem(Group.DISK, what, "disk-full", lacking, "free space, or use a larger disk")
    if free < LITTLE_ROOM and free < LITTLE_SHARE * size:
        return Finding.warning(Group.DISK, what, "disk-low", text, "free space, or use a larger disk")
    return Finding.good(Group.DISK, what, text)


def kind_of(folder: Path) -> str:
    """Return the kind of the file system that a folder is on; empty if that is not known."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real, best, kind = folder.resolve(), -1, ""
    for line in lines:
        fields = line.split(" ")
        point = Path(fields[1].replace(r"\040", " "))
        # Of several mounts at one place, the last one counts.
        if len(point.parts) >= best and real.is_relative_to(point):
            best, kind = len(point.parts), fields[2]
    return kind


def owner(path: Path) -> int | None:
    """Return the id of the process that has a SQLite store open, or had it open last."""
    try:
        text = path.with_name(path.name + ".lock").read_text(encoding="ascii")[:32].strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def user_name(uid: int) -> str:
    """Return a user's name, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
