-- Who came: from where and with which credential, whom nobody let in, and how often each credential is used.

ALTER TABLE triggers ADD COLUMN credential TEXT NOT NULL DEFAULT '';  -- kind and name, never its text
ALTER TABLE triggers ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN credential TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN client TEXT NOT NULL DEFAULT '';
CREATE INDEX bodies ON deliveries (hook, digest, id);

CREATE TABLE refusals (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    request TEXT NOT NULL,
    reason TEXT NOT NULL,
    status INTEGER NOT NULL,
    client TEXT NOT NULL,
    credential TEXT NOT NULL,
    hook TEXT NOT NULL,
    size INTEGER NOT NULL,
    digest TEXT NOT NULL,
    headers TEXT NOT NULL,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE uses (
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    last REAL NOT NULL,
    PRIMARY KEY (kind, owner, name)
) STRICT, WITHOUT ROWID;

-- Whatever came, in one order: ids sort by time.
CREATE VIEW recorded AS
SELECT
    id, CASE ignored WHEN '' THEN 'accepted' ELSE 'ignored' END AS fate, received_at AS at, hook, '' AS request,
    key, client, credential, size, digest, headers, facts, ignored AS reason, NULL AS status, 1 AS count
FROM deliveries
UNION ALL
SELECT
    id, 'refused', at, hook, request, NULL, client, credential, size, digest, headers, '{}', reason, status, count
FROM refusals;
