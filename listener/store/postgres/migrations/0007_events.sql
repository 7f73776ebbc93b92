-- Everything that happens, in one order: the commit, then the place within it. Rows are only added at the end.
CREATE TABLE events (
    batch bigint NOT NULL,  -- the number of the commit: its transaction id
    number integer NOT NULL,
    at double precision NOT NULL,
    kind TEXT NOT NULL,
    site TEXT NOT NULL,
    environment TEXT NOT NULL,
    reference TEXT NOT NULL,  -- of a run, whose log has the lines from first to last; or of a delivery
    first integer NOT NULL,
    last integer NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (batch, number)
);

-- How many lines of its log a run had before the last write of its owner: an event has only the new ones.
ALTER TABLE runs ADD COLUMN lines_before INTEGER NOT NULL DEFAULT 0;
