-- What is done next, and what somebody looks for, is read off an index: it costs the same however much has ended.

ALTER TABLE runs ADD COLUMN due REAL NOT NULL DEFAULT 0;  -- when its own time and its environment's backoff pass
ALTER TABLE runs ADD COLUMN turn REAL NOT NULL DEFAULT 0;  -- of those that are ready, the lowest is next
ALTER TABLE runs ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;  -- 1 once a claim has found it due
ALTER TABLE backoffs ADD COLUMN since REAL NOT NULL DEFAULT 0;  -- when it was set

DROP VIEW claimable;
DROP VIEW current_runs;

UPDATE runs SET
    turn = CASE urgent WHEN 1 THEN created_at - 10 ELSE created_at END,
    due = max(not_before, coalesce((
        SELECT b.not_before FROM backoffs AS b
        WHERE b.site = runs.site AND b.environment = runs.environment
    ), 0))
WHERE state = 'queued';

CREATE INDEX turns ON runs (turn, position) WHERE state = 'queued' AND ready;
CREATE INDEX lane_turns ON runs (lane, turn, position) WHERE state = 'queued' AND ready;
CREATE INDEX dues ON runs (due) WHERE state = 'queued' AND NOT ready;
-- With rollbacks, so that all that waits in a place is read off it; one of each kind waits there at most.
DROP INDEX one_waiting;
CREATE UNIQUE INDEX one_waiting ON runs (site, environment, (undoes IS NULL)) WHERE state = 'queued';
CREATE INDEX states ON runs (state, id) WHERE finished_at IS NOT NULL;
CREATE INDEX places ON runs (site, environment, state, id) WHERE finished_at IS NOT NULL;
DROP INDEX successes;
CREATE INDEX successes ON runs (site, environment, finished_at, id) WHERE state = 'succeeded' AND undoes IS NULL;

CREATE INDEX accepted ON deliveries (id) WHERE ignored = '';
CREATE INDEX ignored ON deliveries (id) WHERE ignored <> '';
CREATE INDEX accepted_by ON deliveries (hook, id) WHERE ignored = '';
CREATE INDEX ignored_by ON deliveries (hook, id) WHERE ignored <> '';
CREATE INDEX refused_by ON refusals (hook, id);
CREATE INDEX sessions_of ON sessions (token, expires);

-- A store that was copied elsewhere says so: nobody carries its queue out a second time.
CREATE TABLE moved (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    target TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
