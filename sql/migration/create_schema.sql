-- Makes the schema that holds everything, where it is not there yet. Run under the lock of
-- migration/lock, since two sessions that create it at once would both find it absent.
CREATE SCHEMA IF NOT EXISTS asyncsvc
