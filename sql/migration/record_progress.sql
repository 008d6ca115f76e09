-- Record the progress of a backfill, in the transaction of its batch.
--
-- Returns: no row.
-- Locks: the row, until the end of the transaction, which holds the lock of migration/try_lock.
-- Index: the primary key.
INSERT INTO asyncsvc.migration (version, name, checksum, position, rows)
VALUES (:version, :name, :checksum, :position, :rows)
    ON CONFLICT (version) DO UPDATE
   SET checksum = excluded.checksum,
       position = excluded.position,
       rows = excluded.rows
