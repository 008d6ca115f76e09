-- The columns that a source has of RAGFlow's tables, by which the other statements of this folder
-- choose theirs: versions differ. Collations are told since two that differ cannot be compared.
--
-- It runs on the source, MySQL or PostgreSQL, in the schema that a table's bare name leads to.
-- Locks: none. Index: the server's catalogue.
SELECT c.table_name AS table_name, c.column_name AS column_name, c.collation_name AS collation_name
  FROM information_schema.columns AS c
 WHERE c.table_name IN ('api_4_conversation', 'api_token', 'dialog', 'user_canvas')
   AND c.table_schema = database()                                  --? mysql
   AND to_regclass(format('%I', c.table_name))                      --? postgresql
       = to_regclass(format('%I.%I', c.table_schema, c.table_name)) --? postgresql
