"""Deleting what is old: a bounded number of rows at a time, so that nobody waits long behind it.

What is old is looked for by the readers, which hold nobody up; the transaction that deletes it looks
again only at what was found.
"""

from collections.abc import Collection

from listener.queue import Pruned
from listener.runs import first_id
from listener.store.transaction import Reader, Transaction

# What another row refers to stays, and so does the last success of an environment.
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
# Ids sort by time; one that came again has a later time than its id.
_OLD_DELIVERIES = """
SELECT d.id FROM deliveries AS d
WHERE d.id < :first AND d.received_at < :before
    AND NOT EXISTS (SELECT 1 FROM triggers AS t WHERE t.delivery = d.id)
ORDER BY d.id LIMIT :most
"""
# What another transaction refers to at this moment is locked by it, and left for the next time.
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
# Runs that have ended do without who asked for them.
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
    """Return the ids of runs that may go: those that are too old, or one too many."""
    values = {"before": before, "keep": keep, "most": most}
    old = [row["id"] for row in await reader.all(_OLD, values)]
    return old or [row["id"] for row in await reader.all(_TOO_MANY, values)]


async def delete_runs(transaction: Transaction, ids: Collection[str]) -> int:
    """Delete runs that still may go, with their lines and triggers; return how many."""
    old = [row["id"] for row in await transaction.all(_STILL, {"ids": list(ids)})]
    for statement in _RUNS if old else ():
        await transaction.write(statement, {"runs": old})
    return len(old)


async def old_deliveries(reader: Reader, before: float, most: int) -> list[str]:
    """Return the ids of deliveries that may go: those that are too old, and that no trigger needs."""
    values = {"first": first_id(before), "before": before, "most": most}
    return [row["id"] for row in await reader.all(_OLD_DELIVERIES, values)]


async def delete_arrivals(transaction: Transaction, ids: Collection[str], before: float, most: int) -> int:
    """Delete deliveries that still may go, and refused requests from before a time; return how many."""
    await transaction.write(_USES, {"before": before})
    taken = await transaction.change(_DELIVERIES, {"ids": list(ids)})
    refused = await transaction.change(_REFUSALS, {"first": first_id(before), "most": most})
    return len(taken) + len(refused)


async def prune(transaction: Transaction, before: float, keep: int, most: int) -> Pruned:
    """Delete what `RunStore.prune` says, in one transaction that looks for it too."""
    runs = await delete_runs(transaction, await old_runs(transaction, before, keep, most))
    found = await old_deliveries(transaction, before, most)
    return Pruned(runs, await delete_arrivals(transaction, found, before, most))


async def kept(reader: Reader, most: int) -> dict[str, int]:
    """Return what `RunStore.kept` says."""
    counts = {}
    for row in await reader.all(_HOOKS):
        values = {"hook": row["hook"], "most": most}
        counts[str(row["hook"])] = sum(each["kept"] for each in await reader.all(_KEPT, values))
    return counts


async def too_many(reader: Reader, keep: int, most: int) -> list[str]:
    """Return ids of deliveries that are not among the newest `keep` of their hook, and have all they said."""
    ids: list[str] = []
    for row in await reader.all(_HOOKS):
        values = {"hook": row["hook"], "keep": keep, "most": most - len(ids)}
        ids += [each["id"] for each in await reader.all(_ONE_TOO_MANY, values)]
    return ids


async def old_bare(reader: Reader, before: float, most: int) -> list[str]:
    """Return ids of deliveries that have only an outcome, from before a time, that no run waits for."""
    values = {"first": first_id(before), "before": before, "most": most}
    return [row["id"] for row in await reader.all(_OLD_BARE, values)]


async def trim(
    transaction: Transaction, many: Collection[str], old: Collection[str], before: float, most: int
) -> Pruned:
    """Take from some deliveries what they said; delete others and old ids of repeated ones."""
    stripped = await transaction.change(_STRIP, {"ids": list(many)})
    values = {"ids": list(old), "first": first_id(before), "before": before}
    gone = [row["id"] for row in await transaction.all(_STILL_BARE, values)]
    for statement in _BARE if gone else ():
        await transaction.write(statement, {"ids": gone})
    ids = await transaction.change(_REPEATS, {"before": before, "most": most})
    return Pruned(deliveries=len(gone) + len(ids), details=len(stripped))


async def trim_all(transaction: Transaction, keep: int, before: float, most: int) -> Pruned:
    """Do what `RunStore.trim` says, in one transaction that looks for it too."""
    many = await too_many(transaction, keep, most)
    return await trim(transaction, many, await old_bare(transaction, before, most), before, most)
