-- Record a migration as applied, in the transaction that holds the lock.
--
-- Returns: no row.
-- Locks: the new row.
-- Index: the primary key rejects a version that is recorded already.
INSERT INTO asyncsvc.migration (version, name, checksum, applied_at)
VALUES (:version, :name, :checksum, statement_timestamp())
