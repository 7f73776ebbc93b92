"""Deleting what is old, a limited number of rows at a time, so that other writes do not wait long.

The readers look for old rows, which delays nobody. The transaction that deletes them checks only these rows
again.
"""

from collections.abc import Collection

from listener.queue import Pruned
from listener.runs import first_id
from listener.store import happened
from listener.store.transaction import Reader, Transaction

# A run stays if another row refers to it, or if it is the last success of its environment.
_NEEDLESS = """
r.finished_at IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM runs AS s WHERE s.successor = r.id)
    AND NOT EXISTS (SELECT 1 FROM runs AS b WHERE b.undoes = r.id)
    AND NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.run = r.id)
    AND r.id <> coalesce((
        SELECT l.id FROM runs AS l
        WHERE l.site = r.site AND l.environment = r.environment AND l.state = 'succeeded' AND l.undoes IS NULL
        ORDER BY l.finished_at DESC, l.id DESC LIMIT 1
    ), '')
"""
_OLD = f"""
SELECT r.id FROM runs AS r WHERE r.finished_at < :before AND {_NEEDLESS} ORDER BY r.finished_at LIMIT :most
"""  # noqa: S608 (ours)
_TOO_MANY = f"""
SELECT r.id FROM runs AS r
WHERE r.id <= (SELECT id FROM runs WHERE finished_at IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET :keep)
    AND {_NEEDLESS}
ORDER BY r.id LIMIT :most
"""  # noqa: S608 (ours)
# Ids sort by time. A delivery that came again has a later time than its id.
_OLD_DELIVERIES = """
SELECT d.id FROM deliveries AS d
WHERE d.id < :first AND d.received_at < :before
    AND NOT EXISTS (SELECT 1 FROM triggers AS t WHERE t.delivery = d.id)
ORDER BY d.id LIMIT :most
"""
# A run that another transaction refers to at this moment is locked by it. It is left for the next time.
_STILL = f"""
SELECT r.id FROM runs AS r WHERE r.id = ANY (:ids::text[]) AND {_NEEDLESS} FOR UPDATE OF r SKIP LOCKED
"""  # noqa: S608 (ours)
_RUNS = (
    "DELETE FROM log_lines WHERE run = ANY (:runs::text[])",
    "DELETE FROM triggers WHERE run = ANY (:runs::text[])",
    "DELETE FROM runs WHERE id = ANY (:runs::text[])",
)
_DELIVERIES = """
DELETE FROM deliveries WHERE id IN (
    SELECT d.id FROM deliveries AS d
    WHERE d.id = ANY (:ids::text[]) AND NOT EXISTS (SELECT 1 FROM triggers AS t WHERE t.delivery = d.id)
    FOR UPDATE OF d SKIP LOCKED
)
RETURNING id
"""
_REFUSALS = """
DELETE FROM refusals WHERE id IN (
    SELECT id FROM refusals WHERE id < :first ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
)
RETURNING id
"""
_HOOKS = """
WITH RECURSIVE hooks (hook) AS (
    SELECT min(hook) FROM deliveries
    UNION ALL
    SELECT (SELECT min(d.hook) FROM deliveries AS d WHERE d.hook > h.hook) FROM hooks AS h
    WHERE h.hook IS NOT NULL
)
SELECT hook FROM hooks WHERE hook IS NOT NULL
"""
_KEPT = """
SELECT count(*) AS kept FROM (
    SELECT id FROM deliveries WHERE hook = :hook AND facts <> '' ORDER BY id DESC LIMIT :most
) AS whole
"""
_ONE_TOO_MANY = """
SELECT d.id FROM deliveries AS d
WHERE d.hook = :hook AND d.facts <> '' AND d.id <= (
    SELECT id FROM deliveries WHERE hook = :hook AND facts <> '' ORDER BY id DESC LIMIT 1 OFFSET :keep
)
ORDER BY d.id LIMIT :most
"""
_STRIP = """
UPDATE deliveries SET headers = '', facts = '' WHERE id IN (
    SELECT id FROM deliveries WHERE id = ANY (:ids::text[]) AND facts <> '' FOR UPDATE SKIP LOCKED
)
RETURNING id
"""
# A run that has ended does not need its triggers.
_UNNEEDED = """
d.facts = '' AND d.id < :first AND d.received_at < :before AND coalesce(d.last_at, 0) < :before
    AND NOT EXISTS (
        SELECT 1 FROM triggers AS t JOIN runs AS r ON r.id = t.run
        WHERE t.delivery = d.id AND r.finished_at IS NULL
    )
"""
_OLD_BARE = f"SELECT d.id FROM deliveries AS d WHERE {_UNNEEDED} ORDER BY d.id LIMIT :most"  # noqa: S608 (ours)
_STILL_BARE = f"""
SELECT d.id FROM deliveries AS d WHERE d.id = ANY (:ids::text[]) AND {_UNNEEDED}
FOR UPDATE OF d SKIP LOCKED
"""  # noqa: S608 (ours)
_BARE = (
    "DELETE FROM triggers WHERE delivery = ANY (:ids::text[])",
    "DELETE FROM deliveries WHERE id = ANY (:ids::text[])",
)
_REPEATS = """
DELETE FROM repeats WHERE (hook, key) IN (
    SELECT hook, key FROM repeats WHERE at < :before ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
)
RETURNING key
"""
_USES = "DELETE FROM uses WHERE last < :before"


async def old_runs(reader: Reader, before: float, keep: int, most: int) -> list[str]:
    """Return the ids of runs to delete: the too old ones, or if there are none, those beyond `keep`."""
    values = {"before": before, "keep": keep, "most": most}
    old = [row["id"] for row in await reader.all(_OLD, values)]
    return old or [row["id"] for row in await reader.all(_TOO_MANY, values)]


async def delete_runs(transaction: Transaction, ids: Collection[str]) -> int:
    """Delete those of the runs that may still be deleted, with their lines and triggers; return how many."""
    old = [row["id"] for row in await transaction.all(_STILL, {"ids": list(ids)})]
    for statement in _RUNS if old else ():
        await transaction.write(statement, {"runs": old})
    return len(old)


async def old_deliveries(reader: Reader, before: float, most: int) -> list[str]:
    """Return the ids of deliveries to delete: those that are too old and that no trigger needs."""
    values = {"first": first_id(before), "before": before, "most": most}
    return [row["id"] for row in await reader.all(_OLD_DELIVERIES, values)]


async def delete_arrivals(transaction: Transaction, ids: Collection[str], before: float, most: int) -> int:
    """Delete those of the deliveries that may still be deleted, and old refused requests; return how many."""
    await transaction.write(_USES, {"before": before})
    taken = await transaction.change(_DELIVERIES, {"ids": list(ids)})
    refused = await transaction.change(_REFUSALS, {"first": first_id(before), "most": most})
    return len(taken) + len(refused)


async def prune(transaction: Transaction, before: float, keep: int, most: int) -> Pruned:
    """Carry out `RunStore.prune` in one transaction."""
    old = await old_runs(transaction, before, keep, most)
    await happened.forget(transaction, await happened.horizon(transaction, before, old, keep), most * 10)
    runs = await delete_runs(transaction, old)
    found = await old_deliveries(transaction, before, most)
    return Pruned(runs, await delete_arrivals(transaction, found, before, most))


async def kept(reader: Reader, most: int) -> dict[str, int]:
    """Carry out `RunStore.kept`."""
    counts = {}
    for row in await reader.all(_HOOKS):
        values = {"hook": row["hook"], "most": most}
        counts[str(row["hook"])] = sum(each["kept"] for each in await reader.all(_KEPT, values))
    return counts


async def too_many(reader: Reader, keep: int, most: int) -> list[str]:
    """Return ids of whole deliveries that are not among the newest `keep` of their hook."""
    ids: list[str] = []
    for row in await reader.all(_HOOKS):
        values = {"hook": row["hook"], "keep": keep, "most": most - len(ids)}
        ids += [each["id"] for each in await reader.all(_ONE_TOO_MANY, values)]
    return ids


async def old_bare(reader: Reader, before: float, most: int) -> list[str]:
    """Return ids of trimmed deliveries from before a time that no active run refers to."""
    values = {"first": first_id(before), "before": before, "most": most}
    return [row["id"] for row in await reader.all(_OLD_BARE, values)]


async def trim(
    transaction: Transaction, many: Collection[str], old: Collection[str], before: float, most: int
) -> Pruned:
    """Trim the deliveries `many`; delete the deliveries `old`, and old ids of repeated ones."""
    stripped = await transaction.change(_STRIP, {"ids": list(many)})
    values = {"ids": list(old), "first": first_id(before), "before": before}
    gone = [row["id"] for row in await transaction.all(_STILL_BARE, values)]
    for statement in _BARE if gone else ():
        await transaction.write(statement, {"ids": gone})
    ids = await transaction.change(_REPEATS, {"before": before, "most": most})
    return Pruned(deliveries=len(gone) + len(ids), details=len(stripped))


async def trim_all(transaction: Transaction, keep: int, before: float, most: int) -> Pruned:
    """Carry out `RunStore.trim` in one transaction."""
    many = await too_many(transaction, keep, most)
    return await trim(transaction, many, await old_bare(transaction, before, most), before, most)
