-- Take the lock of all migrating processes, or return immediately if another process holds it.
--
-- Returns: is_locked. The transaction may then stay idle while commands run on another connection.
-- Locks: an advisory lock of the transaction. It ends with the transaction, also if the process is
--   killed, and works through a transaction pooler, which a lock of the session does not.
-- Index: none.
-- Notes: the number is the first 8 bytes of the SHA-256 of "asyncsvc.migration", as a signed integer.
SELECT pg_try_advisory_xact_lock(-7356843371042787055) AS is_locked,
       set_config('idle_in_transaction_session_timeout', '0', true) AS idle_timeout
