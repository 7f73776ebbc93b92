"""The life of a run from the queue on: it is claimed, logged, ended, put back, cancelled or held.

Every write of a run's owner is fenced. It takes effect only if the run is running, in the attempt and on the
node that claimed it: a listener that has lost its lease could otherwise overwrite what the next owner does.
Errors are raised before anything is written.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from listener.errors import ConflictError, FencedError, ForbiddenError
from listener.events import EventKind, Happened
from listener.outcomes import Outcome
from listener.queue import Hold, Intent, LogLine
from listener.runs import ENDED, Run, State, Trigger, demand_transition
from listener.store.acceptance import Submission, accept
from listener.store.history import READY_IN_ANY_LANE, READY_SOON, run, triggers
from listener.store.joining import WAITING, Wanted, attach, held_outcome, hold_on, new_run, reschedule
from listener.store.rows import RUN, hold_of, outcome_text, run_of
from listener.store.transaction import Transaction

LEASE = 9.0
"""Seconds on the server's clock. A run without a beat for so long may be taken over."""
AHEAD = 15.0
"""Seconds by which a stored time may be ahead of the clock, such as the next look at a busy repository."""

_OWNED = "id = :id AND attempt = :attempt AND node = :node"
_FENCE = f"state = 'running' AND {_OWNED}"
# A due run is marked once, so that an index has all ready runs in their order. A claim sorts nothing.
_MAKE_READY = (
    "UPDATE runs INDEXED BY dues SET ready = true WHERE state = 'queued' AND NOT ready AND due <= :now"
)
# The lease is one line, so that SQLite's dialect can leave it out.
_CLAIMED = """
attempt = attempt + 1, started_at = :now::float8, node = :node, lease_until = statement_timestamp() + make_interval(secs => :lease)
"""  # noqa: E501
_NEW_LINE = """
INSERT INTO log_lines (run, sequence, text) VALUES (:run, :sequence, :text) ON CONFLICT DO NOTHING
"""
_COUNT_LINES = f"""
UPDATE runs SET lines_before = lines, lines = :lines WHERE {_FENCE} AND lines < :lines RETURNING lines_before
"""  # noqa: S608 (ours)
_COUNTED = f"SELECT lines FROM runs WHERE {_FENCE}"  # noqa: S608 (ours)
# The lines that an owner's write takes along are counted by the same statement.
# `lines_before` is the number of lines before the write: only later lines are new events.
_WITH_LINES = "outcome = :outcome, lines_before = lines, lines = greatest(lines, :lines)"
_KEEP = f"UPDATE runs SET {_WITH_LINES} WHERE {_FENCE} RETURNING lines_before"  # noqa: S608 (ours)
_FINISHED = f"finished_at = :now, {_WITH_LINES}, node = NULL, lease_until = NULL"
_PUT_BACK = f"""
successor = :successor, not_before = :not_before::float8, failures = failures + :failed,
looks = looks + :looked, finished_at = :finished_at, {_WITH_LINES}, node = NULL, lease_until = NULL
"""
_MOVE_TRIGGERS = "UPDATE triggers SET run = :successor WHERE run = :id"
_DELAY_SUCCESSOR = (
    "UPDATE runs SET not_before = greatest(not_before, :not_before::float8) WHERE id = :successor"
)
_BACK_OFF = """
INSERT INTO backoffs (site, environment, failures, not_before, since)
VALUES (:site, :environment, 1, :not_before, :now)
ON CONFLICT (site, environment) DO UPDATE SET
    failures = backoffs.failures + 1, not_before = excluded.not_before, since = excluded.since
"""
_NO_BACKOFF = "DELETE FROM backoffs WHERE site = :site AND environment = :environment RETURNING site"
_CLOCK_WAS_AHEAD = """
SELECT EXISTS (SELECT 1 FROM backoffs WHERE since > :then::float8)
    OR EXISTS (
        SELECT 1 FROM runs INDEXED BY one_waiting
        WHERE state = 'queued' AND (created_at > :then OR (attempt > 0 AND not_before > :then))
    )
    OR coalesce((SELECT max(finished_at) FROM runs WHERE finished_at IS NOT NULL), 0) > :then AS ahead
"""
_HASTEN_BACKOFFS = """
UPDATE backoffs SET not_before = least(not_before, :now), since = least(since, :now), cleared_at = NULL
WHERE not_before > :now OR since > :now OR cleared_at > :now
"""
_HASTEN_RUNS = """
UPDATE runs INDEXED BY one_waiting SET
    not_before = least(not_before, :now), due = least(due, :now), turn = least(turn, :now), ready = false
WHERE state = 'queued' AND (not_before > :now OR due > :now OR turn > :now) RETURNING id
"""
_CANCELLED = "finished_at = :now, outcome = :outcome"
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
RETURNING site, environment
"""
_LIFT_OWN = "DELETE FROM holds WHERE run = :id RETURNING site, environment"
_ROLLING_BACK = """
SELECT id FROM runs
WHERE site = :site AND environment = :environment AND state IN ('queued', 'running') AND undoes IS NOT NULL
"""
_RELEASE = "DELETE FROM holds WHERE site = :site AND environment = :environment RETURNING *"


@cache
def moving(before: State, after: State, columns: str, where: str, returning: str = "id") -> str:
    """Return the statement that takes runs from one state to another; the only way to set a state.

    It compares and swaps: a run that has left `before` meanwhile is not touched, and the statement returns no
    row for it. Raises `ValueError` for a move that `TRANSITIONS` does not list.
    """
    demand_transition(before, after)
    return f"""
UPDATE runs SET state = '{after}', {columns.strip()}
WHERE state = '{before}' AND {where}
RETURNING {returning}
"""  # noqa: S608 (ours)


_CLAIM = moving(
    State.QUEUED, State.RUNNING, _CLAIMED, f"position = coalesce(({READY_SOON}), ({READY_IN_ANY_LANE}))", RUN
)
_CANCEL = moving(State.QUEUED, State.CANCELLED, _CANCELLED, "id = :id")
_END_ALL_WAITING = moving(
    State.QUEUED, State.CANCELLED, _CANCELLED, "site = :site AND environment = :environment"
)


async def claim(
    transaction: Transaction, now: float, full: Collection[str] = (), intent: Intent | None = None
) -> Run | None:
    """Start the first run that may be started, and store what is intended with it."""
    await transaction.change(_MAKE_READY, {"now": now})
    values = {"now": now, "full": sorted(full), "node": transaction.node, "lease": LEASE}
    claimed = await transaction.change(_CLAIM, values)
    if not claimed:
        return None
    started = run_of(claimed[0])
    transaction.changed.add(started.id)
    # Only of a first attempt: what an earlier one has done is in its outcome, and must not be lost.
    intended = intent(started) if intent is not None and started.attempt == 1 else None
    if intended is None:
        return started
    await keep(transaction, started, intended)
    return replace(started, outcome=intended)


async def store_lines(transaction: Transaction, owned: Run, lines: Sequence[LogLine]) -> int:
    """Store the lines that are not stored yet; return how many there are now, or raise `FencedError`."""
    last = lines[-1].sequence if lines else 0
    values = _fence(transaction, owned) | {"lines": last}
    if counted := await transaction.change(_COUNT_LINES, values):
        await _add_lines(transaction, owned, lines, counted[0]["lines_before"])
        transaction.changed.add(owned.id)
        return last
    # An earlier request has stored them already, or the caller has lost the run.
    row = await transaction.one(_COUNTED, values)
    if row is None:
        raise FencedError
    return int(row["lines"])


async def _add_lines(transaction: Transaction, owned: Run, lines: Sequence[LogLine], before: int) -> None:
    """Store lines; those behind the first `before` are new."""
    rows = [{"run": owned.id, "sequence": line.sequence, "text": line.text} for line in lines]
    await transaction.many(_NEW_LINE, rows)
    last = lines[-1].sequence
    if last > before:
        transaction.happened.append(
            Happened(EventKind.RUN, owned.site, owned.environment, owned.id, before + 1, last)
        )


async def _change_owned(
    transaction: Transaction, owned: Run, statement: str, values: dict[str, Any], lines: Sequence[LogLine]
) -> None:
    """Carry out an owner's statement and add its log lines, or raise `FencedError` with nothing written."""
    last = lines[-1].sequence if lines else 0
    changed = await transaction.change(statement, _fence(transaction, owned) | values | {"lines": last})
    if not changed:
        raise FencedError
    if lines:
        await _add_lines(transaction, owned, lines, changed[0]["lines_before"])
    transaction.changed.add(owned.id)


async def keep(transaction: Transaction, owned: Run, outcome: Outcome, lines: Sequence[LogLine] = ()) -> None:
    """Store what a running run is about to do, and log lines of its owner."""
    await _change_owned(transaction, owned, _KEEP, {"outcome": outcome_text(outcome)}, lines)


async def finish(
    transaction: Transaction,
    owned: Run,
    state: State,
    outcome: Outcome,
    now: float,
    lines: Sequence[LogLine] = (),
) -> None:
    """End a running run, with log lines of its owner; a success ends the backoff of its environment."""
    if state not in ENDED:
        raise ValueError(f"A run that is {state} has not ended.")
    ending = moving(State.RUNNING, state, _FINISHED, _OWNED, "lines_before")
    await _change_owned(transaction, owned, ending, {"now": now, "outcome": outcome_text(outcome)}, lines)
    here = {"site": owned.site, "environment": owned.environment, "id": owned.id}
    if state is State.SUCCEEDED:
        if await transaction.change(_NO_BACKOFF, here):
            await reschedule(transaction, owned.site, owned.environment)
        if owned.undoes is None:
            await _lift(transaction, _LIFT_EARLIER, here, now)
    elif not outcome.moved:
        await _lift(transaction, _LIFT_OWN, here, now)
    transaction.work = True


async def requeue(
    transaction: Transaction,
    owned: Run,
    outcome: Outcome,
    not_before: float,
    now: float,
    lines: Sequence[LogLine] = (),
    *,
    failed: bool,
) -> Run:
    """Put a running run back, with log lines of its owner.

    Only the delay after a failed attempt is a backoff of the whole environment.
    """
    node = transaction.node
    if failed:
        return await put_back(transaction, owned, node, outcome, now, now, lines, backoff=not_before)
    return await put_back(transaction, owned, node, outcome, not_before, now, lines, looked=1)


async def put_back(
    transaction: Transaction,
    owned: Run,
    node: str,
    outcome: Outcome | None,
    not_before: float,
    now: float,
    lines: Sequence[LogLine] = (),
    *,
    backoff: float | None = None,
    looked: int = 0,
) -> Run:
    """Queue a run of `node` again, hand its triggers to its successor, or end it if it is held."""
    here = {"site": owned.site, "environment": owned.environment}
    hold = await hold_on(transaction, **here)
    if hold is not None and hold.live is not None:
        hold = None
    # The successor can't start or end before the commit: this run is running, and the environment is ours.
    waiting = await transaction.one(WAITING, here) if hold is None and owned.undoes is None else None
    state = State.CANCELLED if hold else State.SUPERSEDED if waiting else State.QUEUED
    if hold is not None:
        outcome = held_outcome(hold, outcome)
    values: dict[str, Any] = {
        "node": node,
        "finished_at": None if state is State.QUEUED else now,
        "successor": waiting["id"] if waiting else None,
        "not_before": not_before,
        "failed": int(backoff is not None),
        "looked": looked,
        "outcome": None if outcome is None else outcome_text(outcome),
    }
    await _change_owned(
        transaction, owned, moving(State.RUNNING, state, _PUT_BACK, _OWNED, "lines_before"), values, lines
    )
    if hold is not None:
        _ended_waiting(transaction, owned.site, owned.environment, owned.id, now, "on-hold")
    if waiting is not None:
        handed_on = {"id": owned.id, "successor": waiting["id"], "not_before": not_before}
        await transaction.write(_MOVE_TRIGGERS, handed_on)
        await transaction.write(_DELAY_SUCCESSOR, handed_on)
        transaction.changed.add(waiting["id"])
    if backoff is not None:
        await transaction.write(_BACK_OFF, here | {"not_before": backoff, "now": now})
    await reschedule(transaction, **here)
    return await run(transaction, owned.id)


async def clock_was_ahead(transaction: Transaction, now: float) -> bool:
    """Return whether a time was stored by a clock that was ahead of `now`."""
    row = await transaction.one(_CLOCK_WAS_AHEAD, {"then": now + AHEAD})
    return row is not None and bool(row["ahead"])


async def mend_times(transaction: Transaction, now: float) -> None:
    """Make waiting runs due if the clock was ahead: its times would lock their environments until then."""
    if await clock_was_ahead(transaction, now):
        await hasten(transaction, now)


async def hasten(transaction: Transaction, now: float) -> int:
    """Make every waiting run due. Times from before the clock was set back mean nothing now."""
    await transaction.write(_HASTEN_BACKOFFS, {"now": now})
    hastened = await transaction.change(_HASTEN_RUNS, {"now": now})
    transaction.work = True
    return len(hastened)


async def cancel(transaction: Transaction, run_id: str, now: float, only: Collection[str] | None) -> Run:
    """Carry out `RunStore.cancel`."""
    waiting = await run(transaction, run_id)
    _demand_only([each.id for each in await triggers(transaction, run_id)], only)
    if waiting.state is State.QUEUED and waiting.outcome is not None and waiting.outcome.moved:
        raise ConflictError("The branch has moved already. The run goes on until it is equal to live.")
    outcome = outcome_text(Outcome(error="cancelled", message="The run was cancelled."))
    values = {"id": run_id, "now": now, "outcome": outcome}
    # Compare and swap: another listener may claim it at this moment.
    if waiting.state is not State.QUEUED or not await transaction.change(_CANCEL, values):
        state = (await run(transaction, run_id)).state
        raise ConflictError(f"The run is {state}: only a waiting one can be cancelled.")
    transaction.changed.add(run_id)
    _ended_waiting(transaction, waiting.site, waiting.environment, run_id, now, "cancelled")
    await _lift(transaction, _LIFT_OWN, {"id": run_id}, now)
    return await run(transaction, run_id)


def _demand_only(served: Iterable[str], only: Collection[str] | None) -> None:
    """Raise `ForbiddenError` if a run serves triggers that are not in `only`."""
    if only is not None and not set(served) <= set(only):
        raise ForbiddenError("The run serves others too: ask an admin.")


async def hold(transaction: Transaction, freeze: Hold) -> None:
    """Put an environment on hold, or replace its hold; end its waiting runs, a rollback too."""
    await _freeze(transaction, freeze)
    where, said = (freeze.site, freeze.environment), {"reason": freeze.reason, "actor": freeze.actor}
    transaction.happened.append(Happened.saying(EventKind.HOLD, freeze.since, "hold", *where, **said))
    values = {
        "site": freeze.site,
        "environment": freeze.environment,
        "now": freeze.since,
        "outcome": outcome_text(held_outcome(freeze)),
    }
    for row in await transaction.change(_END_ALL_WAITING, values):
        transaction.changed.add(str(row["id"]))
        _ended_waiting(transaction, freeze.site, freeze.environment, row["id"], freeze.since, "on-hold")


async def roll_back(transaction: Transaction, trigger: Trigger, undoes: str, freeze: Hold) -> Run:
    """Store a rollback and its hold. All waiting runs of the environment end."""
    here = {"site": trigger.site, "environment": trigger.environment}
    held = await hold_on(transaction, **here)
    if held is not None and held.live is None:
        raise ConflictError(f"The environment is on hold: {held.reason}. Release it first.")
    if await transaction.one(_ROLLING_BACK, here) is not None:
        raise ConflictError("Another rollback of the environment is under way.")
    await hold(transaction, freeze)
    run_id = await new_run(transaction, trigger, trigger.at, State.QUEUED, undoes=undoes)
    await _freeze(transaction, freeze, run_id)
    await attach(transaction, [(Wanted(trigger, trigger.at), run_id)])
    transaction.work = True
    return await run(transaction, run_id)


async def release(
    transaction: Transaction, site: str, environment: str, catch_up: Trigger | None
) -> Hold | None:
    """End the hold of an environment and, in the same transaction, accept the trigger to catch up."""
    released = await transaction.change(_RELEASE, {"site": site, "environment": environment})
    if not released:
        return None
    transaction.work = True
    transaction.happened.append(Happened(EventKind.RELEASE, site, environment))
    if catch_up is not None:
        await accept(transaction, [Submission([catch_up], None, catch_up.at)])
    return hold_of(released[0])


async def _lift(transaction: Transaction, statement: str, values: dict[str, Any], now: float) -> None:
    """End the hold of a rollback."""
    for row in await transaction.change(statement, values):
        where = row["site"], row["environment"]
        transaction.happened.append(
            Happened.saying(EventKind.RELEASE, now, "release", *where, run=values["id"])
        )


def _ended_waiting(
    transaction: Transaction, site: str, environment: str, run_id: str, now: float, error: str
) -> None:
    """Add the event of a run that was cancelled while it waited. It has no owner that could log it."""
    facts = {"run": run_id, "outcome": State.CANCELLED.value, "error": error, "level": "warning"}
    transaction.happened.append(Happened.saying(EventKind.RUN, now, "run", site, environment, **facts))


def _fence(transaction: Transaction, owned: Run) -> dict[str, Any]:
    return {"id": owned.id, "attempt": owned.attempt, "node": transaction.node}


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
