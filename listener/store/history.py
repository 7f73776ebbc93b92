"""Queries: what is read without writing."""

import json
import statistics
from collections.abc import Collection
from typing import Any

from listener.errors import RunNotFoundError
from listener.queue import Backlog, Hold, LogLine, QueuePosition, RunFilter, Success
from listener.runs import ENDED, Run, State, Trigger
from listener.store.rows import RUN, Row, hold_of, run_of, trigger_of
from listener.store.transaction import Reader

SOON = 32
"""A claim looks at so many ready runs one by one. It finds the runs behind them by their lanes."""

_FREE = """
NOT EXISTS (
    SELECT 1 FROM runs AS o
    WHERE o.state = 'running' AND o.site = {0}.site AND o.environment = {0}.environment
) AND NOT EXISTS (
    SELECT 1 FROM holds AS h
    WHERE h.site = {0}.site AND h.environment = {0}.environment AND h.live IS NULL
)
"""
"""Whether nothing keeps a run from starting: a running one of its environment, or a hold by a person."""
READY_SOON = f"""
SELECT q.position FROM runs AS q INDEXED BY turns
WHERE q.state = 'queued' AND q.ready AND q.lane <> ALL (:full::text[]) AND {_FREE.format("q")}
    AND q.turn <= coalesce((
        SELECT l.turn FROM runs AS l INDEXED BY turns
        WHERE l.state = 'queued' AND l.ready ORDER BY l.turn, l.position LIMIT 1 OFFSET {SOON}
    ), 9e15)
ORDER BY q.turn, q.position LIMIT 1 FOR UPDATE OF q SKIP LOCKED
"""  # noqa: S608 (ours)
# Walk from lane to lane on an index, and take the first run of each lane. Thousands of runs that wait for a
# full host are passed over in one step.
READY_IN_ANY_LANE = f"""
WITH RECURSIVE lanes (lane) AS (
    SELECT min(lane) FROM runs INDEXED BY lane_turns WHERE state = 'queued' AND ready
    UNION ALL
    SELECT (
        SELECT min(n.lane) FROM runs AS n INDEXED BY lane_turns
        WHERE n.state = 'queued' AND n.ready AND n.lane > lanes.lane
    ) FROM lanes WHERE lanes.lane IS NOT NULL
), firsts (position) AS MATERIALIZED (
    SELECT (
        SELECT f.position FROM runs AS f INDEXED BY lane_turns
        WHERE f.state = 'queued' AND f.ready AND f.lane = lanes.lane AND {_FREE.format("f")}
        ORDER BY f.turn, f.position LIMIT 1
    ) FROM lanes WHERE lanes.lane <> ALL (:full::text[])
)
SELECT q.position FROM firsts CROSS JOIN runs AS q
WHERE q.position = firsts.position
ORDER BY q.turn, q.position LIMIT 1 FOR UPDATE OF q SKIP LOCKED
"""  # noqa: S608 (ours)
_NEXT_READY = f"""
SELECT due FROM runs WHERE position = coalesce(({READY_SOON}), ({READY_IN_ANY_LANE}))
""".replace("FOR UPDATE OF q SKIP LOCKED", "")  # noqa: S608 (ours)
_NEXT_LATER = f"""
SELECT q.due FROM runs AS q INDEXED BY dues
WHERE q.state = 'queued' AND NOT q.ready AND q.lane <> ALL (:full::text[]) AND {_FREE.format("q")}
ORDER BY q.due LIMIT 1
"""  # noqa: S608 (ours)
_NEXT_DUE = f"""
SELECT min(d.due) AS due FROM (
    SELECT ({_NEXT_READY}) AS due UNION ALL SELECT ({_NEXT_LATER}) AS due
) AS d
"""  # noqa: S608 (ours)
_RUN = f"SELECT {RUN} FROM runs WHERE id = :id"  # noqa: S608 (ours)
_RUNNING = f"SELECT {RUN} FROM runs INDEXED BY one_running WHERE state = 'running' ORDER BY id"  # noqa: S608 (ours)
_NEWEST = f"SELECT {RUN} FROM runs WHERE id < :before ORDER BY id DESC LIMIT :limit"  # noqa: S608 (ours)
_NEWEST_IN_STATE = f"""
SELECT {RUN} FROM runs WHERE state = :state AND finished_at IS NOT NULL AND id < :before
ORDER BY id DESC LIMIT :limit
"""  # noqa: S608 (ours)
_ACTIVE = """
SELECT id FROM runs INDEXED BY one_waiting WHERE state = 'queued' AND id < :before {0}
UNION ALL
SELECT id FROM runs INDEXED BY one_running WHERE state = 'running' AND id < :before {0}
"""
_IN_SITES, _IN_ENVIRONMENT = "AND site = ANY (:sites::text[])", "AND environment = :environment"
# By whether sites and an environment are given. A condition that may be empty would keep an index from use.
_ACTIVE_IN = {
    (False, False): _ACTIVE.format(""),
    (False, True): _ACTIVE.format(_IN_ENVIRONMENT),
    (True, False): _ACTIVE.format(_IN_SITES),
    (True, True): _ACTIVE.format(f"{_IN_SITES} {_IN_ENVIRONMENT}"),
}
_THESE = f"SELECT {RUN} FROM runs WHERE id = ANY (:ids::text[]) ORDER BY id DESC"  # noqa: S608 (ours)
_NAMED = """
places (site, environment) AS (SELECT s.site, :environment::text FROM unnest(:sites::text[]) AS s (site))
"""
_ALL_OF_SITES = """
places (site, environment) AS (
    SELECT s.site, (
        SELECT min(r.environment) FROM runs AS r WHERE r.site = s.site AND r.finished_at IS NOT NULL
    )
    FROM unnest(:sites::text[]) AS s (site)
    UNION ALL
    SELECT p.site, (
        SELECT min(r.environment) FROM runs AS r
        WHERE r.site = p.site AND r.environment > p.environment AND r.finished_at IS NOT NULL
    )
    FROM places AS p WHERE p.environment IS NOT NULL
)
"""
# A page is read off an index: of each place and state, as many runs as the page may hold.
_ENDED = """
WITH RECURSIVE {0}, lowest (site, environment, state, id) AS MATERIALIZED (
    SELECT p.site, p.environment, s.state, coalesce((
        SELECT f.id FROM runs AS f
        WHERE f.site = p.site AND f.environment = p.environment AND f.state = s.state AND f.id < :before
            AND f.finished_at IS NOT NULL
        ORDER BY f.id DESC LIMIT 1 OFFSET :limit::bigint - 1
    ), '')
    FROM places AS p CROSS JOIN unnest(:states::text[]) AS s (state)
    WHERE p.environment IS NOT NULL
)
SELECT r.id FROM lowest AS l CROSS JOIN runs AS r
WHERE r.site = l.site AND r.environment = l.environment AND r.state = l.state
    AND r.id >= l.id AND r.id < :before AND r.finished_at IS NOT NULL
ORDER BY r.id DESC LIMIT :limit::bigint
"""
_ENDED_IN_SITES, _ENDED_IN_PLACES = _ENDED.format(_ALL_OF_SITES), _ENDED.format(_NAMED)
_SITES = """
WITH RECURSIVE sites (site) AS (
    SELECT min(site) FROM runs WHERE finished_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(r.site) FROM runs AS r WHERE r.site > s.site AND r.finished_at IS NOT NULL)
    FROM sites AS s WHERE s.site IS NOT NULL
)
SELECT site FROM sites WHERE site IS NOT NULL
"""
_SERVING = f"""
SELECT {RUN} FROM triggers AS t JOIN runs ON runs.id = t.run WHERE t.id = :id
"""  # noqa: S608 (ours)
_TRIGGERS = "SELECT * FROM triggers WHERE run = :run ORDER BY at, position"
_HOLDS = "SELECT * FROM holds ORDER BY site, environment"
_HOLDS_OF_SITES = "SELECT * FROM holds WHERE site = ANY (:sites::text[]) ORDER BY site, environment"
_LAST_SUCCESSES = """
SELECT r.site, r.environment, r.id, r.finished_at
FROM unnest(:places::text[]) AS p (place) CROSS JOIN runs AS r
WHERE r.id = (
    SELECT f.id FROM runs AS f
    WHERE f.site = p.place::json ->> 0 AND f.environment = p.place::json ->> 1
        AND f.state = 'succeeded' AND f.undoes IS NULL
    ORDER BY f.finished_at DESC, f.id DESC LIMIT 1
)
"""
_LAST_FAILURES = """
SELECT r.site, r.environment, r.finished_at
FROM unnest(:places::text[]) AS p (place) CROSS JOIN runs AS r
WHERE r.id = (
    SELECT f.id FROM runs AS f
    WHERE f.site = p.place::json ->> 0 AND f.environment = p.place::json ->> 1
        AND f.state = 'failed' AND f.finished_at IS NOT NULL AND f.started_at IS NOT NULL
    ORDER BY f.id DESC LIMIT 1
)
"""
_STANDING = f"""
SELECT count(*) AS ahead FROM runs AS w CROSS JOIN runs AS c INDEXED BY one_waiting
WHERE w.id = :id AND w.state = 'queued' AND c.state = 'queued' AND c.id <> w.id AND {_FREE.format("c")} AND (
    (c.due <= greatest(:now::float8, w.due) AND (c.turn, c.position) < (w.turn, w.position))
    OR (c.due < w.due AND w.due > :now)
)
"""  # noqa: S608 (ours)
_PACE = """
SELECT finished_at - started_at AS seconds FROM runs
WHERE state = 'succeeded' AND finished_at IS NOT NULL AND started_at IS NOT NULL ORDER BY id DESC LIMIT 21
"""
_BACKLOG = """
SELECT
    (SELECT count(*) FROM runs INDEXED BY one_waiting WHERE state = 'queued') AS queued,
    (SELECT count(*) FROM runs INDEXED BY one_running WHERE state = 'running') AS running,
    (SELECT min(created_at) FROM runs INDEXED BY one_waiting WHERE state = 'queued') AS oldest
"""
_LINES = """
SELECT sequence, text FROM log_lines WHERE run = :run AND sequence > :after ORDER BY sequence LIMIT :limit
"""
_BEYOND = "~"
"""It sorts behind every id."""


async def next_due(reader: Reader, full: Collection[str]) -> float | None:
    """Return when the next run is due that may start. If one is due already, that is a time in the past."""
    row = await reader.one(_NEXT_DUE, {"full": sorted(full)})
    return None if row is None else row["due"]


async def queue_position(reader: Reader, run_id: str, now: float) -> QueuePosition | None:
    """Return the position of a waiting run in the queue. None if it does not wait."""
    if (await run(reader, run_id)).state is not State.QUEUED:
        return None
    row = await reader.one(_STANDING, {"id": run_id, "now": now})
    seconds = [paced["seconds"] for paced in await reader.all(_PACE)]
    return QueuePosition(row["ahead"] if row else 0, statistics.median(seconds) if seconds else None)


async def running(reader: Reader) -> list[Run]:
    """Return every running run."""
    return [run_of(row) for row in await reader.all(_RUNNING)]


async def holds(reader: Reader, sites: Collection[str] | None = None) -> list[Hold]:
    """Return the holds of these sites, or every hold."""
    if sites is None:
        return [hold_of(row) for row in await reader.all(_HOLDS)]
    return [hold_of(row) for row in await reader.all(_HOLDS_OF_SITES, {"sites": sorted(sites)})]


async def run(reader: Reader, run_id: str) -> Run:
    """Return a run, or raise `RunNotFoundError`."""
    return _found(await reader.one(_RUN, {"id": run_id}))


async def runs(reader: Reader, which: RunFilter) -> list[Run]:
    """Return a page of the history, newest first."""
    page = {"before": which.before or _BEYOND, "limit": which.limit, "state": which.state}
    sites = _sites_of(which)
    if which.state is None and sites is None and which.environment is None:
        rows = await reader.all(_NEWEST, page)
    elif which.state in ENDED and sites is None and which.environment is None:
        rows = await reader.all(_NEWEST_IN_STATE, page)
    else:
        rows = await _filtered(reader, sites, which, page)
    return [run_of(row) for row in rows]


def _sites_of(which: RunFilter) -> list[str] | None:
    """Return the sites to look at. None for all."""
    if which.site is None:
        return None if which.sites is None else sorted(which.sites)
    return [which.site] if which.sites is None or which.site in which.sites else []


async def _filtered(
    reader: Reader, sites: list[str] | None, which: RunFilter, page: dict[str, Any]
) -> list[Row]:
    """Return a page of the active and the ended runs of some sites, or of an environment, or both."""
    where = page | {"environment": which.environment, "sites": sites}
    here = which.environment is not None
    found: list[Row] = []
    # The active ones first: a run that ends in between is seen twice. Else it would be missed.
    if which.state not in ENDED:
        found += await reader.all(_ACTIVE_IN[sites is not None, here], where)
    if which.state is None or which.state in ENDED:
        if sites is None:
            where["sites"] = [row["site"] for row in await reader.all(_SITES)]
        states = sorted(ENDED) if which.state is None else [which.state]
        found += await reader.all(_ENDED_IN_PLACES if here else _ENDED_IN_SITES, where | {"states": states})
    ids = sorted({row["id"] for row in found}, reverse=True)[: which.limit * 2]
    rows = await reader.all(_THESE, {"ids": ids}) if ids else []
    # A run may have gone on to another state in between.
    return [row for row in rows if which.state in (None, row["state"])][: which.limit]


async def serving(reader: Reader, trigger_id: str) -> Run:
    """Return the run that serves a trigger now, or raise `RunNotFoundError`."""
    return _found(await reader.one(_SERVING, {"id": trigger_id}))


async def triggers(reader: Reader, run_id: str) -> list[Trigger]:
    """Return the triggers that a run serves, oldest first."""
    return [trigger_of(row) for row in await reader.all(_TRIGGERS, {"run": run_id})]


async def last_successes(
    reader: Reader, environments: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Success]:
    """Return the last success of each of these sites and environments that has one."""
    rows = await _ends(reader, _LAST_SUCCESSES, environments)
    return {(row["site"], row["environment"]): Success(row["id"], row["finished_at"]) for row in rows}


async def last_failures(
    reader: Reader, environments: Collection[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """Return when the last run of each of these sites and environments failed, if one did."""
    rows = await _ends(reader, _LAST_FAILURES, environments)
    return {(row["site"], row["environment"]): row["finished_at"] for row in rows}


async def _ends(reader: Reader, sql: str, environments: Collection[tuple[str, str]]) -> list[Row]:
    """Return the runs that a statement finds for environments.

    It gets one text for each place. Two lists would ask for each site with the name of each environment.
    """
    return await reader.all(sql, {"places": [json.dumps(each) for each in environments]})


async def backlog(reader: Reader) -> Backlog:
    """Return how many runs wait and how many are running, and when the oldest waiting one was made."""
    row = await reader.one(_BACKLOG)
    return Backlog() if row is None else Backlog(row["queued"], row["running"], row["oldest"])


async def lines(reader: Reader, run_id: str, after: int, limit: int = 500) -> list[LogLine]:
    """Return the stored log lines of a run beyond a sequence number."""
    rows = await reader.all(_LINES, {"run": run_id, "after": after, "limit": limit})
    return [LogLine(row["sequence"], row["text"]) for row in rows]


def _found(row: Row | None) -> Run:
    if row is None:
        raise RunNotFoundError
    return run_of(row)
