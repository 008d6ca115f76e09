-- Takes away what an append keeps for searches, and maintenance fills.
DROP INDEX asyncsvc.message_search_idx, asyncsvc.message_unindexed_idx
