-- Create the table of migrations if it does not exist.
--
-- Returns: no row.
-- Locks: the caller holds the lock of migration/try_lock.
-- Index: none.
-- Notes: applied_at is NULL in the row of a backfill that is not finished. position is its place, and
--   rows the number of rows that it has changed.
CREATE TABLE IF NOT EXISTS asyncsvc.migration (
    version    integer NOT NULL PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz,
    position   text,
    rows       bigint
)
