-- List the workers of a cluster of Citus.
SELECT n.nodename, n.nodeport
  FROM pg_catalog.pg_dist_node AS n
 WHERE n.groupid <> 0
   AND n.noderole = 'primary'
 ORDER BY n.nodeid
