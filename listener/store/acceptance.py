"""Accepting deliveries and triggers. Each gets a run: a new one, a waiting one, or that of its first arrival.

A request has its environments and the key of its delivery to itself (`claims`). So it may look first and
write then: no other request changes in between what it has seen.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from listener.errors import DeliveryNotFoundError, OnHoldError
from listener.outcomes import Outcome
from listener.queue import Acceptance, DeliveryRecord, Hold
from listener.runs import EXPLICIT, Origin, State, Trigger, demand_transition, first_id, new_id
from listener.store.rows import Row, hold_of, outcome_text
from listener.store.transaction import Transaction

CLEARING_PAUSE = 5.0
"""Seconds after an explicit call has cleared a backoff. In this time, no other call clears it again."""
HEAD_START = 10.0
"""Seconds by which an explicit call goes before a hook's run. A hook's run that is still older goes first."""
STEP_BACK = 60.0
"""Seconds by which the schedule's run goes behind a hook's. One that is older than that goes first."""

ALIKE_MOST, ALIKE_FOR = 256, 3600.0
"""If a body has so many rows within so many seconds, a delivery that repeats it gets no row of its own."""
ALIKE_LOOKED_AT = 8
"""So many rows with the same body are compared. They differ if it came from several addresses."""

Key = tuple[str, str]

_HOLD = "SELECT * FROM holds WHERE site = :site AND environment = :environment"
_HOLDS = "SELECT * FROM holds WHERE site = ANY (:sites::text[]) AND environment = ANY (:environments::text[])"
# The rows with the same id (`key`), those at which the same id was counted, and those with the same body.
# A row that was replaced after something was counted at it (`at`) is another delivery now.
_EARLIER = """
SELECT id, ignored, key, facts, credential, client, true AS known FROM deliveries
WHERE hook = :hook AND key = :key
UNION ALL
SELECT d.id, d.ignored, NULL, d.facts, d.credential, d.client, true
FROM repeats AS r JOIN deliveries AS d ON d.id = r.delivery
WHERE r.hook = :hook AND r.key = :key AND r.at >= d.received_at
UNION ALL
SELECT * FROM (
    SELECT id, ignored, NULL, facts, credential, client, false FROM deliveries
    WHERE hook = :hook AND digest = :digest AND digest <> '' AND :recent < (
        SELECT e.id FROM deliveries AS e WHERE e.hook = :hook AND e.digest = :digest
        ORDER BY e.id DESC LIMIT 1 OFFSET :most - 1
    )
    ORDER BY id DESC LIMIT :looked_at
) AS alike
"""
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
_NEW_DELIVERY = """
INSERT INTO deliveries
    (id, hook, key, received_at, size, digest, headers, facts, ignored, credential, client)
VALUES
    (:id, :hook, :key, :received_at, :size, :digest, :headers, :facts, :ignored, :credential, :client)
"""
_COUNT = """
UPDATE deliveries SET count = count + 1, last_at = greatest(received_at, coalesce(last_at, 0), :received_at)
WHERE id = :id
"""
_REPEAT = """
INSERT INTO repeats (hook, key, delivery, at)
SELECT hook, :key, id, last_at FROM deliveries WHERE id = :id
ON CONFLICT (hook, key) DO UPDATE SET delivery = excluded.delivery, at = excluded.at
"""
_TAKE_DELIVERY = """
UPDATE deliveries SET
    received_at = :received_at, size = :size, digest = :digest, headers = :headers, facts = :facts,
    ignored = :ignored, credential = :credential, client = :client
WHERE id = :id
"""
_TAKE_AGAIN = "UPDATE deliveries SET ignored = '' WHERE id = :id RETURNING id"
_SERVED = """
SELECT t.id, t.run, t.site, t.environment, r.state
FROM triggers AS t JOIN runs AS r ON r.id = t.run
WHERE t.delivery = :delivery ORDER BY t.position
"""
_LIFT = """
DELETE FROM holds WHERE site = :site AND environment = :environment AND live IS NOT NULL
"""
_CLEAR_BACKOFF = """
UPDATE backoffs SET not_before = :now::float8, cleared_at = :now
WHERE site = :site AND environment = :environment AND not_before > :now
    AND (cleared_at IS NULL OR cleared_at <= :now - :pause::float8)
RETURNING site
"""


_OF_TRIGGER = ("id", "site", "environment", "origin", "actor", "at", "credential", "client")
_OF_DELIVERY = ("id", "hook", "key", "received_at", "size", "digest", "credential", "client")


def claims(triggers: Iterable[Trigger], delivery: DeliveryRecord | None) -> list[Key]:
    """Return what an acceptance must have to itself: its environments, and the key and body at its hook."""
    taken = [_key(trigger) for trigger in triggers]
    if delivery is not None:
        taken.append((f"body {delivery.hook}", delivery.digest))
        if delivery.key is not None:
            taken.append((f"hook {delivery.hook}", delivery.key))
    return taken


async def accept(
    transaction: Transaction, triggers: Sequence[Trigger], delivery: DeliveryRecord | None, now: float
) -> Acceptance:
    """Carry out `RunStore.accept`."""
    if delivery is not None and delivery.ignored:
        triggers = ()
    holds = await _freezes(transaction, triggers)
    selected = [t for t in triggers if t.origin in EXPLICIT or _key(t) not in holds]
    ignored = delivery.ignored if delivery is not None else ""
    if triggers and not selected:
        ignored = _held_reason(holds.values())
    if delivery is None:
        return await _serve(transaction, selected, holds, None, now, ignored)
    values = _delivery_values(delivery, ignored)
    looked_for = {
        "recent": first_id(now - ALIKE_FOR),
        "most": ALIKE_MOST,
        "looked_at": ALIKE_LOOKED_AT,
    }
    earlier = await transaction.all(_EARLIER, values | looked_for)
    kept = delivery.id
    if known := [row for row in earlier if row["known"]]:
        first = max(known, key=lambda row: row["key"] is not None)
        if not (first["ignored"] and selected):
            return await _repeat(transaction, first, selected, holds, now)
        if first["key"] is not None:
            kept = str(first["id"])
    elif alike := await _counted(transaction, earlier, values, selected):
        for trigger in selected:
            await _join(transaction, trigger, now)
        return replace(alike, ignored=ignored)
    await transaction.write(_NEW_DELIVERY if kept == delivery.id else _TAKE_DELIVERY, values | {"id": kept})
    return await _serve(transaction, selected, holds, kept, now, ignored)


async def redeliver(
    transaction: Transaction, delivery: str, triggers: Sequence[Trigger], now: float
) -> Acceptance:
    """Carry out `RunStore.redeliver`."""
    if not await transaction.change(_TAKE_AGAIN, {"id": delivery}):
        raise DeliveryNotFoundError
    return await _serve(transaction, triggers, await _freezes(transaction, triggers), delivery, now)


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
    return str(values["id"])


async def attach(transaction: Transaction, trigger: Trigger, run: str, delivery: str | None) -> None:
    """Store a trigger with the run that serves it."""
    values = {name: getattr(trigger, name) for name in _OF_TRIGGER}
    await transaction.write(_NEW_TRIGGER, values | {"run": run, "delivery": delivery})


def _key(trigger: Trigger) -> Key:
    return trigger.site, trigger.environment


def _held_reason(holds: Iterable[Hold]) -> str:
    return "; ".join(f"{hold.site}/{hold.environment} is on hold: {hold.reason}" for hold in holds)


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


def _delivery_values(delivery: DeliveryRecord, ignored: str) -> dict[str, Any]:
    return {name: getattr(delivery, name) for name in _OF_DELIVERY} | {
        "headers": json.dumps(dict(delivery.headers)),
        "facts": json.dumps(dict(delivery.facts)),
        "ignored": ignored,
    }


async def _freezes(transaction: Transaction, triggers: Sequence[Trigger]) -> dict[Key, Hold]:
    """Return the holds that keep triggers from getting a run. The hold of a rollback keeps none."""
    if len(triggers) <= 1:
        alone = [await hold_on(transaction, *_key(trigger)) for trigger in triggers]
        return {(hold.site, hold.environment): hold for hold in alone if hold and hold.live is None}
    values = {"sites": [t.site for t in triggers], "environments": [t.environment for t in triggers]}
    found = {
        (hold.site, hold.environment): hold for hold in map(hold_of, await transaction.all(_HOLDS, values))
    }
    return {key: found[key] for key in map(_key, triggers) if key in found and found[key].live is None}


async def _serve(
    transaction: Transaction,
    triggers: Iterable[Trigger],
    holds: Mapping[Key, Hold],
    delivery: str | None,
    now: float,
    ignored: str = "",
) -> Acceptance:
    """Give each trigger its run."""
    served = []
    for trigger in triggers:
        hold = holds.get(_key(trigger))
        if hold is None:
            run = await _join(transaction, trigger, now)
        else:  # An explicit caller gets a run that says why it failed.
            outcome = outcome_text(held_outcome(hold))
            run = await new_run(transaction, trigger, now, State.FAILED, outcome=outcome)
        await attach(transaction, trigger, run, delivery)
        served.append((run, trigger.id))
    return Acceptance(
        runs=tuple(run for run, _ in served),
        triggers=tuple(trigger for _, trigger in served),
        delivery=delivery or "",
        ignored=ignored,
    )


async def _join(transaction: Transaction, trigger: Trigger, now: float) -> str:
    """Return the run that waits for the trigger's environment, a new one if none does."""
    settling = {"settle": trigger.settle, "settle_most": trigger.settle_most, "rank": _rank(trigger)}
    values = _run_values(trigger, now, State.QUEUED) | settling
    joined = await transaction.change(_JOIN, values) or await transaction.all(WAITING, values)
    run = str(joined[0]["id"])
    made, explicit, cleared = run == values["id"], trigger.origin in EXPLICIT, False
    if made:
        transaction.changed.add(run)
        transaction.work = True
    if explicit:
        # At most once in `CLEARING_PAUSE`: a caller in a loop would switch the backoff off.
        cleared = bool(await transaction.change(_CLEAR_BACKOFF, values | {"pause": CLEARING_PAUSE}))
        await transaction.write(_LIFT, values)
    if cleared:
        transaction.changed.add(run)
    if cleared or (not made and (explicit or trigger.settle)):
        await reschedule(transaction, trigger.site, trigger.environment)
    return run


async def _counted(
    transaction: Transaction, earlier: Iterable[Row], values: Mapping[str, Any], selected: Sequence[Trigger]
) -> Acceptance | None:
    """Count a delivery at an earlier one that is the same but for its id. None if it gets its own row.

    All runs of the earlier one must still wait: a running one may have read live already.
    """
    alike = next((row for row in earlier if _alike(row, values)), None)
    if alike is None:
        return None
    served = await _served(transaction, alike["id"])
    waiting = {key for key, row in served.items() if row["state"] == State.QUEUED}
    if not (set(map(_key, selected)) == served.keys() == waiting):
        return None
    named = {"id": alike["id"], "key": values["key"], "received_at": values["received_at"]}
    await transaction.write(_COUNT, named)
    if values["key"] is not None:
        await transaction.write(_REPEAT, named)
    return Acceptance(
        runs=tuple(row["run"] for row in served.values()),
        triggers=tuple(row["id"] for row in served.values()),
        delivery=alike["id"],
    )


def _alike(row: Row, values: Mapping[str, Any]) -> bool:
    """Return whether a row with the same body has the same sender and the same facts."""
    same = all(row[name] == values[name] for name in ("ignored", "credential", "client"))
    return same and _said(row["facts"]) == _said(values["facts"])


def _said(facts: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(facts or "{}").items() if name != "key"}


async def _repeat(
    transaction: Transaction,
    first: Row,
    selected: Iterable[Trigger],
    holds: Mapping[Key, Hold],
    now: float,
) -> Acceptance:
    """Return the answer of the first time. Runs that failed or were cancelled are replaced by new ones."""
    served = await _served(transaction, first["id"])
    lost = {key for key, row in served.items() if row["state"] in {State.FAILED, State.CANCELLED}}
    again = [trigger for trigger in selected if _key(trigger) in lost]
    if again:
        await _serve(transaction, again, holds, first["id"], now)
        served = await _served(transaction, first["id"])
    return Acceptance(
        runs=tuple(row["run"] for row in served.values()),
        triggers=tuple(row["id"] for row in served.values()),
        delivery=first["id"],
        ignored=first["ignored"],
        repeated=True,
    )


async def _served(transaction: Transaction, delivery: str) -> dict[Key, Row]:
    """Return the latest trigger of each environment that a delivery selected, in the order of the first."""
    rows = await transaction.all(_SERVED, {"delivery": delivery})
    return {(row["site"], row["environment"]): row for row in rows}
