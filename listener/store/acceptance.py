"""Taking deliveries and triggers in: each ends up at a run, new, joined or seen before.

All of it happens within one transaction of the only writer, so looking first and writing then is safe here.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from listener.errors import DeliveryNotFoundError, OnHoldError
from listener.queue import Acceptance, Hold, Reception
from listener.runs import EXPLICIT, Outcome, State, Trigger, new_id
from listener.store.rows import hold_of, outcome_text
from listener.store.writer import Transaction

CLEARING_PAUSE = 5.0
"""Seconds after an explicit call has cleared a backoff in which no other one does."""

_WAITING = """
SELECT id FROM runs
WHERE site = :site AND environment = :environment AND state = 'queued' AND undoes IS NULL
"""
_HOLD = "SELECT * FROM holds WHERE site = :site AND environment = :environment"
_DELIVERY = "SELECT id, ignored FROM deliveries WHERE hook = :hook AND key = :key"
_NEW_RUN = """
INSERT INTO runs
    (id, site, environment, state, created_at, not_before, finished_at, undoes, outcome, lane, urgent)
VALUES
    (:id, :site, :environment, :state, :now, :not_before, :finished_at, :undoes, :outcome, :lane, :urgent)
"""
_NEW_TRIGGER = """
INSERT INTO triggers (id, run, delivery, site, environment, origin, actor, at, credential, client)
VALUES (:id, :run, :delivery, :site, :environment, :origin, :actor, :at, :credential, :client)
"""
_KEEP_DELIVERY = """
INSERT INTO deliveries
    (id, hook, key, received_at, size, digest, headers, facts, ignored, credential, client)
VALUES
    (:id, :hook, :key, :received_at, :size, :digest, :headers, :facts, :ignored, :credential, :client)
ON CONFLICT (hook, key) WHERE key IS NOT NULL DO UPDATE SET
    received_at = excluded.received_at, size = excluded.size, digest = excluded.digest,
    headers = excluded.headers, facts = excluded.facts, ignored = excluded.ignored,
    credential = excluded.credential, client = excluded.client
RETURNING id
"""
_TAKE_AGAIN = "UPDATE deliveries SET ignored = '' WHERE id = :id"
_SERVED = """
SELECT t.id, t.run, t.site, t.environment, r.state
FROM triggers AS t JOIN runs AS r ON r.id = t.run
WHERE t.delivery = :delivery ORDER BY t.position
"""
_HURRY = """
UPDATE runs SET
    urgent = 1,
    not_before = CASE attempt WHEN 0 THEN min(not_before, :now) ELSE not_before END
WHERE id = :run
"""
_SETTLE = """
UPDATE runs SET not_before = max(not_before, min(:now + :settle, created_at + :settle_most))
WHERE id = :run AND urgent = 0
"""
_LIFT = """
DELETE FROM holds WHERE site = :site AND environment = :environment AND live IS NOT NULL
"""
_CLEAR_BACKOFF = """
UPDATE backoffs SET not_before = :now, cleared_at = :now
WHERE site = :site AND environment = :environment AND not_before > :now
    AND (cleared_at IS NULL OR cleared_at <= :now - :pause)
"""


def accept(
    transaction: Transaction, triggers: Sequence[Trigger], delivery: Reception | None, now: float
) -> Acceptance:
    """Store what `RunStore.accept` promises."""
    holds = _holds(transaction, triggers)
    if delivery is not None and delivery.ignored:
        triggers = ()
    selected = [t for t in triggers if t.origin in EXPLICIT or _key(t) not in holds]
    ignored = delivery.ignored if delivery is not None else ""
    if triggers and not selected:
        ignored = held_reason(holds.values())
    if delivery is None:
        return replace(_serve(transaction, selected, holds, None, now), ignored=ignored)
    first = transaction.one(_DELIVERY, {"hook": delivery.hook, "key": delivery.key})
    if first is not None and not (first["ignored"] and selected):
        return _repeat(transaction, first, selected, holds, now)
    kept = _keep(transaction, replace(delivery, ignored=ignored))
    return replace(_serve(transaction, selected, holds, kept, now), ignored=ignored)


def redeliver(transaction: Transaction, delivery: str, triggers: Sequence[Trigger], now: float) -> Acceptance:
    """Store what `RunStore.redeliver` promises."""
    if not transaction.execute(_TAKE_AGAIN, {"id": delivery}):
        raise DeliveryNotFoundError
    return _serve(transaction, triggers, _holds(transaction, triggers), delivery, now)


def waiting(transaction: Transaction, site: str, environment: str) -> str | None:
    """Return the id of the run that waits for this environment, or None."""
    row = transaction.one(_WAITING, {"site": site, "environment": environment})
    return None if row is None else str(row["id"])


def hold_on(transaction: Transaction, site: str, environment: str) -> Hold | None:
    """Return the hold of this environment, or None."""
    row = transaction.one(_HOLD, {"site": site, "environment": environment})
    return None if row is None else hold_of(row)


def held_reason(holds: Iterable[Hold]) -> str:
    """Return why a delivery is ignored all of whose environments are on hold."""
    return "; ".join(f"{hold.site}/{hold.environment} is on hold: {hold.reason}" for hold in holds)


def held_outcome(hold: Hold, so_far: Outcome | None = None) -> Outcome:
    """Return the outcome of a run that ends because of `hold`."""
    error = OnHoldError(f"{hold.site}/{hold.environment} is on hold: {hold.reason} (set by {hold.actor})")
    return replace(so_far or Outcome(), error=error.code, message=error.message, remedy=error.remedy)


def _key(trigger: Trigger) -> tuple[str, str]:
    return trigger.site, trigger.environment


def _holds(transaction: Transaction, triggers: Iterable[Trigger]) -> dict[tuple[str, str], Hold]:
    """Return the holds that stand in the way; a rollback's does in nobody's."""
    found = {key: hold_on(transaction, *key) for key in map(_key, triggers)}
    return {key: hold for key, hold in found.items() if hold is not None and hold.live is None}


def _serve(
    transaction: Transaction,
    triggers: Iterable[Trigger],
    holds: Mapping[tuple[str, str], Hold],
    delivery: str | None,
    now: float,
) -> Acceptance:
    """Give each trigger its run."""
    served = []
    for trigger in triggers:
        hold = holds.get(_key(trigger))
        run = _join(transaction, trigger, now) if hold is None else _refuse(transaction, trigger, hold, now)
        attach(transaction, trigger, run, delivery)
        served.append((run, trigger.id))
    return Acceptance(
        runs=tuple(run for run, _ in served),
        triggers=tuple(trigger for _, trigger in served),
        delivery=delivery or "",
    )


def _join(transaction: Transaction, trigger: Trigger, now: float) -> str:
    """Return the run that waits for the trigger's environment, a new one if none does."""
    run = waiting(transaction, trigger.site, trigger.environment)
    if run is None:
        run = new_run(transaction, trigger, now, State.QUEUED)
        transaction.work = True
    elif trigger.origin in EXPLICIT:
        transaction.execute(_HURRY, {"run": run, "now": now})
        transaction.work = True
    elif trigger.settle:
        values = {"run": run, "now": now, "settle": trigger.settle, "settle_most": trigger.settle_most}
        transaction.execute(_SETTLE, values)
    if trigger.origin in EXPLICIT:
        _clear_backoff(transaction, trigger, run, now)
        transaction.execute(_LIFT, {"site": trigger.site, "environment": trigger.environment})
    return run


def _refuse(transaction: Transaction, trigger: Trigger, hold: Hold, now: float) -> str:
    """Return a run that has failed already: whoever asked explicitly is told why."""
    return new_run(transaction, trigger, now, State.FAILED, outcome=outcome_text(held_outcome(hold)))


def new_run(
    transaction: Transaction,
    trigger: Trigger,
    now: float,
    state: State,
    *,
    undoes: str | None = None,
    outcome: str | None = None,
) -> str:
    """Store a run for a trigger and return its id."""
    run = new_id(now)
    values = {
        "id": run,
        "site": trigger.site,
        "environment": trigger.environment,
        "state": state,
        "now": now,
        "not_before": now if trigger.origin in EXPLICIT else now + min(trigger.settle, trigger.settle_most),
        "lane": trigger.lane,
        "urgent": int(trigger.origin in EXPLICIT),
        "finished_at": None if state is State.QUEUED else now,
        "undoes": undoes,
        "outcome": outcome,
    }
    transaction.execute(_NEW_RUN, values)
    transaction.changed.add(run)
    return run


def attach(transaction: Transaction, trigger: Trigger, run: str, delivery: str | None) -> None:
    """Store a trigger with the run that serves it."""
    values: dict[str, Any] = {
        "id": trigger.id,
        "run": run,
        "delivery": delivery,
        "site": trigger.site,
        "environment": trigger.environment,
        "origin": trigger.origin,
        "actor": trigger.actor,
        "at": trigger.at,
        "credential": trigger.credential,
        "client": trigger.client,
    }
    transaction.execute(_NEW_TRIGGER, values)


def _clear_backoff(transaction: Transaction, trigger: Trigger, run: str, now: float) -> None:
    """Let an explicit call through at once, but a caller in a loop not more often than a slow backoff."""
    values = {
        "site": trigger.site,
        "environment": trigger.environment,
        "now": now,
        "pause": CLEARING_PAUSE,
    }
    if transaction.execute(_CLEAR_BACKOFF, values):
        transaction.changed.add(run)
        transaction.work = True


def _keep(transaction: Transaction, delivery: Reception) -> str:
    """Store a delivery; one that was ignored before keeps its id."""
    values = {
        "id": delivery.id,
        "hook": delivery.hook,
        "key": delivery.key,
        "received_at": delivery.received_at,
        "size": delivery.size,
        "digest": delivery.digest,
        "headers": json.dumps(dict(delivery.headers)),
        "facts": json.dumps(dict(delivery.facts)),
        "ignored": delivery.ignored,
        "credential": delivery.credential,
        "client": delivery.client,
    }
    (row,) = transaction.all(_KEEP_DELIVERY, values)
    return str(row["id"])


def _repeat(
    transaction: Transaction,
    first: sqlite3.Row,
    selected: Iterable[Trigger],
    holds: Mapping[tuple[str, str], Hold],
    now: float,
) -> Acceptance:
    """Answer as the first time, with a new run only in the place of one that failed or was cancelled."""
    served = _served(transaction, first["id"])
    lost = {key for key, row in served.items() if row["state"] in {State.FAILED, State.CANCELLED}}
    again = [trigger for trigger in selected if _key(trigger) in lost]
    if again:
        _serve(transaction, again, holds, first["id"], now)
        served = _served(transaction, first["id"])
    return Acceptance(
        runs=tuple(row["run"] for row in served.values()),
        triggers=tuple(row["id"] for row in served.values()),
        delivery=first["id"],
        ignored=first["ignored"],
        repeated=True,
    )


def _served(transaction: Transaction, delivery: str) -> dict[tuple[str, str], sqlite3.Row]:
    """Return each environment that a delivery selected, in the first one's order, with its latest trigger."""
    rows = transaction.all(_SERVED, {"delivery": delivery})
    return {(row["site"], row["environment"]): row for row in rows}
