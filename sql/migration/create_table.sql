-- Create the table of applied migrations if it does not exist.
--
-- Returns: no row.
-- Locks: the caller holds the lock of migration/try_lock.
-- Index: none.
CREATE TABLE IF NOT EXISTS asyncsvc.migration (
    version    integer NOT NULL PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL
)
