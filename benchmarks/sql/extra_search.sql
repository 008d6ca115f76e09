-- The search for words of messages; it needs the extension pg_trgm.
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
CREATE INDEX ON message USING gin (content public.gin_trgm_ops);
