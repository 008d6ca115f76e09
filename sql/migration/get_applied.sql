-- The applied migrations, oldest first. Reads only.
SELECT m.version, m.name, m.checksum, m.applied_at
  FROM asyncsvc.migration AS m
 ORDER BY m.version
