"""Giving a trigger its run: the one that waits for its environment, or a new one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from listener.errors import OnHoldError
from listener.events import EventKind, Happened
from listener.outcomes import Outcome
from listener.queue import Hold
from listener.runs import EXPLICIT, Origin, State, Trigger, demand_transition, new_id
from listener.store.rows import hold_of
from listener.store.transaction import Transaction

CLEARING_PAUSE = 5.0
"""Seconds after an explicit call has cleared a backoff. In this time, no other call clears it again."""
HEAD_START = 10.0
"""Seconds by which an explicit call goes before a hook's run. A hook's run that is still older goes first."""
STEP_BACK = 60.0
"""Seconds by which the schedule's run goes behind a hook's. One that is older than that goes first."""

Key = tuple[str, str]
"""A site and its environment, or what else a write must have to itself."""

_HOLD = "SELECT * FROM holds WHERE site = :site AND environment = :environment"
_BACKOFF = """
coalesce((SELECT b.not_before FROM backoffs AS b WHERE b.site = :site AND b.environment = :environment), 0)
"""
_NEW_RUN = f"""
INSERT INTO runs (
    id, site, environment, state, created_at, not_before, finished_at, undoes, outcome, lane, urgent, turn,
    due, ready
)
SELECT
    :id::text, :site::text, :environment::text, :state::text, :now::float8, :not_before::float8,
    :finished_at::float8, :undoes::text, :outcome::text, :lane::text, :urgent::boolean, :turn::float8, d.due,
    d.due <= :now
FROM (SELECT greatest(:not_before::float8, {_BACKOFF}) AS due) AS d WHERE true
"""  # noqa: S608 (ours)
# Without an attempt, a run has no reason of its own to wait longer than an explicit caller.
# PostgreSQL locks the run that is joined even if nothing is changed (ON CONFLICT). Without that lock, another
# listener could claim it before the trigger is attached, and it could have read live already.
_JOIN = f"""
{_NEW_RUN}
ON CONFLICT (site, environment, (undoes IS NULL)) WHERE state = 'queued' DO UPDATE SET
    urgent = runs.urgent OR excluded.urgent,
    turn = least(runs.turn, runs.created_at + :rank),
    not_before = CASE
        WHEN excluded.urgent AND runs.attempt = 0 THEN least(runs.not_before, :now)
        WHEN runs.urgent OR excluded.urgent OR :settle::float8 = 0 THEN runs.not_before
        ELSE greatest(runs.not_before, least(:now + :settle, runs.created_at + :settle_most::float8))
    END
WHERE excluded.urgent OR :settle > 0 OR runs.turn > runs.created_at + :rank
RETURNING id
"""
WAITING = """
SELECT id FROM runs
WHERE site = :site AND environment = :environment AND state = 'queued' AND undoes IS NULL
"""
_RESCHEDULE = f"""
UPDATE runs SET ready = false, due = greatest(not_before, {_BACKOFF})
WHERE site = :site AND environment = :environment AND state = 'queued'
"""  # noqa: S608 (ours)
_NEW_TRIGGER = """
INSERT INTO triggers (id, run, delivery, site, environment, origin, actor, at, credential, client)
VALUES (:id, :run, :delivery, :site, :environment, :origin, :actor, :at, :credential, :client)
"""
_LIFT = """
DELETE FROM holds WHERE site = :site AND environment = :environment AND live IS NOT NULL
RETURNING site
"""
_CLEAR_BACKOFF = """
UPDATE backoffs SET not_before = :now::float8, cleared_at = :now
WHERE site = :site AND environment = :environment AND not_before > :now
    AND (cleared_at IS NULL OR cleared_at <= :now - :pause::float8)
RETURNING site
"""

_OF_TRIGGER = ("id", "site", "environment", "origin", "actor", "at", "credential", "client")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A trigger that wants a run."""

    trigger: Trigger
    now: float
    delivery: str | None = None
    """The id of the delivery that it came with."""

    @property
    def key(self) -> Key:
        """Its environment."""
        return self.trigger.site, self.trigger.environment


async def hold_on(transaction: Transaction, site: str, environment: str) -> Hold | None:
    """Return the hold of this environment, or None."""
    row = await transaction.one(_HOLD, {"site": site, "environment": environment})
    return None if row is None else hold_of(row)


def held_outcome(hold: Hold, so_far: Outcome | None = None) -> Outcome:
    """Return the outcome of a run that ends because of `hold`."""
    error = OnHoldError(f"{hold.site}/{hold.environment} is on hold: {hold.reason} (set by {hold.actor})")
    return replace(so_far or Outcome(), error=error.code, message=error.message, remedy=error.remedy)


async def reschedule(transaction: Transaction, site: str, environment: str) -> None:
    """Update when the waiting runs of an environment are due, after a change of their time or the backoff."""
    await transaction.write(_RESCHEDULE, {"site": site, "environment": environment})
    transaction.work = True


async def new_run(
    transaction: Transaction,
    trigger: Trigger,
    now: float,
    state: State,
    *,
    undoes: str | None = None,
    outcome: str | None = None,
) -> str:
    """Store a run for a trigger and return its id."""
    demand_transition(None, state)
    values = _run_values(trigger, now, state) | {"undoes": undoes, "outcome": outcome}
    await transaction.write(_NEW_RUN, values)
    transaction.changed.add(values["id"])
    transaction.happened.append(_queued(trigger, values["id"], now, state))
    return str(values["id"])


def _queued(trigger: Trigger, run: str, now: float, state: State = State.QUEUED) -> Happened:
    """Return the event of a new run."""
    facts = {"run": run, "origin": trigger.origin.value, "actor": trigger.actor}
    if state is not State.QUEUED:
        facts |= {"outcome": state.value, "level": "warning"}
    return Happened.saying(EventKind.RUN, now, state.value, trigger.site, trigger.environment, **facts)


async def attach(transaction: Transaction, served: Iterable[tuple[Wanted, str]]) -> None:
    """Store triggers, each with the run that serves it."""
    rows = [
        {name: getattr(wanted.trigger, name) for name in _OF_TRIGGER}
        | {"run": run, "delivery": wanted.delivery}
        for wanted, run in served
    ]
    if rows:
        await transaction.many(_NEW_TRIGGER, rows)


async def join(transaction: Transaction, wanted: Sequence[Wanted]) -> dict[Key, str]:
    """Return the run that waits for each environment, a new one if none does.

    Of several triggers of one kind for an environment, the last one is enough: after it, the others would
    change nothing.
    """
    kinds: dict[tuple[Any, ...], Wanted] = {}
    for each in wanted:
        trigger = each.trigger
        kinds[*each.key, _rank(trigger), trigger.settle, trigger.settle_most] = each
    return {each.key: await _join(transaction, each.trigger, each.now) for each in kinds.values()}


def _run_values(trigger: Trigger, now: float, state: State) -> dict[str, Any]:
    explicit = trigger.origin in EXPLICIT
    return {
        "id": new_id(now),
        "site": trigger.site,
        "environment": trigger.environment,
        "state": state,
        "now": now,
        "not_before": now if explicit else now + min(trigger.settle, trigger.settle_most),
        "finished_at": None if state is State.QUEUED else now,
        "undoes": None,
        "outcome": None,
        "lane": trigger.lane,
        "urgent": explicit,
        "turn": now + _rank(trigger),
    }


def _rank(trigger: Trigger) -> float:
    """Return by how many seconds the run of a trigger goes behind the others, or before them if negative."""
    if trigger.origin in EXPLICIT:
        return -HEAD_START
    return STEP_BACK if trigger.origin is Origin.SCHEDULE else 0.0


async def _join(transaction: Transaction, trigger: Trigger, now: float) -> str:
    """Return the run that waits for the trigger's environment, a new one if none does."""
    settling = {"settle": trigger.settle, "settle_most": trigger.settle_most, "rank": _rank(trigger)}
    values = _run_values(trigger, now, State.QUEUED) | settling
    joined = await transaction.change(_JOIN, values) or await transaction.all(WAITING, values)
    run = str(joined[0]["id"])
    made, explicit, cleared = run == values["id"], trigger.origin in EXPLICIT, False
    if made:
        transaction.happened.append(_queued(trigger, run, now))
        transaction.changed.add(run)
        transaction.work = True
    if explicit:
        # At most once in `CLEARING_PAUSE`: a caller in a loop would switch the backoff off.
        cleared = bool(await transaction.change(_CLEAR_BACKOFF, values | {"pause": CLEARING_PAUSE}))
        if await transaction.change(_LIFT, values):
            transaction.happened.append(Happened(EventKind.RELEASE, trigger.site, trigger.environment))
    if cleared:
        transaction.changed.add(run)
    if cleared or (not made and (explicit or trigger.settle)):
        await reschedule(transaction, trigger.site, trigger.environment)
    return run
