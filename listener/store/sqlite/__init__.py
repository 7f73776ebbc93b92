"""The durable store on SQLite: one queue for one listener, in one file."""

from listener.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
