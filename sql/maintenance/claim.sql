-- Claim the maintenance in the background for :lease, or renew the claim of this :worker.
--
-- Returns: worker; no row if another worker has a claim that has not expired.
-- Locks: the only row. A concurrent claim waits for it, and then finds the new claim.
-- Index: the primary key.
-- Notes: the claim is not a lock, so it needs neither a session nor an open transaction, and a killed
--   worker's claim expires. Two workers at once would only repeat each other's reads: each batch locks
--   its rows. A claim of more than 1 day is older than a change of the server's clock.
INSERT INTO asyncsvc.maintenance AS m (worker, claimed_at, claimed_until)
VALUES (:worker, statement_timestamp(), statement_timestamp() + :lease::interval)
ON CONFLICT (only_row) DO UPDATE
   SET worker = excluded.worker,
       claimed_at = excluded.claimed_at,
       claimed_until = excluded.claimed_until
 WHERE m.worker = excluded.worker
    OR m.claimed_until <= excluded.claimed_at
    OR m.claimed_until > excluded.claimed_at + interval '1 day'
RETURNING m.worker
