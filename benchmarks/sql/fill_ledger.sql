-- Add $2 rows of usage of the present month to the ledger of a tenant, a third of them of the token $3.
INSERT INTO asyncsvc.usage_ledger (
       tenant_id, dialog_id, user_id, created_at, at, token_id, rounds, requests, input_tokens,
       cached_input_tokens, output_tokens, tokens, cost, model)
SELECT $1, 'd' || n % 20, 'u' || n % 1000, now(), now(), CASE n % 3 WHEN 0 THEN $3 ELSE 'k' || n % 50 END,
       1, 1, 1200, 1024, 80, 1280, 975000, 'openai/gpt-5'
  FROM generate_series(1, $2::integer) AS n
