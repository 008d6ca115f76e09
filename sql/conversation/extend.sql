-- Set the counters, name and metadata of a stored conversation from a later export.
--
-- With :keep_seq, the messages after this seq are deleted, because the export has another branch.
--
-- Returns: dialog_id and created_at, for the messages that the caller stores in the same transaction. No
--   row if the conversation does not exist or its last_seq differs from :expected_seq.
-- Locks: the conversation row, then the deleted messages, until the end of the transaction.
-- Index: primary keys.
-- Notes: updated_at never decreases. The keys of :metadata are merged into the stored ones.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.round, c.tokens, c.duration
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND c.last_seq = :expected_seq
       FOR NO KEY UPDATE
--? keep_seq {
), deleted AS (
    DELETE FROM asyncsvc.message AS m
     USING locked AS l
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = l.id
       AND m.seq > :keep_seq
    RETURNING m.thumb
--? }
), withdrawn AS (
    SELECT 0 AS thumb_up, 0 AS thumb_down                                         --? !keep_seq
--? keep_seq {
    SELECT count(*) FILTER (WHERE d.thumb = 1) AS thumb_up,
           count(*) FILTER (WHERE d.thumb = -1) AS thumb_down
      FROM deleted AS d
--? }
), updated AS (
    UPDATE asyncsvc.conversation AS c
       SET last_seq = :last_seq,
           round = :round,
           tokens = :tokens,
           duration = :duration,
           thumb_up = c.thumb_up + :thumb_up - w.thumb_up,
           thumb_down = c.thumb_down + :thumb_down - w.thumb_down,
           updated_at = greatest(c.updated_at, :updated_at)
         , name = :name                                                           --? name
         , metadata = coalesce(c.metadata, '{}') || :metadata::text::jsonb        --? metadata
      FROM locked AS l
     CROSS JOIN withdrawn AS w
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.updated_at, c.name,
              c.round - l.round AS rounds, c.tokens - l.tokens AS tokens,
              c.duration - l.duration AS duration, :thumb_up - w.thumb_up AS thumb_up,
              :thumb_down - w.thumb_down AS thumb_down
), recency_updated AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = u.updated_at
      FROM updated AS u
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
--? name {
), title_updated AS (
    UPDATE asyncsvc.conversation_title AS t
       SET name = u.name,
           is_indexed = false
      FROM updated AS u
     WHERE t.tenant_id = :tenant_id
       AND t.conversation_id = :id
--? }
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, at, is_imported, tokens, duration, rounds,
           thumb_up, thumb_down, unpriced, unmetered)
    SELECT u.tenant_id, u.dialog_id, u.source, u.user_id, u.created_at, u.updated_at, true, u.tokens,
           u.duration, u.rounds, u.thumb_up, u.thumb_down, CASE WHEN u.tokens > 0 THEN 1 END,
           CASE WHEN u.tokens = 0 AND u.rounds > 0 THEN u.rounds END
      FROM updated AS u
     WHERE u.tokens <> 0 OR u.duration <> 0 OR u.rounds <> 0 OR u.thumb_up <> 0 OR u.thumb_down <> 0
)
SELECT u.dialog_id, u.created_at
  FROM updated AS u
