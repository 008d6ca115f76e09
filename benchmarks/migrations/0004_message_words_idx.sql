-- Index the number of words of messages.
--
-- Transaction: none. The index is built beside writers.
-- Locks: message SHARE UPDATE EXCLUSIVE. The build waits for older transactions.
DROP INDEX CONCURRENTLY IF EXISTS asyncsvc.message_words_idx;
CREATE INDEX CONCURRENTLY message_words_idx ON asyncsvc.message (tenant_id, words);
