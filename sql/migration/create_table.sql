-- Makes the record of applied migrations, where it is not there yet. Run under the lock of
-- migration/lock.
CREATE TABLE IF NOT EXISTS asyncsvc.migration (
    version    integer NOT NULL PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL
)
