-- A run may take back an earlier one, and its outcome is told leg by leg.

ALTER TABLE runs ADD COLUMN undoes TEXT REFERENCES runs (id);
ALTER TABLE holds ADD COLUMN live TEXT;  -- a rollback's hold ends when live moves away from this commit
ALTER TABLE holds ADD COLUMN run TEXT REFERENCES runs (id);  -- the rollback that it came with

UPDATE runs SET outcome = json_object(
    'legs', CASE
        WHEN json_extract(outcome, '$.plan') = '' THEN json_array()
        ELSE json_array(json_object(
            'repository', '', 'branch', '', 'plan', json_extract(outcome, '$.plan'),
            'done', json(CASE state WHEN 'succeeded' THEN 'true' ELSE 'false' END),
            'moved', json(CASE json_extract(outcome, '$.moved') WHEN 1 THEN 'true' ELSE 'false' END),
            'live', json_extract(outcome, '$.live'), 'old', json_extract(outcome, '$.old'),
            'new', json_extract(outcome, '$.new'), 'backup', json_extract(outcome, '$.backup'),
            'removed_count', json_extract(outcome, '$.removed_count'),
            'removed', json_extract(outcome, '$.removed'), 'error', '', 'message', '', 'remedy', ''
        ))
    END,
    'warnings', json_extract(outcome, '$.warnings'), 'error', json_extract(outcome, '$.error'),
    'message', json_extract(outcome, '$.message'), 'remedy', json_extract(outcome, '$.remedy'),
    'durations', json_extract(outcome, '$.durations')
) WHERE outcome IS NOT NULL;

-- A sync never joins a rollback that waits, nor the other way round.
DROP INDEX one_waiting;
CREATE UNIQUE INDEX one_waiting ON runs (site, environment) WHERE state = 'queued' AND undoes IS NULL;
CREATE UNIQUE INDEX one_rollback ON runs (site, environment)
WHERE state IN ('queued', 'running') AND undoes IS NOT NULL;
DROP INDEX successes;
CREATE INDEX successes ON runs (site, environment, finished_at) WHERE state = 'succeeded' AND undoes IS NULL;

DROP VIEW claimable;
DROP VIEW current_runs;

-- Runs as the outside sees them: a waiting one is due when its own time and the backoff have passed.
CREATE VIEW current_runs AS
SELECT
    r.id, r.site, r.environment, r.state, r.created_at,
    CASE r.state
        WHEN 'queued' THEN max(r.not_before, coalesce(b.not_before, r.not_before))
        ELSE r.not_before
    END AS not_before,
    r.attempt, r.failures, coalesce(b.failures, 0) AS streak, r.looks, r.lines,
    r.started_at, r.finished_at, r.successor, r.undoes, coalesce(h.live, '') AS held_live, r.outcome
FROM runs AS r
LEFT JOIN backoffs AS b ON b.site = r.site AND b.environment = r.environment
LEFT JOIN holds AS h ON h.site = r.site AND h.environment = r.environment;

-- What only its time holds back: a rollback's own hold holds up neither the rollback nor a look at live.
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
        SELECT 1 FROM holds AS h
        WHERE h.site = w.site AND h.environment = w.environment AND h.live IS NULL
    );
