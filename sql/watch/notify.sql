-- Notify the sessions that watch tenants of committed appends.
--
-- Returns: synchronous_commit and notified, one row for each of :payloads.
-- Locks: the lock of all notifications of the server, during the commit.
-- Index: none.
-- Notes: a notification that is lost in a crash delays a message and loses none, so the commit does not
--   wait for the disk while it has the lock.
SELECT set_config('synchronous_commit', 'off', true) AS synchronous_commit,
       pg_notify('asyncsvc_new_messages', p.payload)::text AS notified
  FROM unnest(:payloads::text[]) AS p (payload)
