-- A repeated body is a number at its first row, and only its id a row of its own; old rows are let go by parts.

ALTER TABLE deliveries ADD COLUMN count bigint NOT NULL DEFAULT 1;  -- how often it came while its runs waited
ALTER TABLE deliveries ADD COLUMN last_at double precision;  -- when the last of them came; NULL where it came once

-- Ids under which a delivery came again: what is sent again under one of them is answered as that was.
CREATE TABLE repeats (
    hook text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    delivery text COLLATE "C" NOT NULL,
    at double precision NOT NULL,
    PRIMARY KEY (hook, key)
);
CREATE INDEX repeats_by_time ON repeats (at);

-- Those of a hook that still have what they said (facts), and those that have only an id and an outcome.
CREATE INDEX whole ON deliveries (hook, id) WHERE facts <> '';
CREATE INDEX bare ON deliveries (id) WHERE facts = '';

DROP VIEW taken;
CREATE VIEW taken AS
SELECT
    id, CASE ignored WHEN '' THEN 'accepted' ELSE 'ignored' END AS fate, received_at AS at, hook, '' AS request,
    key, client, credential, size, digest, headers, facts, ignored AS reason,
    NULL::integer AS status, count, last_at
FROM deliveries;

DROP VIEW refused;
CREATE VIEW refused AS
SELECT
    id, 'refused' AS fate, at, hook, request, NULL::text AS key, client, credential, size, digest, headers,
    '{}' AS facts, reason, status, count, NULL::double precision AS last_at
FROM refusals;
