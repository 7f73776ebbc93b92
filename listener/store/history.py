"""What is read without writing: each function is one statement, hence sees one moment."""

import json
import sqlite3
import statistics
from collections.abc import Collection

from listener.errors import RunNotFoundError
from listener.queue import Backlog, Hold, LogLine, RunFilter, Standing
from listener.runs import Run, State, Trigger
from listener.store.rows import hold_of, run_of, trigger_of

_NEXT_DUE = "SELECT min(not_before) FROM claimable WHERE lane NOT IN (SELECT value FROM json_each(:full))"
_RUN = "SELECT * FROM current_runs WHERE id = :id"
_RUNS = """
SELECT * FROM current_runs
WHERE (:site IS NULL OR site = :site)
    AND (:environment IS NULL OR environment = :environment)
    AND (:state IS NULL OR state = :state)
    AND (:sites IS NULL OR site IN (SELECT value FROM json_each(:sites)))
    AND (:before IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
"""
_SERVING = """
SELECT r.* FROM current_runs AS r JOIN triggers AS t ON t.run = r.id WHERE t.id = :id
"""
_LAST_SUCCESS = """
SELECT * FROM current_runs
WHERE site = :site AND environment = :environment AND state = 'succeeded' AND undoes IS NULL
ORDER BY finished_at DESC, id DESC LIMIT 1
"""
_STANDING = """
SELECT count(*) AS ahead FROM claimable AS c, claimable AS w
WHERE w.id = :id AND c.id <> w.id AND (
    (c.not_before <= max(:now, w.not_before)
        AND (-c.urgent, c.created_at, c.position) < (-w.urgent, w.created_at, w.position))
    OR (c.not_before < w.not_before AND w.not_before > :now)
)
"""
_PACE = """
SELECT finished_at - started_at AS seconds FROM runs
WHERE state = 'succeeded' AND started_at IS NOT NULL ORDER BY finished_at DESC LIMIT 21
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


def next_due(connection: sqlite3.Connection, full: Collection[str]) -> float | None:
    """Return when the next run is due that nothing but its time holds back."""
    due: float | None
    (due,) = connection.execute(_NEXT_DUE, {"full": json.dumps(sorted(full))}).fetchone()
    return due


def standing(connection: sqlite3.Connection, run_id: str, now: float) -> Standing | None:
    """Return where a waiting run stands; None for one that does not wait."""
    if run(connection, run_id).state is not State.QUEUED:
        return None
    (ahead,) = connection.execute(_STANDING, {"id": run_id, "now": now}).fetchone()
    seconds = [row["seconds"] for row in connection.execute(_PACE)]
    return Standing(ahead, statistics.median(seconds) if seconds else None)


def running(connection: sqlite3.Connection) -> list[Run]:
    """Return every running run."""
    return [run_of(row) for row in connection.execute("SELECT * FROM current_runs WHERE state = 'running'")]


def holds(connection: sqlite3.Connection) -> list[Hold]:
    """Return every hold."""
    return [hold_of(row) for row in connection.execute("SELECT * FROM holds ORDER BY site, environment")]


def run(connection: sqlite3.Connection, run_id: str) -> Run:
    """Return a run, or raise `RunNotFoundError`."""
    return _one(connection.execute(_RUN, {"id": run_id}).fetchone())


def runs(connection: sqlite3.Connection, which: RunFilter) -> list[Run]:
    """Return a page of the history, newest first."""
    values = {
        "site": which.site,
        "environment": which.environment,
        "state": which.state,
        "sites": None if which.sites is None else json.dumps(sorted(which.sites)),
        "before": which.before,
        "limit": which.limit,
    }
    return [run_of(row) for row in connection.execute(_RUNS, values)]


def serving(connection: sqlite3.Connection, trigger_id: str) -> Run:
    """Return the run that serves a trigger now, or raise `RunNotFoundError`."""
    return _one(connection.execute(_SERVING, {"id": trigger_id}).fetchone())


def triggers(connection: sqlite3.Connection, run_id: str) -> list[Trigger]:
    """Return the triggers that a run serves, oldest first."""
    rows = connection.execute(
        "SELECT * FROM triggers WHERE run = :run ORDER BY at, position", {"run": run_id}
    )
    return [trigger_of(row) for row in rows]


def last_success(connection: sqlite3.Connection, site: str, environment: str) -> Run | None:
    """Return the newest run that made the environment equal to live, or None."""
    row = connection.execute(_LAST_SUCCESS, {"site": site, "environment": environment}).fetchone()
    return None if row is None else run_of(row)


def backlog(connection: sqlite3.Connection) -> Backlog:
    """Return how many runs wait and are running, and when the oldest that waits was made."""
    return Backlog(**connection.execute(_BACKLOG).fetchone())


def lines(connection: sqlite3.Connection, run_id: str, after: int, limit: int) -> list[LogLine]:
    """Return the stored log lines of a run beyond a sequence number."""
    rows = connection.execute(_LINES, {"run": run_id, "after": after, "limit": limit})
    return [LogLine(row["sequence"], row["text"]) for row in rows]


def _one(row: sqlite3.Row | None) -> Run:
    if row is None:
        raise RunNotFoundError
    return run_of(row)
