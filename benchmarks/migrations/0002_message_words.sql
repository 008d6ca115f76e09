-- Add the number of words to messages, for the upgrade that the benchmarks measure.
--
-- Locks: message ACCESS EXCLUSIVE. The new column is NULL in each row, so no row is read or written.
ALTER TABLE asyncsvc.message ADD COLUMN words integer;
