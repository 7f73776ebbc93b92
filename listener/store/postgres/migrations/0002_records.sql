-- Who came: from where and with which credential, whom nobody let in, and how often each credential is used.

ALTER TABLE triggers ADD COLUMN credential text NOT NULL DEFAULT '';  -- kind and name, never its text
ALTER TABLE triggers ADD COLUMN client text NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN credential text NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN client text NOT NULL DEFAULT '';
CREATE INDEX bodies ON deliveries (hook, digest, id);

CREATE TABLE refusals (
    id text COLLATE "C" PRIMARY KEY,
    at double precision NOT NULL,
    request text NOT NULL,
    reason text NOT NULL,
    status integer NOT NULL,
    client text NOT NULL,
    credential text NOT NULL,
    hook text COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    digest text NOT NULL,
    headers text NOT NULL,
    count bigint NOT NULL
);

CREATE TABLE uses (
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    last double precision NOT NULL,
    PRIMARY KEY (kind, owner, name)
);

-- Whatever came, in one form: two views, so that a page of either is read off its primary key.
CREATE VIEW taken AS
SELECT
    id, CASE ignored WHEN '' THEN 'accepted' ELSE 'ignored' END AS fate, received_at AS at, hook, '' AS request,
    key, client, credential, size, digest, headers, facts, ignored AS reason,
    NULL::integer AS status, 1::bigint AS count
FROM deliveries;

CREATE VIEW refused AS
SELECT
    id, 'refused' AS fate, at, hook, request, NULL::text AS key, client, credential, size, digest, headers,
    '{}' AS facts, reason, status, count
FROM refusals;
