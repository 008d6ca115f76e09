-- Speeds up the search for keywords by trigrams, where the extension pg_trgm is there or may be
-- created; elsewhere it changes nothing, and the search reads every message of a dialog instead.
-- It is no numbered migration, since the extension may come later: every migrate() asks again.
--
-- The extension may live in any schema, so the operator class is named in full. The index is
-- looked for before it is created, because CREATE INDEX IF NOT EXISTS would wait for writers
-- even then. Creating it blocks appends for as long as the table takes to read once.
--
-- It returns nothing. Locks: SHARE on asyncsvc.message while the index is built, else none.
DO $body$
DECLARE
    home name;
BEGIN
    IF to_regclass('asyncsvc.message_content_idx') IS NOT NULL THEN
        RETURN;
    END IF;
    BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
    EXCEPTION
        WHEN insufficient_privilege OR undefined_file OR feature_not_supported
            OR invalid_schema_name THEN
            RETURN;
    END;
    SELECT n.nspname INTO home
      FROM pg_catalog.pg_extension AS e
      JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
     WHERE e.extname = 'pg_trgm';
    EXECUTE format(
        'CREATE INDEX message_content_idx ON asyncsvc.message USING gin (content %I.gin_trgm_ops)',
        home
    );
END
$body$
