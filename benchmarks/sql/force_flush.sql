-- Flush the statistics of this session as soon as it is idle.
SELECT pg_stat_force_next_flush()
