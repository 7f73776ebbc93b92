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

-- Whatever came, in one form: two views, so that a page of either is read off its primary key.
CREATE VIEW taken AS
SELECT
    id, CASE ignored WHEN '' THEN 'accepted' ELSE 'ignored' END AS fate, received_at AS at, hook, '' AS request,
    key, client, credential, size, digest, headers, facts, ignored AS reason,
    NULL AS status, 1 AS count
FROM deliveries;

CREATE VIEW refused AS
SELECT
    id, 'refused' AS fate, at, hook, request, NULL AS key, client, credential, size, digest, headers,
    '{}' AS facts, reason, status, count
FROM refusals;
