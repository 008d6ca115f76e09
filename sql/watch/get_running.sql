-- Return the clock of the server and the transactions that run in this database, except this one.
--
-- Returns: read_at; transactions, a JSON object from the key of each transaction to a time before its first
--   statement. 'prepared' begins the keys of prepared transactions.
-- Locks: none.
-- Index: none. It reads the lock table of the server.
-- Notes: each transaction locks its virtual id before its first statement, and all roles see these locks.
--   The sessions of other roles hide the start of their transactions, which is then taken to be
--   :hidden_age ago. So is that of a prepared transaction, before its preparation.
WITH transactions AS (
    SELECT concat_ws(' ', l.pid, l.virtualtransaction) AS key,
           coalesce(a.xact_start,
                    CASE WHEN a.state = 'idle' THEN statement_timestamp()
                         ELSE statement_timestamp() - :hidden_age::interval END) AS started_at
      FROM pg_catalog.pg_locks AS l
      JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
      JOIN pg_catalog.pg_database AS d ON d.oid = a.datid
     WHERE l.locktype = 'virtualxid'
       AND l.mode = 'ExclusiveLock'
       AND l.pid <> pg_backend_pid()
       AND a.usesysid IS NOT NULL
       AND coalesce(a.backend_type, 'client backend') = 'client backend'
       AND d.datname = current_database()
     UNION ALL
    SELECT concat_ws(' ', 'prepared', p.transaction::text),
           p.prepared - :hidden_age::interval
      FROM pg_catalog.pg_prepared_xacts AS p
     WHERE p.database = current_database()
)
SELECT statement_timestamp() AS read_at,
       coalesce((SELECT jsonb_object_agg(t.key, t.started_at) FROM transactions AS t), '{}')::text
           AS transactions
