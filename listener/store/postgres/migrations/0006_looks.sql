-- The last look at each environment: what is answered at once. Times are Unix seconds.

CREATE TABLE looks (
    site text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    looked_at double precision NOT NULL,  -- when the look began
    state text NOT NULL,  -- equal, differs, unknown
    plan text NOT NULL,  -- what a run would do; empty if the look failed
    error text NOT NULL,  -- the code of the error because of which the state is unknown; empty for none
    message text NOT NULL,
    busy_since double precision NOT NULL,  -- since when it has been busy without a mark of a publish; 0 if it is not
    legs text NOT NULL,  -- what was found in each repository, as JSON
    PRIMARY KEY (site, environment)
);
