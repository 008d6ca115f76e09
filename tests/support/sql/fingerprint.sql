-- Return a hash of a migrated database without its rows: of tables, rights, settings and statistics
-- targets. After their rows are deleted, two databases with the same hash are interchangeable.
SELECT md5(string_agg(p.what, E'\n' ORDER BY p.what))
  FROM (
    SELECT concat_ws(' ', 'relation', c.oid::regclass, c.relkind, c.relrowsecurity, c.reloptions,
                     c.relacl, c.relowner::regrole, c.relpersistence, i.indisvalid) AS what
      FROM pg_class AS c
      LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
     WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
       AND c.relkind NOT IN ('t')
       AND NOT c.oid::regclass::text LIKE 'pg_toast%'
     UNION ALL
    SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attnum, a.attname, a.atttypid,
                     a.attnotnull, a.attisdropped, a.attstattarget, a.attacl)
      FROM pg_attribute AS a
      JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'v', 'p')
     WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
       AND a.attnum > 0
     UNION ALL
    SELECT concat_ws(' ', 'constraint', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))
      FROM pg_constraint AS k
     WHERE k.connamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
     UNION ALL
    SELECT concat_ws(' ', 'function', f.oid::regprocedure, md5(f.prosrc), f.proacl)
      FROM pg_proc AS f
     WHERE f.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
     UNION ALL
    SELECT concat_ws(' ', 'trigger', t.tgrelid::regclass, t.tgname)
      FROM pg_trigger AS t
     WHERE NOT t.tgisinternal
        OR t.tgname LIKE 'truncate\_trigger%'  -- of a table that Citus distributes
     UNION ALL
    SELECT concat_ws(' ', 'policy', y.polrelid::regclass, y.polname)
      FROM pg_policy AS y
     UNION ALL
    SELECT concat_ws(' ', 'migration', m.version, m.name, m.checksum)
      FROM asyncsvc.migration AS m
     UNION ALL
    SELECT concat_ws(' ', 'schema', n.nspname, n.nspacl)
      FROM pg_namespace AS n
     WHERE n.nspname NOT LIKE 'pg\_%'
     UNION ALL
    SELECT concat_ws(' ', 'database', d.datconnlimit, d.datacl, d.datdba::regrole)
      FROM pg_database AS d
     WHERE d.datname = current_database()
     UNION ALL
    SELECT concat_ws(' ', 'other', x.classid::regclass, count(*))
      FROM (
        SELECT s.classoid AS classid FROM pg_seclabel AS s
         UNION ALL
        SELECT 'pg_extension'::regclass FROM pg_extension
         UNION ALL
        SELECT 'pg_db_role_setting'::regclass
          FROM pg_db_role_setting AS s
         CROSS JOIN unnest(s.setconfig)
         WHERE s.setdatabase = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
         UNION ALL
        SELECT 'pg_statistic_ext'::regclass FROM pg_statistic_ext
         UNION ALL
        SELECT 'pg_collation'::regclass FROM pg_collation AS o WHERE o.oid >= 16384
         UNION ALL
        SELECT 'pg_type'::regclass FROM pg_type AS y WHERE y.oid >= 16384
         UNION ALL
        SELECT 'pg_default_acl'::regclass FROM pg_default_acl
      ) AS x
     GROUP BY x.classid
  ) AS p
