"""Which listener owns a run, if several share a store: leases, on the clock of the server."""

from collections.abc import Collection

from listener.runs import Run
from listener.store import history
from listener.store.lifecycle import LEASE, put_back
from listener.store.transaction import Reader, Transaction

TAKEN_AT_ONCE = 100
"""The most runs that one transaction takes over."""

# SKIP LOCKED: a beat must not wait for a run that the writer of this listener is changing, or leases would
# expire behind a slow batch. Such a run is extended at the next beat.
_BEAT = """
WITH mine AS (
    SELECT id FROM runs
    WHERE state = 'running' AND node = :node
        AND (id, attempt) IN (SELECT * FROM unnest(:ids::text[], :attempts::integer[]))
), extended AS (
    UPDATE runs SET lease_until = statement_timestamp() + make_interval(secs => :lease)
    WHERE id IN (
        SELECT id FROM runs
        WHERE id IN (SELECT id FROM mine) AND state = 'running' AND node = :node FOR UPDATE SKIP LOCKED
    )
)
SELECT id FROM mine
"""
_LEFT_OVER = """
SELECT id, site, environment FROM runs
WHERE state = 'running' AND (node = :node OR lease_until <= statement_timestamp())
ORDER BY id LIMIT :most
"""
_LEFT_OVER_STILL = """
SELECT id, node FROM runs
WHERE id = ANY (:ids::text[]) AND state = 'running'
    AND (node = :node OR lease_until <= statement_timestamp())
ORDER BY id FOR UPDATE SKIP LOCKED
"""
_LET_GO = "UPDATE runs SET lease_until = statement_timestamp() WHERE state = 'running' AND node = :node"


async def beat(reader: Reader, node: str, held: Collection[Run]) -> frozenset[str]:
    """Extend the leases of the runs that the node still owns in the same attempt; return their ids."""
    values = {
        "node": node,
        "ids": [run.id for run in held],
        "attempts": [run.attempt for run in held],
        "lease": LEASE,
    }
    return frozenset(str(row["id"]) for row in await reader.all(_BEAT, values))


async def left_over(reader: Reader, node: str) -> dict[str, tuple[str, str]]:
    """Return the runs that nobody carries out, by id, with their environments.

    These are the runs with an expired lease and, if `node` is not empty, all runs of that node.
    """
    rows = await reader.all(_LEFT_OVER, {"node": node, "most": TAKEN_AT_ONCE})
    return {str(row["id"]): (row["site"], row["environment"]) for row in rows}


async def take_over(transaction: Transaction, ids: Collection[str], node: str, now: float) -> list[Run]:
    """Put back those of the runs that nobody has taken in between. This does not count as a failure."""
    back = []
    for row in await transaction.all(_LEFT_OVER_STILL, {"ids": sorted(ids), "node": node}):
        run = await history.run(transaction, row["id"])
        back.append(await put_back(transaction, run, row["node"], run.outcome, run.not_before, now))
    return back


async def let_go(transaction: Transaction) -> None:
    """End the leases of this node, so that others need not wait until they expire."""
    await transaction.write(_LET_GO, {"node": transaction.node})
