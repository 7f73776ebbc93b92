-- Times are Unix seconds by the callers' clocks, but for leases, which run on the server's; headers, facts and
-- outcomes are JSON. Ids and names are compared byte by byte, whatever the database's language.

CREATE TABLE runs (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- the order of arrival, where times are equal
    id text COLLATE "C" NOT NULL UNIQUE,
    site text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    state text NOT NULL
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'superseded', 'cancelled')),
    created_at double precision NOT NULL,
    not_before double precision NOT NULL,  -- the run's own; the backoff of its environment comes on top
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    looks integer NOT NULL DEFAULT 0,
    lines integer NOT NULL DEFAULT 0,
    started_at double precision,
    finished_at double precision,
    successor text COLLATE "C" REFERENCES runs (id),
    undoes text COLLATE "C" REFERENCES runs (id),
    lane text NOT NULL DEFAULT '',  -- the hosts that it needs
    urgent boolean NOT NULL DEFAULT false,  -- true once somebody has asked for it explicitly
    node text,  -- the listener that carries it out
    lease_until timestamptz,  -- when others may take it over
    outcome text,
    CHECK ((finished_at IS NULL) = (state IN ('queued', 'running'))),
    CHECK ((successor IS NOT NULL) = (state = 'superseded')),
    CHECK ((node IS NOT NULL) = (state = 'running')),
    CHECK ((lease_until IS NOT NULL) = (state = 'running'))
);

-- Coalescing and mutual exclusion are these indexes, whatever the code does. A sync never joins a rollback that
-- waits, nor the other way round.
CREATE UNIQUE INDEX one_waiting ON runs (site, environment) WHERE state = 'queued' AND undoes IS NULL;
CREATE UNIQUE INDEX one_running ON runs (site, environment) WHERE state = 'running';
CREATE UNIQUE INDEX one_rollback ON runs (site, environment)
WHERE state IN ('queued', 'running') AND undoes IS NOT NULL;
CREATE INDEX successes ON runs (site, environment, finished_at) WHERE state = 'succeeded' AND undoes IS NULL;
CREATE INDEX ended ON runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX successors ON runs (successor) WHERE successor IS NOT NULL;
CREATE INDEX rollbacks ON runs (undoes) WHERE undoes IS NOT NULL;

CREATE TABLE deliveries (
    id text COLLATE "C" PRIMARY KEY,
    hook text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    received_at double precision NOT NULL,
    size bigint NOT NULL,
    digest text NOT NULL,
    headers text NOT NULL,
    facts text NOT NULL,
    ignored text NOT NULL
);

CREATE UNIQUE INDEX one_delivery ON deliveries (hook, key) WHERE key IS NOT NULL;
CREATE INDEX arrivals ON deliveries (received_at);

CREATE TABLE triggers (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    run text COLLATE "C" NOT NULL REFERENCES runs (id),  -- the one that serves it now
    delivery text COLLATE "C" REFERENCES deliveries (id),
    site text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    origin text NOT NULL,
    actor text NOT NULL,
    at double precision NOT NULL
);

CREATE INDEX triggers_of_run ON triggers (run);
CREATE INDEX triggers_of_delivery ON triggers (delivery) WHERE delivery IS NOT NULL;

CREATE TABLE log_lines (
    run text COLLATE "C" NOT NULL REFERENCES runs (id),
    sequence integer NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (run, sequence)
);

CREATE TABLE holds (
    site text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    since double precision NOT NULL,
    live text,  -- a rollback's hold ends when live moves away from this commit
    run text COLLATE "C" REFERENCES runs (id),  -- the rollback that it came with
    PRIMARY KEY (site, environment)
);

-- A backoff belongs to the environment: a successor may not jump its failing predecessor's.
CREATE TABLE backoffs (
    site text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    failures integer NOT NULL,  -- in a row, since the last success
    not_before double precision NOT NULL,
    cleared_at double precision,
    PRIMARY KEY (site, environment)
);

-- Runs as the outside sees them: a waiting one is due when its own time and the backoff have passed.
CREATE VIEW current_runs AS
SELECT
    r.id, r.site, r.environment, r.state, r.created_at,
    CASE r.state
        WHEN 'queued' THEN greatest(r.not_before, b.not_before)
        ELSE r.not_before
    END AS not_before,
    r.attempt, r.failures, coalesce(b.failures, 0) AS streak, r.looks, r.lines,
    r.started_at, r.finished_at, r.successor, r.undoes, coalesce(h.live, '') AS held_live, r.outcome
FROM runs AS r
LEFT JOIN backoffs AS b ON b.site = r.site AND b.environment = r.environment
LEFT JOIN holds AS h ON h.site = r.site AND h.environment = r.environment;

-- What only its time holds back: a rollback's own hold holds up neither the rollback nor a look at live.
CREATE VIEW claimable AS
SELECT w.id, w.not_before, q.created_at, q.position, q.lane, q.urgent
FROM current_runs AS w
JOIN runs AS q ON q.id = w.id
WHERE
    w.state = 'queued'
    AND NOT EXISTS (
        SELECT 1 FROM runs AS r
        WHERE r.state = 'running' AND r.site = w.site AND r.environment = w.environment
    )
    AND NOT EXISTS (
        SELECT 1 FROM holds AS h
        WHERE h.site = w.site AND h.environment = w.environment AND h.live IS NULL
    );
