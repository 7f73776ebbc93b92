"""Where runs, deliveries and logs are kept, durably."""

from importlib import import_module
from pathlib import Path
from typing import Protocol

from listener.access import SessionStore
from listener.errors import ConfigurationError
from listener.queue import RunStore
from listener.records import Records
from listener.store.sqlite import SqliteStore


class Store(RunStore, Records, SessionStore, Protocol):
    """All that is kept, with its beginning and end."""

    async def open(self) -> None:
        """Make it ready; raise `StoreError` or `ConfigurationError` when that can't be."""

    async def close(self) -> None:
        """Finish what was asked for and let go of it."""

    async def examine(self) -> None:
        """Look once through all that is stored, in the background: `ping` tells what is found."""

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless it can take a delivery."""


POSTGRES_SCHEMES = ("postgresql", "postgres")


def open_store(url: str) -> Store:
    """Return the store that `url` names, still to be opened, or raise `ConfigurationError`."""
    # A URL may carry a password: no message repeats more of it than its scheme.
    scheme = url.partition(":")[0]
    if scheme in POSTGRES_SCHEMES:
        return _postgres(url)
    if scheme != "sqlite":
        raise ConfigurationError(
            f"store: no store is known by the scheme {scheme!r}",
            remedy="write sqlite:///absolute/path/listener.db, or postgresql://USER@HOST/DATABASE",
        )
    path = Path(url.removeprefix("sqlite://"))
    if not path.is_absolute() or url.endswith("/"):
        raise ConfigurationError(
            "store: the path of the SQLite file must be absolute",
            remedy="write sqlite:///absolute/path/listener.db",
        )
    return SqliteStore(path)


def _postgres(url: str) -> Store:
    try:
        # Only who has such a store needs what it stands on.
        module = import_module("listener.store.postgres")
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        raise ConfigurationError(
            "store: PostgreSQL needs asyncpg, which is not installed",
            remedy="pip install 'sync-staging[postgres]', with the pip of the listener's own environment",
        ) from None
    store: Store = module.PostgresStore(url)
    return store
