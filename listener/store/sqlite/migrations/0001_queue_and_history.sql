-- Times are Unix seconds; headers, facts and outcomes are JSON.

CREATE TABLE runs (
    position INTEGER PRIMARY KEY,  -- the order of arrival, where times are equal
    id TEXT NOT NULL UNIQUE,
    site TEXT NOT NULL,
    environment TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'superseded', 'cancelled')),
    created_at REAL NOT NULL,
    not_before REAL NOT NULL,  -- the run's own; the backoff of its environment comes on top
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    looks INTEGER NOT NULL DEFAULT 0,
    lines INTEGER NOT NULL DEFAULT 0,
    started_at REAL,
    finished_at REAL,
    successor TEXT REFERENCES runs (id),
    outcome TEXT,
    CHECK ((finished_at IS NULL) = (state IN ('queued', 'running'))),
    CHECK ((successor IS NOT NULL) = (state = 'superseded'))
) STRICT;

-- Coalescing and mutual exclusion are these two indexes, whatever the code does.
CREATE UNIQUE INDEX one_waiting ON runs (site, environment) WHERE state = 'queued';
CREATE UNIQUE INDEX one_running ON runs (site, environment) WHERE state = 'running';
CREATE INDEX successes ON runs (site, environment, finished_at) WHERE state = 'succeeded';

CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    hook TEXT NOT NULL,
    key TEXT,
    received_at REAL NOT NULL,
    size INTEGER NOT NULL,
    digest TEXT NOT NULL,
    headers TEXT NOT NULL,
    facts TEXT NOT NULL,
    ignored TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_delivery ON deliveries (hook, key) WHERE key IS NOT NULL;

CREATE TABLE triggers (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    run TEXT NOT NULL REFERENCES runs (id),  -- the one that serves it now
    delivery TEXT REFERENCES deliveries (id),
    site TEXT NOT NULL,
    environment TEXT NOT NULL,
    origin TEXT NOT NULL,
    actor TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;

CREATE INDEX triggers_of_run ON triggers (run);
CREATE INDEX triggers_of_delivery ON triggers (delivery) WHERE delivery IS NOT NULL;

CREATE TABLE log_lines (
    run TEXT NOT NULL REFERENCES runs (id),
    sequence INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE holds (
    site TEXT NOT NULL,
    environment TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (site, environment)
) STRICT, WITHOUT ROWID;

-- A backoff belongs to the environment: a successor may not jump its failing predecessor's.
CREATE TABLE backoffs (
    site TEXT NOT NULL,
    environment TEXT NOT NULL,
    failures INTEGER NOT NULL,  -- in a row, since the last success
    not_before REAL NOT NULL,
    cleared_at REAL,
    PRIMARY KEY (site, environment)
) STRICT, WITHOUT ROWID;

-- Runs as the outside sees them: a waiting one is due when its own time and the backoff have passed.
CREATE VIEW current_runs AS
SELECT
    r.id, r.site, r.environment, r.state, r.created_at,
    CASE r.state
        WHEN 'queued' THEN max(r.not_before, coalesce(b.not_before, r.not_before))
        ELSE r.not_before
    END AS not_before,
    r.attempt, r.failures, coalesce(b.failures, 0) AS streak, r.looks, r.lines,
    r.started_at, r.finished_at, r.successor, r.outcome
FROM runs AS r
LEFT JOIN backoffs AS b ON b.site = r.site AND b.environment = r.environment;

-- What only its time holds back.
CREATE VIEW claimable AS
SELECT w.id, w.not_before, q.created_at, q.position
FROM current_runs AS w
JOIN runs AS q ON q.id = w.id
WHERE
    w.state = 'queued'
    AND NOT EXISTS (
        SELECT 1 FROM runs AS r
        WHERE r.state = 'running' AND r.site = w.site AND r.environment = w.environment
    )
    AND NOT EXISTS (
        SELECT 1 FROM holds AS h WHERE h.site = w.site AND h.environment = w.environment
    );
