-- The last look at each environment: what is answered at once. Times are Unix seconds.

CREATE TABLE looks (
    site TEXT NOT NULL,
    environment TEXT NOT NULL,
    looked_at REAL NOT NULL,  -- when the look began
    state TEXT NOT NULL,  -- equal, differs, unknown
    plan TEXT NOT NULL,  -- what a run would do; empty if the look failed
    error TEXT NOT NULL,  -- the code of the error because of which the state is unknown; empty for none
    message TEXT NOT NULL,
    busy_since REAL NOT NULL,  -- since when it has been busy without a mark of a publish; 0 if it is not
    legs TEXT NOT NULL,  -- what was found in each repository, as JSON
    PRIMARY KEY (site, environment)
) STRICT, WITHOUT ROWID;
