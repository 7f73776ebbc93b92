"""Sessions: sign-ins to the page."""

from listener.access import SESSIONS_MOST, Session
from listener.store.rows import session_of
from listener.store.transaction import Reader, Transaction

_BEGIN = "INSERT INTO sessions (key, token, sha256, expires) VALUES (:key, :token, :hash, :expires)"
_FIND = "SELECT key, token, sha256, expires FROM sessions WHERE key = :key"
_CROWD_OUT = """
DELETE FROM sessions WHERE token = :token AND key NOT IN (
    SELECT key FROM sessions WHERE token = :token ORDER BY expires DESC, key LIMIT :most
)
"""
_END = "DELETE FROM sessions WHERE key = :key"
_PRUNE = "DELETE FROM sessions WHERE expires <= :now RETURNING key"


async def begin(transaction: Transaction, session: Session) -> None:
    """Store a session. If its token has too many, delete the one that expires first."""
    values = {"key": session.key, "token": session.token, "hash": session.sha256}
    await transaction.write(_BEGIN, {**values, "expires": session.expires})
    await transaction.write(_CROWD_OUT, {"token": session.token, "most": SESSIONS_MOST})


async def find(reader: Reader, key: str) -> Session | None:
    """Return a session, or None."""
    row = await reader.one(_FIND, {"key": key})
    return None if row is None else session_of(row)


async def end(transaction: Transaction, key: str) -> None:
    """Delete a session."""
    await transaction.write(_END, {"key": key})


async def prune(transaction: Transaction, now: float) -> int:
    """Delete expired sessions; return how many."""
    return len(await transaction.change(_PRUNE, {"now": now}))
