"""Accepting deliveries and triggers. Each gets a run: a new one, a waiting one, or that of its first arrival.

A write has its environments and the keys of its deliveries to itself (`claims`). So it may look first and
write then: no other write changes in between what it has seen.

Acceptances that wait for the writer together are one write. Each statement is for all of them, because a
statement costs about the same for one and for sixty.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from listener.errors import DeliveryNotFoundError
from listener.events import EventKind, Happened
from listener.queue import Acceptance, DeliveryRecord, Hold
from listener.runs import EXPLICIT, State, Trigger, first_id
from listener.store.joining import Key, Wanted, attach, held_outcome, join, new_run
from listener.store.rows import Row, hold_of, outcome_text
from listener.store.transaction import Transaction

ALIKE_MOST, ALIKE_FOR = 256, 3600.0
"""If a body has so many rows within so many seconds, a delivery that repeats it gets no row of its own."""
ALIKE_LOOKED_AT = 8
"""So many rows with the same body are compared. They differ if it came from several addresses."""

_HOLDS = "SELECT * FROM holds WHERE site = ANY (:sites::text[]) AND environment = ANY (:environments::text[])"
# The rows with the same id (`key`), those at which the same id was counted, and the bodies that came very
# often. A row that was replaced after something was counted at it (`at`) is another delivery now.
_EARLIER = """
SELECT key AS asked, id, ignored, 'own' AS kind FROM deliveries
WHERE hook = :hook AND key = ANY (:keys::text[])
UNION ALL
SELECT r.key, d.id, d.ignored, 'counted'
FROM repeats AS r JOIN deliveries AS d ON d.id = r.delivery
WHERE r.hook = :hook AND r.key = ANY (:keys::text[]) AND r.at >= d.received_at
UNION ALL
SELECT w.digest, '', '', 'often' FROM unnest(:digests::text[]) AS w (digest)
WHERE :recent < (
    SELECT e.id FROM deliveries AS e WHERE e.hook = :hook AND e.digest = w.digest
    ORDER BY e.id DESC LIMIT 1 OFFSET :most - 1
)
"""
_ALIKE = """
SELECT id, ignored, facts, credential, client FROM deliveries
WHERE hook = :hook AND digest = :digest ORDER BY id DESC LIMIT :looked_at
"""
_NEW_DELIVERY = """
INSERT INTO deliveries
    (id, hook, key, received_at, size, digest, headers, facts, ignored, credential, client)
VALUES
    (:id, :hook, :key, :received_at, :size, :digest, :headers, :facts, :ignored, :credential, :client)
"""
_COUNT = """
UPDATE deliveries SET
    count = count + :more, last_at = greatest(received_at, coalesce(last_at, 0), :received_at)
WHERE id = :id RETURNING last_at
"""
_REPEAT = """
INSERT INTO repeats (hook, key, delivery, at) VALUES (:hook, :key, :delivery, :at)
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
_OF_DELIVERY = ("id", "hook", "key", "received_at", "size", "digest", "credential", "client")


@dataclass(frozen=True, slots=True)
class Submission:
    """What one caller of `RunStore.accept` brings."""

    triggers: Sequence[Trigger]
    delivery: DeliveryRecord | None
    now: float

    @property
    def asked(self) -> Sequence[Trigger]:
        """The triggers that want a run: none for a delivery that selects nothing."""
        return () if self.delivery is not None and self.delivery.ignored else self.triggers

    @property
    def sender_key(self) -> Key | None:
        """The key of the delivery at its hook; None if it has none."""
        if self.delivery is None or self.delivery.key is None:
            return None
        return f"hook {self.delivery.hook}", self.delivery.key


def claims(submission: Submission) -> list[Key]:
    """Return what an acceptance must have to itself: its environments, and the key and body at its hook."""
    taken = [_key(trigger) for trigger in submission.triggers]
    if (delivery := submission.delivery) is not None:
        taken.append((f"body {delivery.hook}", delivery.digest))
        if submission.sender_key is not None:
            taken.append(submission.sender_key)
    return taken


async def accept(transaction: Transaction, submissions: Sequence[Submission]) -> list[Acceptance]:
    """Carry out `RunStore.accept` for several callers. All deliveries of a hook have different keys."""
    holds = await _freezes(transaction, [trigger for each in submissions for trigger in each.asked])
    arriving = [_Arriving.of(each, holds) for each in submissions]
    past = await _past(transaction, [each for each in arriving if each.record is not None])
    known = [await _known(transaction, each, past, holds) for each in arriving]
    await _count(transaction, past)
    new = [each for each, answer in zip(arriving, known, strict=True) if answer is None]
    rows = [_row(each, each.record) for each in new if each.record and each.id == each.record.id]
    if rows:
        await transaction.many(_NEW_DELIVERY, rows)
    transaction.happened += [Happened(EventKind.DELIVERY, reference=each.id) for each in new if each.record]
    runs = await _serve(transaction, [wanted for each in new for wanted in each.wanted], holds)
    return [answer or each.answer(runs) for each, answer in zip(arriving, known, strict=True)]


async def redeliver(
    transaction: Transaction, delivery: str, triggers: Sequence[Trigger], now: float
) -> Acceptance:
    """Carry out `RunStore.redeliver`."""
    if not await transaction.change(_TAKE_AGAIN, {"id": delivery}):
        raise DeliveryNotFoundError
    wanted = [Wanted(trigger, now, delivery) for trigger in triggers]
    runs = await _serve(transaction, wanted, await _freezes(transaction, triggers))
    return _Arriving(None, delivery, "", wanted).answer(runs)


@dataclass(slots=True)
class _Arriving:
    """A submission on its way into the store."""

    record: DeliveryRecord | None
    id: str
    """The id under which its delivery is stored; empty if it has none."""
    ignored: str
    wanted: list[Wanted]
    """Its triggers that get a run."""

    @classmethod
    def of(cls, submission: Submission, holds: Mapping[Key, Hold]) -> "_Arriving":
        """Return a submission without the triggers that a hold keeps from getting a run."""
        record, now, asked = submission.delivery, submission.now, submission.asked
        id_, ignored = ("", "") if record is None else (record.id, record.ignored)
        selected = [each for each in asked if each.origin in EXPLICIT or _key(each) not in holds]
        if asked and not selected:
            ignored = _held_reason(dict.fromkeys(holds[_key(each)] for each in asked))
        return cls(record, id_, ignored, [Wanted(each, now, id_ or None) for each in selected])

    def answer(self, runs: Mapping[str, str]) -> Acceptance:
        """Return the answer: `runs` has the run of each trigger by its id."""
        triggers = tuple(each.trigger.id for each in self.wanted)
        return Acceptance(
            runs=tuple(runs[each] for each in triggers),
            triggers=triggers,
            delivery=self.id,
            ignored=self.ignored,
        )


@dataclass(slots=True)
class _Past:
    """What came before the deliveries of a write."""

    same: dict[Key, Row] = field(default_factory=dict)
    """The delivery with the same id, by hook and id."""
    alike: dict[Key, list[tuple[Row, Any]]] = field(default_factory=dict)
    """The latest deliveries with a body that came very often, and their facts, by hook and digest."""
    served: dict[str, dict[Key, Row]] = field(default_factory=dict)
    """The triggers of these, by the id of the delivery."""
    counted: dict[str, list[_Arriving]] = field(default_factory=lambda: defaultdict(list))
    """What is only counted at an earlier delivery, by the id of that."""


async def _past(transaction: Transaction, arriving: Sequence[_Arriving]) -> _Past:
    past = _Past()
    by_hook: dict[str, list[DeliveryRecord]] = defaultdict(list)
    for each in arriving:
        assert each.record is not None  # noqa: S101 (the caller has left the others out)
        by_hook[each.record.hook].append(each.record)
    for hook, records in by_hook.items():
        digests = Counter(each.digest for each in records if each.digest)
        values = {
            "hook": hook,
            "keys": [each.key for each in records if each.key is not None],
            "digests": list(digests),
            "recent": first_id(records[-1].received_at - ALIKE_FOR),
            # All of one body that come together may get rows: as if the last of them looked.
            "most": ALIKE_MOST + 1 - max(digests.values(), default=1),
        }
        for row in await transaction.all(_EARLIER, values):
            place = (hook, str(row["asked"]))
            if row["kind"] == "often":
                past.alike[place] = await _alike(transaction, *place)
            elif row["kind"] == "own" or place not in past.same:
                past.same[place] = row
    return past


async def _alike(transaction: Transaction, hook: str, digest: str) -> list[tuple[Row, Any]]:
    rows = await transaction.all(_ALIKE, {"hook": hook, "digest": digest, "looked_at": ALIKE_LOOKED_AT})
    return [(row, _said(json.loads(row["facts"] or "{}"))) for row in rows]


async def _known(
    transaction: Transaction, arriving: _Arriving, past: _Past, holds: Mapping[Key, Hold]
) -> Acceptance | None:
    """Return the answer to a delivery that came before, or only its body; None for a new one."""
    record = arriving.record
    if record is None:
        return None
    first = None if record.key is None else past.same.get((record.hook, record.key))
    if first is None:
        return await _counted(transaction, arriving, record, past)
    if not (first["ignored"] and arriving.wanted):
        return await _repeat(transaction, first, arriving.wanted, holds)
    if first["kind"] == "own":
        # What selected nothing when it came first is taken now, in the place of the first one.
        arriving.id = str(first["id"])
        arriving.wanted = [replace(each, delivery=arriving.id) for each in arriving.wanted]
        await transaction.write(_TAKE_DELIVERY, _row(arriving, record))
    return None


def _key(trigger: Trigger) -> Key:
    return trigger.site, trigger.environment


def _held_reason(holds: Iterable[Hold]) -> str:
    return "; ".join(f"{hold.site}/{hold.environment} is on hold: {hold.reason}" for hold in holds)


def _row(arriving: _Arriving, record: DeliveryRecord) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(record, name) for name in _OF_DELIVERY}
    values["id"], values["ignored"] = arriving.id, arriving.ignored
    values["headers"] = json.dumps(dict(record.headers))
    values["facts"] = json.dumps(dict(record.facts))
    return values


async def _freezes(transaction: Transaction, triggers: Iterable[Trigger]) -> dict[Key, Hold]:
    """Return the holds that keep triggers from getting a run. The hold of a rollback keeps none."""
    keys = dict.fromkeys(map(_key, triggers))
    if not keys:
        return {}
    sites, environments = zip(*keys, strict=True)
    values = {"sites": list(set(sites)), "environments": list(set(environments))}
    found = map(hold_of, await transaction.all(_HOLDS, values))
    # The statement also returns the holds of other environments with one of these names.
    by_key = {(hold.site, hold.environment): hold for hold in found if hold.live is None}
    return {key: by_key[key] for key in keys if key in by_key}


async def _serve(
    transaction: Transaction, wanted: Sequence[Wanted], holds: Mapping[Key, Hold]
) -> dict[str, str]:
    """Give each trigger its run, and store it; return the runs by the ids of the triggers."""
    joined = await join(transaction, [each for each in wanted if each.key not in holds])
    runs = {}
    for each in wanted:
        hold = holds.get(each.key)
        if hold is None:
            runs[each.trigger.id] = joined[each.key]
        else:  # An explicit caller gets a run that says why it failed.
            outcome = outcome_text(held_outcome(hold))
            run = await new_run(transaction, each.trigger, each.now, State.FAILED, outcome=outcome)
            runs[each.trigger.id] = run
    await attach(transaction, [(each, runs[each.trigger.id]) for each in wanted])
    return runs


async def _counted(
    transaction: Transaction, arriving: _Arriving, record: DeliveryRecord, past: _Past
) -> Acceptance | None:
    """Count a delivery at an earlier one that is the same but for its id. None if it gets its own row.

    All runs of the earlier one must still wait: a running one may have read live already.
    """
    rows = past.alike.get((record.hook, record.digest), ())
    sender = (arriving.ignored, record.credential, record.client)
    facts = _said(record.facts) if rows else None
    alike = next((str(row["id"]) for row, said in rows if said == facts and _sender(row) == sender), None)
    if alike is None:
        return None
    if alike not in past.served:
        past.served[alike] = await _served(transaction, alike)
    served = past.served[alike]
    waiting = {key for key, row in served.items() if row["state"] == State.QUEUED}
    if not ({each.key for each in arriving.wanted} == served.keys() == waiting):
        return None
    past.counted[alike].append(arriving)
    return replace(_first_answer(served, alike), ignored=arriving.ignored)


async def _count(transaction: Transaction, past: _Past) -> None:
    """Store what is only counted: how often, the ids, and what its triggers change at their runs."""
    for alike, counted in past.counted.items():
        records = [each.record for each in counted if each.record is not None]
        values = {
            "id": alike,
            "more": len(records),
            "received_at": max(each.received_at for each in records),
        }
        (row,) = await transaction.change(_COUNT, values)
        repeats = [
            {"hook": each.hook, "key": each.key, "delivery": alike, "at": row["last_at"]}
            for each in records
            if each.key is not None
        ]
        if repeats:
            await transaction.many(_REPEAT, repeats)
        await join(transaction, [wanted for each in counted for wanted in each.wanted])


def _sender(row: Row) -> tuple[str, str, str]:
    return row["ignored"], row["credential"], row["client"]


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "key"}


async def _repeat(
    transaction: Transaction, first: Row, wanted: Iterable[Wanted], holds: Mapping[Key, Hold]
) -> Acceptance:
    """Return the answer of the first time. Runs that failed or were cancelled are replaced by new ones."""
    served = await _served(transaction, first["id"])
    lost = {key for key, row in served.items() if row["state"] in {State.FAILED, State.CANCELLED}}
    again = [replace(each, delivery=first["id"]) for each in wanted if each.key in lost]
    if again:
        await _serve(transaction, again, holds)
        served = await _served(transaction, first["id"])
    return replace(_first_answer(served, first["id"]), ignored=first["ignored"], repeated=True)


def _first_answer(served: Mapping[Key, Row], delivery: str) -> Acceptance:
    return Acceptance(
        runs=tuple(row["run"] for row in served.values()),
        triggers=tuple(row["id"] for row in served.values()),
        delivery=delivery,
    )


async def _served(transaction: Transaction, delivery: str) -> dict[Key, Row]:
    """Return the latest trigger of each environment that a delivery selected, in the order of the first."""
    rows = await transaction.all(_SERVED, {"delivery": delivery})
    return {(row["site"], row["environment"]): row for row in rows}
