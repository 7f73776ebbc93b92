"""What is on record of those who came: written down in one go, read page by page."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from listener.errors import DeliveryNotFoundError
from listener.records import Arrival, ArrivalFilter, Refusal, Served, Use
from listener.store.rows import Row, arrival_of, served_of
from listener.store.writer import Transaction

_REFUSAL = """
INSERT INTO refusals
    (id, at, request, reason, status, client, credential, hook, size, digest, headers, count)
VALUES
    (:id, :at, :request, :reason, :status, :client, :credential, :hook, :size, :digest, :headers, :count)
ON CONFLICT (id) DO NOTHING
"""
_NEWEST = """
DELETE FROM refusals WHERE id <= (SELECT id FROM refusals ORDER BY id DESC LIMIT 1 OFFSET :keep)
"""
_USE = """
INSERT INTO uses (kind, owner, name, count, last) VALUES (:kind, :owner, :name, :count, :last)
ON CONFLICT (kind, owner, name) DO UPDATE SET
    count = uses.count + excluded.count, last = max(uses.last, excluded.last)
"""
_SAME_BODY = """
(SELECT e.id FROM deliveries AS e
 WHERE e.hook = a.hook AND e.digest = a.digest AND e.id < a.id AND a.digest <> '' AND a.fate <> 'refused'
 ORDER BY e.id DESC LIMIT 1) AS same_body
"""
# No id is beyond a tilde: with OR in its place, the rows of earlier pages would be read too.
_SOME = """
SELECT * FROM (
    SELECT * FROM {0}
    WHERE (:hook IS NULL OR hook = :hook)
        AND (:fate IS NULL OR fate = :fate)
        AND id < coalesce(:before, '~')
    ORDER BY id DESC LIMIT :limit
) AS {0}
"""
_PAGE = f"""
SELECT a.*, {_SAME_BODY} FROM (
    {_SOME.format("taken")} UNION ALL {_SOME.format("refused")} ORDER BY id DESC LIMIT :limit
) AS a ORDER BY a.id DESC
"""  # noqa: S608 (ours)
_ONE = f"""
SELECT a.*, {_SAME_BODY} FROM (
    SELECT * FROM taken WHERE id = :id UNION ALL SELECT * FROM refused WHERE id = :id
) AS a
"""  # noqa: S608 (ours)
_SERVED = """
SELECT * FROM triggers WHERE delivery IN (SELECT value FROM json_each(:deliveries)) ORDER BY position
"""


def record(transaction: Transaction, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int) -> None:
    """Store what `Records.record` says."""
    for refusal in refusals:
        transaction.execute(_REFUSAL, asdict(refusal) | {"headers": json.dumps(dict(refusal.headers))})
    if refusals:
        transaction.execute(_NEWEST, {"keep": keep})
    for use in uses:
        transaction.execute(_USE, asdict(use))


def arrivals(connection: sqlite3.Connection, which: ArrivalFilter) -> list[Arrival]:
    """Return a page of what arrived, newest first."""
    return _told(connection, connection.execute(_PAGE, asdict(which)).fetchall())


def arrival(connection: sqlite3.Connection, arrival_id: str) -> Arrival:
    """Return one, or raise `DeliveryNotFoundError`."""
    found = _told(connection, connection.execute(_ONE, {"id": arrival_id}).fetchall())
    if not found:
        raise DeliveryNotFoundError
    return found[0]


def uses(connection: sqlite3.Connection) -> list[Use]:
    """Return every credential's uses."""
    return [Use(**dict(row)) for row in connection.execute("SELECT * FROM uses ORDER BY kind, owner, name")]


def _told(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[Arrival]:
    deliveries = json.dumps([row["id"] for row in rows])
    served = served_by_delivery(connection.execute(_SERVED, {"deliveries": deliveries}))
    return [arrival_of(row, served.get(row["id"], ())) for row in rows]


def served_by_delivery(rows: Iterable[Row]) -> dict[str, list[Served]]:
    """Return what each delivery asked for, of the rows of `triggers`."""
    found: dict[str, list[Served]] = {}
    for row in rows:
        found.setdefault(row["delivery"], []).append(served_of(row))
    return found
