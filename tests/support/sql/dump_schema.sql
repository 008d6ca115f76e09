-- The commands that create the schema asyncsvc as it is: tables, indexes and functions, each kind in
-- the order of its creation, after the names of the collations. The text is the same on PostgreSQL 15 to 18.
WITH tables AS (
    SELECT c.oid, c.oid::regclass::text AS name, c.reloptions
      FROM pg_class AS c
     WHERE c.relnamespace = 'asyncsvc'::regnamespace
       AND c.relkind = 'r'
), columns AS (
    SELECT a.attrelid AS oid, 1 AS kind, a.attnum AS position,
           concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                     'COLLATE ' || quote_ident(l.collname),
                     'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
                     CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' END,
                     CASE WHEN a.attnotnull THEN 'NOT NULL' END) AS line
      FROM pg_attribute AS a
      JOIN tables AS t ON t.oid = a.attrelid
      JOIN pg_type AS y ON y.oid = a.atttypid
      LEFT JOIN pg_collation AS l ON l.oid = a.attcollation AND l.oid <> y.typcollation
      LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attnum > 0
       AND NOT a.attisdropped
), constraints AS (
    SELECT k.conrelid AS oid, 2 AS kind, row_number() OVER (ORDER BY k.contype = 'p' DESC, k.conname)
               AS position,
           concat('CONSTRAINT ', quote_ident(k.conname), ' ', pg_get_constraintdef(k.oid)) AS line
      FROM pg_constraint AS k
      JOIN tables AS t ON t.oid = k.conrelid
     WHERE k.contype <> 'n'
), objects AS (
    SELECT 1 AS kind, t.oid,
           concat('CREATE TABLE ', t.name, E' (\n    ',
                  string_agg(p.line, E',\n    ' ORDER BY p.kind, p.position), E'\n)',
                  ' WITH (' || array_to_string(t.reloptions, ', ') || ')', ';') AS command
      FROM tables AS t
      JOIN (SELECT c.oid, c.kind, c.position, c.line FROM columns AS c
             UNION ALL
            SELECT c.oid, c.kind, c.position, c.line FROM constraints AS c) AS p ON p.oid = t.oid
     GROUP BY t.oid, t.name, t.reloptions
     UNION ALL
    SELECT 2, i.indexrelid, concat(pg_get_indexdef(i.indexrelid), ';')
      FROM pg_index AS i
      JOIN tables AS t ON t.oid = i.indrelid
     WHERE NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)
     UNION ALL
    SELECT 3, s.oid, concat(pg_get_statisticsobjdef(s.oid), ';')
      FROM pg_statistic_ext AS s
      JOIN tables AS t ON t.oid = s.stxrelid
     UNION ALL
    SELECT 3, a.attrelid,
           format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s;', t.name, a.attname,
                  a.attstattarget)
      FROM pg_attribute AS a
      JOIN tables AS t ON t.oid = a.attrelid
     WHERE a.attstattarget >= 0
       AND a.attnum > 0
     UNION ALL
    SELECT 4, p.oid, concat(rtrim(pg_get_functiondef(p.oid), E'\n'), ';')
      FROM pg_proc AS p
     WHERE p.pronamespace = 'asyncsvc'::regnamespace
     UNION ALL
    SELECT 0, l.oid, format('-- CREATE COLLATION %s: its provider depends on the server.',
                            l.oid::regcollation)
      FROM pg_collation AS l
     WHERE l.collnamespace = 'asyncsvc'::regnamespace
)
SELECT string_agg(o.command, E'\n\n' ORDER BY o.kind, o.oid) AS schema
  FROM objects AS o
