-- The process ids of the other client sessions of this database.
SELECT a.pid
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.backend_type = 'client backend'
   AND a.pid <> pg_backend_pid()
