-- Lets one migrating process at a time go on; the others wait here, as long as it takes, whatever
-- lock_timeout their connections have, which holds again for what follows. The lock belongs to the
-- transaction, so that it ends with it also when the process is killed, and is right behind a pooler,
-- where a session's lock is not. The number is this library's own: the first eight bytes of the
-- SHA-256 of "asyncsvc.migration", as a signed integer.
--
-- Timeout: none. the migrations of another process may take long.
WITH patient AS MATERIALIZED (
    SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', '0', true) AS now
), locked AS MATERIALIZED (
    SELECT p.before, pg_advisory_xact_lock(-7356843371042787055) AS locked
      FROM patient AS p
)
SELECT set_config('lock_timeout', l.before, true) AS lock_timeout
  FROM locked AS l
