"""Deleting what is old: a bounded number of rows at a time, so that nobody waits long behind it."""

from listener.queue import Pruned
from listener.store.postgres.writer import Transaction

# What another transaction refers to at this moment is locked by it, and left for the next time.
_OLD = """
SELECT r.id FROM runs AS r
WHERE r.finished_at IS NOT NULL
    AND (
        r.finished_at < :before
        OR r.id <= (SELECT id FROM runs WHERE finished_at IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET :keep)
    )
    AND NOT EXISTS (SELECT 1 FROM runs AS s WHERE s.successor = r.id)
    AND NOT EXISTS (SELECT 1 FROM runs AS b WHERE b.undoes = r.id)
    AND NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.run = r.id)
    AND r.id <> coalesce((
        SELECT l.id FROM runs AS l
        WHERE l.site = r.site AND l.environment = r.environment AND l.state = 'succeeded' AND l.undoes IS NULL
        ORDER BY l.finished_at DESC, l.id DESC LIMIT 1
    ), '')
ORDER BY r.id LIMIT :most
FOR UPDATE OF r SKIP LOCKED
"""
_RUNS = (
    "DELETE FROM log_lines WHERE run = ANY (:runs::text[])",
    "DELETE FROM triggers WHERE run = ANY (:runs::text[])",
    "DELETE FROM runs WHERE id = ANY (:runs::text[])",
)
_DELIVERIES = """
DELETE FROM deliveries WHERE id IN (
    SELECT d.id FROM deliveries AS d
    WHERE d.received_at < :before AND NOT EXISTS (SELECT 1 FROM triggers AS t WHERE t.delivery = d.id)
    ORDER BY d.received_at LIMIT :most
    FOR UPDATE OF d SKIP LOCKED
)
RETURNING id
"""
_REFUSALS = """
DELETE FROM refusals WHERE id IN (
    SELECT id FROM refusals WHERE at < :before ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
)
RETURNING id
"""
_USES = """
DELETE FROM uses WHERE (kind, owner, name) IN (
    SELECT kind, owner, name FROM uses WHERE last < :before FOR UPDATE SKIP LOCKED
)
"""


async def prune(transaction: Transaction, before: float, keep: int, most: int) -> Pruned:
    """Delete what `RunStore.prune` says."""
    values = {"before": before, "keep": keep, "most": most}
    old = [row["id"] for row in await transaction.all(_OLD, values)]
    for statement in _RUNS if old else ():
        await transaction.write(statement, {"runs": old})
    await transaction.write(_USES, values)
    arrivals = [each for what in (_DELIVERIES, _REFUSALS) for each in await transaction.change(what, values)]
    return Pruned(len(old), len(arrivals))
