-- Record that a run has processed all rows that were committed before its begin, :seconds ago.
--
-- Returns: processed_until.
-- Locks: the only row.
-- Index: the primary key.
-- Notes: a run skips rows that another session has locked to process them. A run in the background has
--   claimed the row; any other run inserts it with a claim that has expired.
INSERT INTO asyncsvc.maintenance AS m (worker, claimed_at, claimed_until, processed_until)
VALUES ('', statement_timestamp(), statement_timestamp(),
        statement_timestamp() - make_interval(secs => :seconds))
ON CONFLICT (only_row) DO UPDATE
   SET processed_until = excluded.processed_until
RETURNING m.processed_until
