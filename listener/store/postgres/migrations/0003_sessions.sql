-- Sign-ins to the page, by the hash of a session's id. A token that is gone or changed ends its own.

CREATE TABLE sessions (
    key text COLLATE "C" PRIMARY KEY,
    token text COLLATE "C" NOT NULL,
    sha256 text COLLATE "C" NOT NULL,
    expires double precision NOT NULL
);

CREATE INDEX expiries ON sessions (expires);
