-- Has this session tell its counts when it is idle next, and not a second later.
SELECT pg_stat_force_next_flush()
