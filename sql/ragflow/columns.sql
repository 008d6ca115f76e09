-- Read the columns of RAGFlow's tables in the source, because its versions differ.
--
-- Returns: table_name, column_name and collation_name. No row for a missing table.
-- Locks: none.
-- Index: the server's catalogue.
-- Notes: runs on the source, MySQL or PostgreSQL, in the schema of tables that are named without one.
SELECT c.table_name AS table_name, c.column_name AS column_name, c.collation_name AS collation_name
  FROM information_schema.columns AS c
 WHERE c.table_name IN ('api_4_conversation', 'api_token', 'dialog', 'user_canvas')
   AND c.table_schema = database()                                  --? mysql
   AND to_regclass(format('%I', c.table_name))                      --? postgresql
       = to_regclass(format('%I.%I', c.table_schema, c.table_name)) --? postgresql
