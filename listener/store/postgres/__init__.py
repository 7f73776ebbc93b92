"""The durable store on PostgreSQL: one queue for several listeners."""

from listener.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
