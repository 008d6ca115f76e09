-- The bytes of each table with its TOAST data and of each index, and the name of the table of each.
SELECT t.relname AS table_name, t.relname AS name, pg_table_size(t.oid) AS bytes
  FROM pg_class AS t
 WHERE t.relnamespace = 'asyncsvc'::regnamespace
   AND t.relkind = 'r'
 UNION ALL
SELECT t.relname, i.relname, pg_relation_size(i.oid)
  FROM pg_class AS t
  JOIN pg_index AS x ON x.indrelid = t.oid
  JOIN pg_class AS i ON i.oid = x.indexrelid
 WHERE t.relnamespace = 'asyncsvc'::regnamespace
