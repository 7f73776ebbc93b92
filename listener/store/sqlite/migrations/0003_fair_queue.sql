-- Who goes first: what is asked for explicitly, then the older; and never what the full hosts would hold up.

ALTER TABLE runs ADD COLUMN lane TEXT NOT NULL DEFAULT '';  -- the hosts that it needs
ALTER TABLE runs ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;  -- 1 once somebody has asked for it explicitly
CREATE INDEX ended ON runs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX successors ON runs (successor) WHERE successor IS NOT NULL;
CREATE INDEX rollbacks ON runs (undoes) WHERE undoes IS NOT NULL;

DROP VIEW claimable;
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
