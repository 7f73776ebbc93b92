"""What happens to a run once it waits: claimed, logged, ended, put back, cancelled, held.

Whatever a run's owner writes is fenced: it counts only while the run is running in the attempt that this
owner claimed.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any

from listener.errors import ConflictError, FencedError, ForbiddenError, RunNotFoundError
from listener.queue import Hold, LogLine
from listener.runs import ENDED, Outcome, Run, State, Trigger
from listener.store.acceptance import accept, attach, held_outcome, hold_on, new_run, waiting
from listener.store.rows import hold_of, outcome_text, run_of
from listener.store.writer import Transaction

_CLAIM = """
UPDATE runs SET state = 'running', attempt = attempt + 1, started_at = :now
WHERE state = 'queued' AND id = (
    SELECT id FROM claimable
    WHERE not_before <= :now AND lane NOT IN (SELECT value FROM json_each(:full))
    ORDER BY urgent DESC, created_at, position LIMIT 1
)
RETURNING id
"""
_RUN = "SELECT * FROM current_runs WHERE id = :id"
_RUNNING = "SELECT * FROM current_runs WHERE state = 'running' ORDER BY id"
_OWN_LINES = "SELECT lines FROM runs WHERE id = :id AND attempt = :attempt AND state = 'running'"
_NEW_LINE = "INSERT INTO log_lines (run, sequence, text) VALUES (:run, :sequence, :text)"
_COUNT_LINES = "UPDATE runs SET lines = :lines WHERE id = :id"
_KEEP = """
UPDATE runs SET outcome = :outcome WHERE id = :id AND attempt = :attempt AND state = 'running'
"""
_FINISH = """
UPDATE runs SET state = :state, finished_at = :now, outcome = :outcome
WHERE id = :id AND attempt = :attempt AND state = 'running'
"""
_PUT_BACK = """
UPDATE runs SET
    state = :state, finished_at = :finished_at, successor = :successor, not_before = :not_before,
    failures = failures + :failed, looks = looks + :looked, outcome = :outcome
WHERE id = :id AND attempt = :attempt AND state = 'running'
"""
_MOVE_TRIGGERS = "UPDATE triggers SET run = :successor WHERE run = :id"
_DELAY_SUCCESSOR = "UPDATE runs SET not_before = max(not_before, :not_before) WHERE id = :successor"
_BACK_OFF = """
INSERT INTO backoffs (site, environment, failures, not_before) VALUES (:site, :environment, 1, :not_before)
ON CONFLICT (site, environment) DO UPDATE SET failures = failures + 1, not_before = excluded.not_before
"""
_NO_BACKOFF = "DELETE FROM backoffs WHERE site = :site AND environment = :environment"
_HASTEN_BACKOFFS = "UPDATE backoffs SET not_before = :now WHERE not_before > :now"
_HASTEN_RUNS = "UPDATE runs SET not_before = :now WHERE state = 'queued' AND not_before > :now"
_CANCEL = """
UPDATE runs SET state = 'cancelled', finished_at = :now, outcome = :outcome
WHERE id = :id AND state = 'queued'
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
_SERVED = "SELECT id FROM triggers WHERE run = :id"
_LIFT_OWN = "DELETE FROM holds WHERE run = :id"
_ROLLING_BACK = """
SELECT id FROM runs
WHERE site = :site AND environment = :environment AND state IN ('queued', 'running') AND undoes IS NOT NULL
"""
_ALL_WAITING = """
SELECT id FROM runs WHERE site = :site AND environment = :environment AND state = 'queued'
"""
_RELEASE = "DELETE FROM holds WHERE site = :site AND environment = :environment RETURNING *"


def claim(transaction: Transaction, now: float, full: Collection[str]) -> Run | None:
    """Start the first run that may be started."""
    claimed = transaction.all(_CLAIM, {"now": now, "full": json.dumps(sorted(full))})
    if not claimed:
        return None
    run_id = str(claimed[0]["id"])
    transaction.changed.add(run_id)
    return _read(transaction, run_id)


def store_lines(transaction: Transaction, run: Run, lines: Iterable[LogLine]) -> int:
    """Store those lines that are not stored yet; return how many are now, or raise `FencedError`."""
    stored = transaction.one(_OWN_LINES, {"id": run.id, "attempt": run.attempt})
    if stored is None:
        raise FencedError
    new = [line for line in lines if line.sequence > stored["lines"]]
    if not new:
        return int(stored["lines"])
    for line in new:
        transaction.execute(_NEW_LINE, {"run": run.id, "sequence": line.sequence, "text": line.text})
    transaction.execute(_COUNT_LINES, {"id": run.id, "lines": new[-1].sequence})
    transaction.changed.add(run.id)
    return new[-1].sequence


def keep(transaction: Transaction, run: Run, outcome: Outcome) -> None:
    """Store what a running run is about to do."""
    values = {"id": run.id, "attempt": run.attempt, "outcome": outcome_text(outcome)}
    if not transaction.execute(_KEEP, values):
        raise FencedError


def finish(transaction: Transaction, run: Run, state: State, outcome: Outcome, now: float) -> None:
    """End a running run; a success ends the backoff of its environment."""
    if state not in ENDED:
        raise ValueError(f"{state} ends no run")
    values = {
        "id": run.id,
        "attempt": run.attempt,
        "state": state,
        "now": now,
        "outcome": outcome_text(outcome),
    }
    if not transaction.execute(_FINISH, values):
        raise FencedError
    here = {"site": run.site, "environment": run.environment, "id": run.id}
    if state is State.SUCCEEDED:
        transaction.execute(_NO_BACKOFF, here)
        if run.undoes is None:
            transaction.execute(_LIFT_EARLIER, here)
    elif not outcome.moved:
        transaction.execute(_LIFT_OWN, here)
    transaction.changed.add(run.id)
    transaction.work = True


def requeue(
    transaction: Transaction, run: Run, outcome: Outcome, not_before: float, now: float, *, failed: bool
) -> Run:
    """Put a running run back; only a failed attempt's delay is a backoff of the whole environment."""
    if failed:
        values = {"site": run.site, "environment": run.environment, "not_before": not_before}
        transaction.execute(_BACK_OFF, values)
        return _put_back(transaction, run, outcome, now, now, failed=1)
    return _put_back(transaction, run, outcome, not_before, now, looked=1)


def recover(transaction: Transaction, now: float) -> list[Run]:
    """Put back what a dead listener left running; that was no failure of the run's."""
    orphans = [run_of(row) for row in transaction.all(_RUNNING, {})]
    return [_put_back(transaction, run, run.outcome, run.not_before, now) for run in orphans]


def _put_back(
    transaction: Transaction,
    run: Run,
    outcome: Outcome | None,
    not_before: float,
    now: float,
    *,
    failed: int = 0,
    looked: int = 0,
) -> Run:
    """Queue a running run again, or hand its triggers to its successor, or end it if it is held."""
    hold = hold_on(transaction, run.site, run.environment)
    successor = waiting(transaction, run.site, run.environment) if run.undoes is None else None
    if hold is not None and hold.live is not None:
        hold = None
    state = State.CANCELLED if hold else State.SUPERSEDED if successor else State.QUEUED
    if hold is not None:
        outcome = held_outcome(hold, outcome)
    values: dict[str, Any] = {
        "id": run.id,
        "attempt": run.attempt,
        "state": state,
        "finished_at": None if state is State.QUEUED else now,
        "successor": successor if state is State.SUPERSEDED else None,
        "not_before": not_before,
        "failed": failed,
        "looked": looked,
        "outcome": None if outcome is None else outcome_text(outcome),
    }
    if not transaction.execute(_PUT_BACK, values):
        raise FencedError
    if values["successor"]:
        transaction.execute(_MOVE_TRIGGERS, values)
        transaction.execute(_DELAY_SUCCESSOR, values)
        transaction.changed.add(values["successor"])
    transaction.changed.add(run.id)
    transaction.work = True
    return _read(transaction, run.id)


def hasten(transaction: Transaction, now: float) -> int:
    """Let every waiting run be due: times that were written before the clock was set back mean nothing."""
    transaction.execute(_HASTEN_BACKOFFS, {"now": now})
    hastened = transaction.execute(_HASTEN_RUNS, {"now": now})
    transaction.work = True
    return hastened


def cancel(transaction: Transaction, run_id: str, now: float, only: Collection[str] | None) -> Run:
    """End a waiting run because somebody wants that."""
    run = _read(transaction, run_id)
    demand_only([str(row["id"]) for row in transaction.all(_SERVED, {"id": run_id})], only)
    if run.state is not State.QUEUED:
        raise ConflictError(f"The run is {run.state}: only a waiting one can be cancelled.")
    if run.outcome is not None and run.outcome.moved:
        raise ConflictError("The branch has moved already: the run goes on until it is equal to live.")
    _end_waiting(transaction, run_id, Outcome(error="cancelled", message="The run was cancelled."), now)
    transaction.execute(_LIFT_OWN, {"id": run_id})
    return _read(transaction, run_id)


def demand_only(served: Iterable[str], only: Collection[str] | None) -> None:
    """Raise `ForbiddenError` where a run serves other triggers than those that a canceller may end."""
    if only is not None and not set(served) <= set(only):
        raise ForbiddenError("The run has come to serve others too: ask an admin.")


def hold(transaction: Transaction, freeze: Hold) -> None:
    """Freeze an environment, anew if it is frozen, and end what waits for it, a rollback too."""
    _freeze(transaction, freeze)
    for row in transaction.all(_ALL_WAITING, {"site": freeze.site, "environment": freeze.environment}):
        _end_waiting(transaction, str(row["id"]), held_outcome(freeze), freeze.since)


def roll_back(transaction: Transaction, trigger: Trigger, undoes: str, freeze: Hold) -> Run:
    """Store a rollback and its hold; whatever waits for the environment is ended by it."""
    here = {"site": trigger.site, "environment": trigger.environment}
    held = hold_on(transaction, **here)
    if held is not None and held.live is None:
        raise ConflictError(f"The environment is on hold: {held.reason}. Release it first.")
    if transaction.one(_ROLLING_BACK, here) is not None:
        raise ConflictError("Another rollback of the environment is under way.")
    hold(transaction, freeze)
    run_id = new_run(transaction, trigger, trigger.at, State.QUEUED, undoes=undoes)
    _freeze(transaction, freeze, run_id)
    attach(transaction, trigger, run_id, None)
    transaction.work = True
    return _read(transaction, run_id)


def _freeze(transaction: Transaction, freeze: Hold, run_id: str | None = None) -> None:
    values = {
        "site": freeze.site,
        "environment": freeze.environment,
        "reason": freeze.reason,
        "actor": freeze.actor,
        "since": freeze.since,
        "live": freeze.live,
        "run": run_id,
    }
    transaction.execute(_SET_HOLD, values)


def release(transaction: Transaction, site: str, environment: str, catch_up: Trigger | None) -> Hold | None:
    """Let an environment go, and in the same breath let it catch up."""
    released = transaction.all(_RELEASE, {"site": site, "environment": environment})
    if not released:
        return None
    transaction.work = True
    if catch_up is not None:
        accept(transaction, [catch_up], None, catch_up.at)
    return hold_of(released[0])


def _end_waiting(transaction: Transaction, run_id: str, outcome: Outcome, now: float) -> None:
    transaction.execute(_CANCEL, {"id": run_id, "now": now, "outcome": outcome_text(outcome)})
    transaction.changed.add(run_id)


def _read(transaction: Transaction, run_id: str) -> Run:
    row = transaction.one(_RUN, {"id": run_id})
    if row is None:
        raise RunNotFoundError
    return run_of(row)
