"""What happens to a run once it waits: claimed, kept alive, logged, ended, put back, cancelled, held.

Whatever a run's owner writes is fenced: it counts only while the run is running, in the attempt that this
owner claimed, on its node. Refusals come before anything is written.
"""

from collections.abc import Collection, Iterable
from typing import Any

from listener.errors import ConflictError, FencedError
from listener.queue import Hold, LogLine
from listener.runs import ENDED, Outcome, Run, State, Trigger
from listener.store.acceptance import held_outcome
from listener.store.lifecycle import demand_only
from listener.store.postgres import history
from listener.store.postgres.acceptance import accept, attach, hold_on, new_run
from listener.store.postgres.server import Questions
from listener.store.postgres.writer import Transaction
from listener.store.rows import hold_of, outcome_text

LEASE = 9.0
"""Seconds, on the server's clock, after which a run that is not heard of may be taken over."""
TAKEN_AT_ONCE = 100
"""Runs that are taken over in one transaction at most."""

_CLAIM = """
UPDATE runs SET
    state = 'running', attempt = attempt + 1, started_at = :now::float8, node = :node,
    lease_until = statement_timestamp() + make_interval(secs => :lease)
WHERE state = 'queued' AND id = (
    SELECT q.id FROM runs AS q JOIN claimable AS c ON c.id = q.id
    WHERE q.state = 'queued' AND c.not_before <= :now AND q.lane <> ALL (:full::text[])
    ORDER BY q.urgent DESC, q.created_at, q.position LIMIT 1
    FOR UPDATE OF q SKIP LOCKED
)
RETURNING id
"""
# A run that this listener's writer has locked at this moment gets its time at the next beat.
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
_OWN_LINES = """
SELECT lines FROM runs
WHERE id = :id AND attempt = :attempt AND node = :node AND state = 'running' FOR UPDATE
"""
_NEW_LINES = """
WITH stored AS (
    INSERT INTO log_lines (run, sequence, text)
    SELECT :id, * FROM unnest(:sequences::integer[], :texts::text[])
)
UPDATE runs SET lines = :lines WHERE id = :id
"""
_KEEP = """
UPDATE runs SET outcome = :outcome
WHERE id = :id AND attempt = :attempt AND node = :node AND state = 'running' RETURNING id
"""
_FINISH = """
UPDATE runs SET
    state = :state, finished_at = :now, outcome = :outcome, node = NULL, lease_until = NULL
WHERE id = :id AND attempt = :attempt AND node = :node AND state = 'running' RETURNING id
"""
# Back into the queue, or superseded and the triggers handed to the run that waits already, or ended: at once.
_PUT_BACK = """
WITH own AS (
    SELECT r.id, r.site, r.environment, s.id AS successor,
        CASE
            WHEN :held::boolean THEN 'cancelled' WHEN s.id IS NULL THEN 'queued' ELSE 'superseded'
        END AS state
    FROM runs AS r
    LEFT JOIN runs AS s ON s.site = r.site AND s.environment = r.environment
        AND s.state = 'queued' AND s.undoes IS NULL AND r.undoes IS NULL AND NOT :held
    WHERE r.id = :id AND r.attempt = :attempt AND r.node = :node AND r.state = 'running'
    FOR UPDATE OF r
), handed_over AS (
    UPDATE triggers SET run = own.successor FROM own
    WHERE triggers.run = own.id AND own.successor IS NOT NULL
), delayed AS (
    UPDATE runs SET not_before = greatest(runs.not_before, :not_before::float8) FROM own
    WHERE runs.id = own.successor
), backed_off AS (
    INSERT INTO backoffs (site, environment, failures, not_before)
    SELECT site, environment, 1, :backoff::float8 FROM own WHERE :backoff IS NOT NULL
    ON CONFLICT (site, environment) DO UPDATE SET
        failures = backoffs.failures + 1, not_before = excluded.not_before
)
UPDATE runs SET
    state = own.state, successor = own.successor, not_before = :not_before, outcome = :outcome,
    finished_at = CASE own.state WHEN 'queued' THEN NULL ELSE :now::float8 END,
    failures = failures + :failed, looks = looks + :looked, node = NULL, lease_until = NULL
FROM own WHERE runs.id = own.id
RETURNING runs.successor
"""
_NO_BACKOFF = "DELETE FROM backoffs WHERE site = :site AND environment = :environment"
_CANCEL = """
UPDATE runs SET state = 'cancelled', finished_at = :now, outcome = :outcome
WHERE id = :id AND state = 'queued' RETURNING id
"""
_END_ALL_WAITING = """
UPDATE runs SET state = 'cancelled', finished_at = :now, outcome = :outcome
WHERE site = :site AND environment = :environment AND state = 'queued' RETURNING id
"""
_HASTEN_BACKOFFS = "UPDATE backoffs SET not_before = :now WHERE not_before > :now"
_HASTEN_RUNS = """
UPDATE runs SET not_before = :now WHERE state = 'queued' AND not_before > :now RETURNING id
"""
_SET_HOLD = """
INSERT INTO holds (site, environment, reason, actor, since, live, run)
VALUES (:site, :environment, :reason, :actor, :since, :live, :run)
ON CONFLICT (site, environment) DO UPDATE SET
    reason = excluded.reason, actor = excluded.actor, since = excluded.since,
    live = excluded.live, run = excluded.run
"""
_LIFT_EARLIER = """
DELETE FROM holds
WHERE site = :site AND environment = :environment AND live IS NOT NULL
    AND since <= (SELECT started_at FROM runs WHERE id = :id)
"""
_LIFT_OWN = "DELETE FROM holds WHERE run = :id"
_ROLLING_BACK = """
SELECT id FROM runs
WHERE site = :site AND environment = :environment AND state IN ('queued', 'running') AND undoes IS NOT NULL
"""
_RELEASE = "DELETE FROM holds WHERE site = :site AND environment = :environment RETURNING *"


async def claim(transaction: Transaction, now: float, full: Collection[str]) -> Run | None:
    """Start the first run that may be started."""
    values = {"now": now, "full": sorted(full), "node": transaction.node, "lease": LEASE}
    claimed = await transaction.change(_CLAIM, values)
    if not claimed:
        return None
    run_id = str(claimed[0]["id"])
    transaction.changed.add(run_id)
    return await history.run(transaction, run_id)


async def beat(questions: Questions, node: str, held: Collection[Run]) -> frozenset[str]:
    """Extend the leases of the runs that still are this node's in the same attempt; return their ids."""
    values = {
        "node": node,
        "ids": [run.id for run in held],
        "attempts": [run.attempt for run in held],
        "lease": LEASE,
    }
    return frozenset(str(row["id"]) for row in await questions.all(_BEAT, values))


async def left_over(questions: Questions, node: str) -> dict[str, tuple[str, str]]:
    """Return the runs that nobody is known to carry out, by id, with their environments.

    They are those with a lease that has expired, and those of `node` itself, if one is given.
    """
    rows = await questions.all(_LEFT_OVER, {"node": node, "most": TAKEN_AT_ONCE})
    return {str(row["id"]): (row["site"], row["environment"]) for row in rows}


async def take_over(transaction: Transaction, ids: Collection[str], node: str, now: float) -> list[Run]:
    """Put back those of the runs that still are left over; that was no failure of theirs."""
    back = []
    for row in await transaction.all(_LEFT_OVER_STILL, {"ids": sorted(ids), "node": node}):
        run = await history.run(transaction, row["id"])
        back.append(await _put_back(transaction, run, row["node"], run.outcome, run.not_before, now))
    return back


async def let_go(transaction: Transaction) -> None:
    """Give up what this node has not finished: others need not wait for its leases."""
    await transaction.write(_LET_GO, {"node": transaction.node})


async def store_lines(transaction: Transaction, run: Run, lines: Iterable[LogLine]) -> int:
    """Store those lines that are not stored yet; return how many are now, or raise `FencedError`."""
    values = _fence(transaction, run)
    stored = await transaction.one(_OWN_LINES, values)
    if stored is None:
        raise FencedError
    new = [line for line in lines if line.sequence > stored["lines"]]
    if not new:
        return int(stored["lines"])
    values["sequences"] = [line.sequence for line in new]
    values["texts"] = [line.text for line in new]
    values["lines"] = new[-1].sequence
    await transaction.write(_NEW_LINES, values)
    transaction.changed.add(run.id)
    return new[-1].sequence


async def keep(transaction: Transaction, run: Run, outcome: Outcome) -> None:
    """Store what a running run is about to do."""
    values = _fence(transaction, run) | {"outcome": outcome_text(outcome)}
    if not await transaction.change(_KEEP, values):
        raise FencedError


async def finish(transaction: Transaction, run: Run, state: State, outcome: Outcome, now: float) -> None:
    """End a running run; a success ends the backoff of its environment."""
    if state not in ENDED:
        raise ValueError(f"{state} ends no run")
    values = _fence(transaction, run) | {"state": state, "now": now, "outcome": outcome_text(outcome)}
    if not await transaction.change(_FINISH, values):
        raise FencedError
    here = {"site": run.site, "environment": run.environment, "id": run.id}
    if state is State.SUCCEEDED:
        await transaction.write(_NO_BACKOFF, here)
        if run.undoes is None:
            await transaction.write(_LIFT_EARLIER, here)
    elif not outcome.moved:
        await transaction.write(_LIFT_OWN, here)
    transaction.changed.add(run.id)
    transaction.work = True


async def requeue(
    transaction: Transaction, run: Run, outcome: Outcome, not_before: float, now: float, *, failed: bool
) -> Run:
    """Put a running run back; only a failed attempt's delay is a backoff of the whole environment."""
    node = transaction.node
    if failed:
        return await _put_back(transaction, run, node, outcome, now, now, backoff=not_before)
    return await _put_back(transaction, run, node, outcome, not_before, now, looked=1)


async def _put_back(
    transaction: Transaction,
    run: Run,
    node: str,
    outcome: Outcome | None,
    not_before: float,
    now: float,
    *,
    backoff: float | None = None,
    looked: int = 0,
) -> Run:
    """Queue a running run again, or hand its triggers to its successor, or end it if it is held."""
    hold = await hold_on(transaction, run.site, run.environment)
    if hold is not None and hold.live is not None:
        hold = None
    if hold is not None:
        outcome = held_outcome(hold, outcome)
    values: dict[str, Any] = {
        "id": run.id,
        "attempt": run.attempt,
        "node": node,
        "held": hold is not None,
        "now": now,
        "not_before": not_before,
        "backoff": backoff,
        "failed": int(backoff is not None),
        "looked": looked,
        "outcome": None if outcome is None else outcome_text(outcome),
    }
    back = await transaction.change(_PUT_BACK, values)
    if not back:
        raise FencedError
    if back[0]["successor"]:
        transaction.changed.add(back[0]["successor"])
    transaction.changed.add(run.id)
    transaction.work = True
    return await history.run(transaction, run.id)


async def hasten(transaction: Transaction, now: float) -> int:
    """Let every waiting run be due: times that were written before the clock was set back mean nothing."""
    await transaction.write(_HASTEN_BACKOFFS, {"now": now})
    hastened = await transaction.change(_HASTEN_RUNS, {"now": now})
    transaction.work = True
    return len(hastened)


async def cancel(transaction: Transaction, run_id: str, now: float, only: Collection[str] | None) -> Run:
    """End a waiting run because somebody wants that."""
    run = await history.run(transaction, run_id)
    demand_only([each.id for each in await history.triggers(transaction, run_id)], only)
    if run.state is State.QUEUED and run.outcome is not None and run.outcome.moved:
        raise ConflictError("The branch has moved already: the run goes on until it is equal to live.")
    outcome = Outcome(error="cancelled", message="The run was cancelled.")
    if run.state is not State.QUEUED or not await _end_waiting(transaction, run_id, outcome, now):
        state = (await history.run(transaction, run_id)).state
        raise ConflictError(f"The run is {state}: only a waiting one can be cancelled.")
    await transaction.write(_LIFT_OWN, {"id": run_id})
    return await history.run(transaction, run_id)


async def hold(transaction: Transaction, freeze: Hold) -> None:
    """Freeze an environment, anew if it is frozen, and end what waits for it, a rollback too."""
    await _freeze(transaction, freeze)
    values = {
        "site": freeze.site,
        "environment": freeze.environment,
        "now": freeze.since,
        "outcome": outcome_text(held_outcome(freeze)),
    }
    for row in await transaction.change(_END_ALL_WAITING, values):
        transaction.changed.add(str(row["id"]))


async def roll_back(transaction: Transaction, trigger: Trigger, undoes: str, freeze: Hold) -> Run:
    """Store a rollback and its hold; whatever waits for the environment is ended by it."""
    here = {"site": trigger.site, "environment": trigger.environment}
    held = await hold_on(transaction, **here)
    if held is not None and held.live is None:
        raise ConflictError(f"The environment is on hold: {held.reason}. Release it first.")
    if await transaction.one(_ROLLING_BACK, here) is not None:
        raise ConflictError("Another rollback of the environment is under way.")
    await hold(transaction, freeze)
    run_id = await new_run(transaction, trigger, trigger.at, State.QUEUED, undoes=undoes)
    await _freeze(transaction, freeze, run_id)
    await attach(transaction, trigger, run_id, None)
    transaction.work = True
    return await history.run(transaction, run_id)


async def release(
    transaction: Transaction, site: str, environment: str, catch_up: Trigger | None
) -> Hold | None:
    """Let an environment go, and in the same breath let it catch up."""
    released = await transaction.change(_RELEASE, {"site": site, "environment": environment})
    if not released:
        return None
    transaction.work = True
    if catch_up is not None:
        await accept(transaction, [catch_up], None, catch_up.at)
    return hold_of(released[0])


def _fence(transaction: Transaction, run: Run) -> dict[str, Any]:
    return {"id": run.id, "attempt": run.attempt, "node": transaction.node}


async def _freeze(transaction: Transaction, freeze: Hold, run_id: str | None = None) -> None:
    values = {
        "site": freeze.site,
        "environment": freeze.environment,
        "reason": freeze.reason,
        "actor": freeze.actor,
        "since": freeze.since,
        "live": freeze.live,
        "run": run_id,
    }
    await transaction.write(_SET_HOLD, values)


async def _end_waiting(transaction: Transaction, run_id: str, outcome: Outcome, now: float) -> bool:
    """End a run that waits; return whether it did, and was not claimed at this moment."""
    values = {"id": run_id, "now": now, "outcome": outcome_text(outcome)}
    ended = await transaction.change(_CANCEL, values)
    if ended:
        transaction.changed.add(run_id)
    return bool(ended)
