-- Create the functions that generate the data of all contenders.
--
-- The conversations of a tenant are numbered from base + 1. They are spread evenly over the year that
-- ended 1 day before the run. Half of them are in dialog 0 of the tenant. No user id is empty, because
-- RAGFlow counts an empty one as a user. Instants are whole seconds, because RAGFlow stores no fractions.
CREATE SCHEMA IF NOT EXISTS bench;

CREATE TABLE IF NOT EXISTS bench.clock AS SELECT now() AS run_at;

CREATE OR REPLACE FUNCTION bench.conversation(tenant text, base int, conversations int, messages int)
RETURNS TABLE (
    id text, dialog_id text, user_id text, name text, source text, round int, tokens int,
    duration bigint, thumb_up int, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
SELECT (base + n)::text,
       tenant || '-d' || CASE WHEN n % 2 = 0 THEN 0 ELSE 1 + n / 2 % 9 END,
       'u' || abs(hashint4(n)::bigint) % greatest(conversations / 20, 1),
       'Parcel ' || n,
       CASE n % 3 WHEN 0 THEN 'api' WHEN 1 THEN 'agent' END,
       (messages + 1) / 2,
       n % 1000,
       n % 60 * 1000000::bigint,
       (n % 10 = 0)::int,
       t.created_at,
       t.created_at + n * 7919::bigint % 86400 * interval '1 second'
  FROM generate_series(1, conversations) AS g (n)
 CROSS JOIN LATERAL (
       SELECT date_trunc('second', c.run_at - interval '366 days'
                                   + n * (interval '365 days' / conversations))
         FROM bench.clock AS c) AS t (created_at)
$$;

CREATE OR REPLACE FUNCTION bench.message(conversation_id text, messages int)
RETURNS TABLE (seq int, role text, content text)
LANGUAGE sql IMMUTABLE AS $$
SELECT n, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
       'Message ' || n || ' of ' || conversation_id || ': where is my parcel, and when will it come?'
  FROM generate_series(1, messages) AS g (n)
$$;
