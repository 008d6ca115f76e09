-- Insert the ledger rows of generated conversations, one row per conversation.
INSERT INTO asyncsvc.usage_ledger (
       tenant_id, dialog_id, source, user_id, created_at, quarter_hour, pv, tokens, duration, rounds,
       thumb_up)
SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at,
       date_bin('15 minutes', c.created_at, '0001-01-01 00:00+00'), 1, c.tokens, c.duration,
       c.round, c.thumb_up
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
