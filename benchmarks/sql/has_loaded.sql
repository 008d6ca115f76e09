-- Whether the store of a mixed run is loaded completely.
SELECT to_regclass('bench.loaded') IS NOT NULL
