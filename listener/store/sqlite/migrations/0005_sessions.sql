-- Sign-ins to the page, by the hash of a session's id. A token that is gone or changed ends its own.

CREATE TABLE sessions (
    key TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    expires REAL NOT NULL
) STRICT;

CREATE INDEX expiries ON sessions (expires);
