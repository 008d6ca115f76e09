-- Drop the search indexes of messages.
DROP INDEX asyncsvc.message_search_idx, asyncsvc.message_unindexed_idx
