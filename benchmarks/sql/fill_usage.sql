-- Books generated conversations in the library's ledger, as their creation and their turns did.
INSERT INTO asyncsvc.usage_ledger (
       tenant_id, quarter, dialog_id, source, pv, tokens, duration, rounds, thumb_up)
SELECT $1, date_bin('15 minutes', c.created_at, '0001-01-01 00:00+00'), c.dialog_id, c.source,
       count(*), sum(c.tokens), sum(c.duration), sum(c.round), sum(c.thumb_up)
  FROM bench.conversation($1, $2, $3, $4) AS c
 GROUP BY 2, 3, 4
