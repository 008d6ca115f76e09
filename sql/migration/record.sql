-- Record a migration as applied, in the transaction that holds the lock.
--
-- Returns: no row.
-- Locks: the row.
-- Index: the primary key. The row exists already if the migration is a backfill.
INSERT INTO asyncsvc.migration (version, name, checksum, applied_at)
VALUES (:version, :name, :checksum, statement_timestamp())
    ON CONFLICT (version) DO UPDATE
   SET applied_at = excluded.applied_at
