"""Deleting what is old: a bounded number of rows at a time, so that nobody waits long behind it."""

from listener.queue import Pruned
from listener.store.writer import Transaction

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
"""
_LINES = "DELETE FROM log_lines WHERE run = :run"
_TRIGGERS = "DELETE FROM triggers WHERE run = :run"
_RUN = "DELETE FROM runs WHERE id = :run"
_DELIVERIES = """
DELETE FROM deliveries WHERE id IN (
    SELECT d.id FROM deliveries AS d
    WHERE d.received_at < :before AND NOT EXISTS (SELECT 1 FROM triggers AS t WHERE t.delivery = d.id)
    ORDER BY d.received_at LIMIT :most
)
"""
_REFUSALS = """
DELETE FROM refusals WHERE id IN (
    SELECT id FROM refusals WHERE at < :before ORDER BY id LIMIT :most
)
"""
_USES = "DELETE FROM uses WHERE last < :before"


def prune(transaction: Transaction, before: float, keep: int, most: int) -> Pruned:
    """Delete what `RunStore.prune` says."""
    values = {"before": before, "keep": keep, "most": most}
    old = [{"run": row["id"]} for row in transaction.all(_OLD, values)]
    for run in old:
        for statement in (_LINES, _TRIGGERS, _RUN):
            transaction.execute(statement, run)
    transaction.execute(_USES, values)
    arrivals = transaction.execute(_DELIVERIES, values) + transaction.execute(_REFUSALS, values)
    return Pruned(len(old), arrivals)
