-- Build the commands that create and drop a database for tests.
--
-- Returns: create_command, drop_command, with the name quoted. The drop terminates the sessions of the
--   database.
-- Locks: none.
-- Index: none.
SELECT format('CREATE DATABASE %I', :name::text) AS create_command,
       format('DROP DATABASE IF EXISTS %I WITH (FORCE)', :name::text) AS drop_command
