"""The durable store of runs, deliveries and logs."""

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

from listener.access import SessionStore
from listener.errors import ConfigurationError
from listener.events import EventStore
from listener.looks import LookStore
from listener.queue import RunStore
from listener.records import Records
from listener.store import copying
from listener.store.copying import Copied
from listener.store.sqlite import SqliteStore, transfer
from listener.store.transaction import Transaction


class Store(RunStore, Records, SessionStore, LookStore, EventStore, Protocol):
    """The ports of the store together, with its start and its end."""

    async def open(self) -> None:
        """Make the store ready, or raise `StoreError` or `ConfigurationError`."""

    async def close(self) -> None:
        """Carry out what is queued, and close the database."""

    async def examine(self) -> None:
        """Check everything that is stored once, in the background. `ping` raises what is found."""

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` if the store can't take a delivery."""


POSTGRES_SCHEMES = ("postgresql", "postgres")
_WRITE = "write sqlite:///absolute/path/listener.db, or postgresql://USER@HOST/DATABASE"


def open_store(url: str) -> Store:
    """Return the store that `url` names, not opened yet, or raise `ConfigurationError`."""
    path = _path(url)
    if path is not None:
        return SqliteStore(path)
    store: Store = _postgres("store").PostgresStore(url)
    return store


async def move(url: str, target: str, target_name: str, now: float) -> Copied:
    """Copy everything from one store to an empty one, by their URLs; mark the first as moved.

    `target_name` is the name of the target in messages. Raises `ConfigurationError` or `StoreError`; then
    nothing is moved.
    """
    return await copying.copy(_alone(url, now), _alone(target, now), target_name, now)


def _alone(url: str, now: float) -> AbstractAsyncContextManager[Transaction]:
    path = _path(url)
    if path is not None:
        return transfer.alone(path, now)
    alone: AbstractAsyncContextManager[Transaction] = _postgres("transfer").alone(url, now)
    return alone


def _path(url: str) -> Path | None:
    """Return the path of the SQLite file that a URL names; None for a database of PostgreSQL."""
    # A URL may carry a password: no message repeats more of it than its scheme.
    scheme = url.partition(":")[0]
    if scheme in POSTGRES_SCHEMES:
        return None
    if scheme != "sqlite":
        raise ConfigurationError(f"store: unknown scheme {scheme!r}", remedy=_WRITE)
    path = Path(url.removeprefix("sqlite://"))
    if not path.is_absolute() or url.endswith("/"):
        raise ConfigurationError("store: the path of the SQLite file must be absolute", remedy=_WRITE)
    return path


def _postgres(module: str) -> ModuleType:
    try:
        # Imported here, so that a listener on SQLite does not need asyncpg.
        return import_module(f"listener.store.postgres.{module}")
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        raise ConfigurationError(
            "store: PostgreSQL needs asyncpg, which is not installed",
            remedy="pip install 'sync-staging[postgres]', with the pip of the listener's own environment",
        ) from None
