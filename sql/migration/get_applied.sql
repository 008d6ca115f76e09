-- The applied migrations, oldest first, for whoever compares them with the files. Reads only.
SELECT m.version, m.name, m.checksum, m.applied_at
  FROM asyncsvc.migration AS m
 ORDER BY m.version
