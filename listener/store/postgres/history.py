"""What is read without writing."""

import statistics
from collections.abc import Collection

from listener.errors import RunNotFoundError
from listener.queue import Backlog, Hold, LogLine, RunFilter, Standing
from listener.runs import Run, State, Trigger
from listener.store.postgres.server import Questions
from listener.store.rows import Row, hold_of, run_of, trigger_of

_NEXT_DUE = "SELECT min(not_before) AS due FROM claimable WHERE lane <> ALL (:full::text[])"
_RUN = "SELECT * FROM current_runs WHERE id = :id"
_RUNS = """
SELECT * FROM current_runs
WHERE (:site::text IS NULL OR site = :site)
    AND (:environment::text IS NULL OR environment = :environment)
    AND (:state::text IS NULL OR state = :state)
    AND (:sites::text[] IS NULL OR site = ANY (:sites))
    AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
"""
_SERVING = """
SELECT r.* FROM current_runs AS r JOIN triggers AS t ON t.run = r.id WHERE t.id = :id
"""
_TRIGGERS = "SELECT * FROM triggers WHERE run = :run ORDER BY at, position"
_HOLDS = "SELECT * FROM holds ORDER BY site, environment"
_LAST_SUCCESS = """
SELECT * FROM current_runs
WHERE site = :site AND environment = :environment AND state = 'succeeded' AND undoes IS NULL
ORDER BY finished_at DESC, id DESC LIMIT 1
"""
_STANDING = """
SELECT count(*) AS ahead FROM claimable AS c, claimable AS w
WHERE w.id = :id AND c.id <> w.id AND (
    (c.not_before <= greatest(:now::float8, w.not_before)
        AND (NOT c.urgent, c.created_at, c.position) < (NOT w.urgent, w.created_at, w.position))
    OR (c.not_before < w.not_before AND w.not_before > :now)
)
"""
_PACE = """
SELECT finished_at - started_at AS seconds FROM runs
WHERE state = 'succeeded' AND started_at IS NOT NULL AND finished_at IS NOT NULL
ORDER BY finished_at DESC LIMIT 21
"""
_BACKLOG = """
SELECT
    (SELECT count(*) FROM runs WHERE state = 'queued') AS queued,
    (SELECT count(*) FROM runs WHERE state = 'running') AS running,
    (SELECT min(created_at) FROM runs WHERE state = 'queued') AS oldest
"""
_LINES = """
SELECT sequence, text FROM log_lines WHERE run = :run AND sequence > :after ORDER BY sequence LIMIT :limit
"""


async def next_due(questions: Questions, full: Collection[str]) -> float | None:
    """Return when the next run is due that nothing but its time holds back."""
    (row,) = await questions.all(_NEXT_DUE, {"full": sorted(full)})
    due: float | None = row["due"]
    return due


async def standing(questions: Questions, run_id: str, now: float) -> Standing | None:
    """Return where a waiting run stands; None for one that does not wait."""
    if (await run(questions, run_id)).state is not State.QUEUED:
        return None
    (row,) = await questions.all(_STANDING, {"id": run_id, "now": now})
    seconds = [paced["seconds"] for paced in await questions.all(_PACE, {})]
    return Standing(row["ahead"], statistics.median(seconds) if seconds else None)


async def holds(questions: Questions) -> list[Hold]:
    """Return every hold."""
    return [hold_of(row) for row in await questions.all(_HOLDS, {})]


async def run(questions: Questions, run_id: str) -> Run:
    """Return a run, or raise `RunNotFoundError`."""
    return _found(await questions.one(_RUN, {"id": run_id}))


async def runs(questions: Questions, which: RunFilter) -> list[Run]:
    """Return a page of the history, newest first."""
    values = {
        "site": which.site,
        "environment": which.environment,
        "state": which.state,
        "sites": None if which.sites is None else sorted(which.sites),
        "before": which.before,
        "limit": which.limit,
    }
    return [run_of(row) for row in await questions.all(_RUNS, values)]


async def serving(questions: Questions, trigger_id: str) -> Run:
    """Return the run that serves a trigger now, or raise `RunNotFoundError`."""
    return _found(await questions.one(_SERVING, {"id": trigger_id}))


async def triggers(questions: Questions, run_id: str) -> list[Trigger]:
    """Return the triggers that a run serves, oldest first."""
    return [trigger_of(row) for row in await questions.all(_TRIGGERS, {"run": run_id})]


async def last_success(questions: Questions, site: str, environment: str) -> Run | None:
    """Return the newest run that made the environment equal to live, or None."""
    row = await questions.one(_LAST_SUCCESS, {"site": site, "environment": environment})
    return None if row is None else run_of(row)


async def backlog(questions: Questions) -> Backlog:
    """Return how many runs wait and are running, and when the oldest that waits was made."""
    (row,) = await questions.all(_BACKLOG, {})
    return Backlog(row["queued"], row["running"], row["oldest"])


async def lines(questions: Questions, run_id: str, after: int, limit: int) -> list[LogLine]:
    """Return the stored log lines of a run beyond a sequence number."""
    rows = await questions.all(_LINES, {"run": run_id, "after": after, "limit": limit})
    return [LogLine(row["sequence"], row["text"]) for row in rows]


def _found(row: Row | None) -> Run:
    if row is None:
        raise RunNotFoundError
    return run_of(row)
