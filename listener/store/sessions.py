"""Sign-ins to the page."""

import sqlite3

from listener.access import SESSIONS_MOST, Session
from listener.store.rows import session_of
from listener.store.writer import Transaction

_BEGIN = "INSERT INTO sessions (key, token, sha256, expires) VALUES (:key, :token, :hash, :expires)"
_FIND = "SELECT key, token, sha256, expires FROM sessions WHERE key = :key"
_CROWD_OUT = """
DELETE FROM sessions WHERE token = :token AND key NOT IN (
    SELECT key FROM sessions WHERE token = :token ORDER BY expires DESC, key LIMIT :most
)
"""
_END = "DELETE FROM sessions WHERE key = :key"
_PRUNE = "DELETE FROM sessions WHERE expires <= :now"


def begin(transaction: Transaction, session: Session) -> None:
    """Keep a session, instead of the one that ends first where its token has many."""
    values = {"key": session.key, "token": session.token, "hash": session.sha256}
    transaction.execute(_BEGIN, {**values, "expires": session.expires})
    transaction.execute(_CROWD_OUT, {"token": session.token, "most": SESSIONS_MOST})


def find(connection: sqlite3.Connection, key: str) -> Session | None:
    """Return a session, or None."""
    row = connection.execute(_FIND, {"key": key}).fetchone()
    return None if row is None else session_of(row)


def end(transaction: Transaction, key: str) -> None:
    """Forget a session."""
    transaction.execute(_END, {"key": key})


def prune(transaction: Transaction, now: float) -> int:
    """Forget what has expired; return how many."""
    return transaction.execute(_PRUNE, {"now": now})
