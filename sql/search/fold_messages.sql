-- Puts messages of a tenant into the search index: those behind the one that is named by its
-- conversation's creation and id and its seq, :limit at most. It returns how many it looked at, the
-- place of the last, and how many it put in; the caller goes on behind the last until none is left.
--
-- A batch ends sooner where its messages have more than :most_bytes bytes, though it always has the
-- first.
--
-- Idempotent: what a first run put in, a second one passes over.
--
-- Locks: the rows that it puts in. It waits for none: who holds one is about to change or delete it,
-- and the next time finds what is left. An append needs no lock of a message.
-- Index: message_unindexed_idx, from the last one on, then the primary key, once a message: LIMIT 1,
-- and the tenant that comes with the locked row, make sure of it, whatever the server's statistics
-- say.
WITH next AS MATERIALIZED (
    SELECT n.at, n.id, n.seq, sum(n.bytes) OVER (ORDER BY n.at, n.id, n.seq) - n.bytes AS bytes_before
      FROM (
        SELECT m.conversation_created_at AS at, m.conversation_id AS id, m.seq, octet_length(m.content) AS bytes
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND NOT m.is_indexed
           AND (m.conversation_created_at, m.conversation_id, m.seq) > (:after_at, :after_id, :after_seq) --? after_at, after_id, after_seq
         ORDER BY m.conversation_created_at, m.conversation_id, m.seq
         LIMIT :limit
      ) AS n
), batch AS MATERIALIZED (
    SELECT n.at, n.id, n.seq
      FROM next AS n
     WHERE n.bytes_before < :most_bytes
), locked AS MATERIALIZED (
    SELECT m.tenant_id, m.conversation_id, m.seq
      FROM batch AS b
     CROSS JOIN LATERAL (
            SELECT m.tenant_id, m.conversation_id, m.seq
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND m.conversation_id = b.id
               AND m.seq = b.seq
               AND NOT m.is_indexed
             LIMIT 1
               FOR NO KEY UPDATE SKIP LOCKED
           ) AS m
), folded AS (
    UPDATE asyncsvc.message AS m
       SET is_indexed = true
      FROM locked AS l
     WHERE m.tenant_id = l.tenant_id
       AND m.conversation_id = l.conversation_id
       AND m.seq = l.seq
    RETURNING m.seq
)
SELECT (SELECT count(*) FROM batch) AS found, (SELECT count(*) FROM folded) AS folded,
       l.at, l.id, l.seq
  FROM (VALUES (true)) AS one
  LEFT JOIN (
        SELECT b.at, b.id, b.seq FROM batch AS b ORDER BY b.at DESC, b.id DESC, b.seq DESC LIMIT 1
       ) AS l ON true
