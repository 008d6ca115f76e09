-- Add $2 changes of usage, spread over the year that ended yesterday, to the ledger of a tenant: 1 creation
-- each, by $3 persons, with 12 models, 50 tokens, 20 dialogs and 3 sources.
INSERT INTO asyncsvc.usage_ledger (
       tenant_id, dialog_id, source, user_id, created_at, at, token_id, model, conversations, rounds,
       requests, input_tokens, cached_input_tokens, output_tokens, tokens, cost)
SELECT $1, 'd' || h % 20, (ARRAY['api', 'agent', 'web'])[1 + h % 3], 'u' || h % $3::integer, t.at, t.at,
       'k' || h % 50, 'm' || h % 12, 1, 1, 1, 1200, 1024, 80, 1280, 1000 * (1 + h % 999)
  FROM generate_series(1, $2::integer) AS n
 CROSS JOIN LATERAL (SELECT abs(hashint4(n)::bigint) AS h) AS r
 CROSS JOIN LATERAL (
        SELECT date_trunc('day', now(), 'UTC') - n * (interval '365 days' / $2::integer)) AS t (at)
