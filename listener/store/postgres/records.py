"""What is on record of those who came: written down in one go, read page by page."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from listener.errors import DeliveryNotFoundError
from listener.records import Arrival, ArrivalFilter, Refusal, Use
from listener.store.postgres.server import Questions
from listener.store.postgres.writer import Transaction
from listener.store.records import served_by_delivery
from listener.store.rows import Row, arrival_of

CLAIM = ("records", "")
"""What writing down must have to itself: two listeners would take the same rows in two orders."""

_REFUSALS = """
INSERT INTO refusals
    (id, at, request, reason, status, client, credential, hook, size, digest, headers, count)
SELECT * FROM unnest(
    :id::text[], :at::float8[], :request::text[], :reason::text[], :status::integer[], :client::text[],
    :credential::text[], :hook::text[], :size::bigint[], :digest::text[], :headers::text[], :count::bigint[]
)
ON CONFLICT (id) DO NOTHING
"""
_NEWEST = """
DELETE FROM refusals
WHERE id <= (SELECT id FROM refusals ORDER BY id DESC LIMIT 1 OFFSET :keep::bigint)
"""
_USE = """
INSERT INTO uses (kind, owner, name, count, last) VALUES (:kind, :owner, :name, :count, :last)
ON CONFLICT (kind, owner, name) DO UPDATE SET
    count = uses.count + excluded.count, last = greatest(uses.last, excluded.last)
"""
_SAME_BODY = """
(SELECT e.id FROM deliveries AS e
 WHERE e.hook = a.hook AND e.digest = a.digest AND e.id < a.id AND a.digest <> '' AND a.fate <> 'refused'
 ORDER BY e.id DESC LIMIT 1) AS same_body
"""
# No id is beyond a tilde: with OR in its place, the rows of earlier pages would be read too.
_SOME = """
SELECT * FROM (
    SELECT * FROM {0}
    WHERE (:hook::text IS NULL OR hook = :hook)
        AND (:fate::text IS NULL OR fate = :fate)
        AND id < coalesce(:before::text, '~')
    ORDER BY id DESC LIMIT :limit
) AS {0}
"""
_PAGE = f"""
SELECT a.*, {_SAME_BODY} FROM (
    {_SOME.format("taken")} UNION ALL {_SOME.format("refused")} ORDER BY id DESC LIMIT :limit
) AS a ORDER BY a.id DESC
"""  # noqa: S608 (ours)
_ONE = f"""
SELECT a.*, {_SAME_BODY} FROM (
    SELECT * FROM taken WHERE id = :id UNION ALL SELECT * FROM refused WHERE id = :id
) AS a
"""  # noqa: S608 (ours)
_SERVED = "SELECT * FROM triggers WHERE delivery = ANY (:deliveries::text[]) ORDER BY position"


async def record(
    transaction: Transaction, refusals: Sequence[Refusal], uses: Sequence[Use], keep: int
) -> None:
    """Store what `Records.record` says."""
    if refusals:
        rows = [asdict(each) | {"headers": json.dumps(dict(each.headers))} for each in refusals]
        await transaction.write(_REFUSALS, {name: [row[name] for row in rows] for name in rows[0]})
        await transaction.write(_NEWEST, {"keep": keep})
    for use in uses:
        await transaction.write(_USE, asdict(use))


async def arrivals(questions: Questions, which: ArrivalFilter) -> list[Arrival]:
    """Return a page of what arrived, newest first."""
    return await _told(questions, await questions.all(_PAGE, asdict(which)))


async def arrival(questions: Questions, arrival_id: str) -> Arrival:
    """Return one, or raise `DeliveryNotFoundError`."""
    found = await _told(questions, await questions.all(_ONE, {"id": arrival_id}))
    if not found:
        raise DeliveryNotFoundError
    return found[0]


async def uses(questions: Questions) -> list[Use]:
    """Return every credential's uses."""
    return [
        Use(**dict(row)) for row in await questions.all("SELECT * FROM uses ORDER BY kind, owner, name", {})
    ]


async def _told(questions: Questions, rows: Sequence[Row]) -> list[Arrival]:
    served = served_by_delivery(await questions.all(_SERVED, {"deliveries": [row["id"] for row in rows]}))
    return [arrival_of(row, served.get(row["id"], ())) for row in rows]
