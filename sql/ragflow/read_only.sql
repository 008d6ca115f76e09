-- Has MySQL refuse whatever would write, for as long as the session lasts: a source is only read.
-- On PostgreSQL each transaction says so by itself.
--
-- It runs on the source. Locks: none. Index: none.
SET SESSION TRANSACTION READ ONLY
