"""Where runs, deliveries and logs are kept, durably."""

from pathlib import Path
from typing import Protocol

from listener.errors import ConfigurationError
from listener.runs import RunStore
from listener.store.sqlite import SqliteStore


class Store(RunStore, Protocol):
    """A `RunStore` with its beginning and end."""

    async def open(self) -> None:
        """Make it ready; raise `StoreError` or `ConfigurationError` when that can't be."""

    async def close(self) -> None:
        """Finish what was asked for and let go of it."""

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless it can take a delivery."""


def open_store(url: str) -> Store:
    """Return the store that `url` names, still to be opened, or raise `ConfigurationError`."""
    # A URL may carry a password: no message repeats more of it than its scheme.
    scheme = url.partition(":")[0]
    if scheme != "sqlite":
        raise ConfigurationError(
            f"store: no store is known by the scheme {scheme!r}",
            remedy="write sqlite:///absolute/path/listener.db",
        )
    path = Path(url.removeprefix("sqlite://"))
    if not path.is_absolute() or url.endswith("/"):
        raise ConfigurationError(
            "store: the path of the SQLite file must be absolute",
            remedy="write sqlite:///absolute/path/listener.db",
        )
    return SqliteStore(path)
