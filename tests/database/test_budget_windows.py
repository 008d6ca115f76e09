"""`asyncsvc.budget_window_v1` returns the buckets of `date_trunc`, in any zone."""

import pytest

GRAINS = ["hour", "day", "week", "month"]
ZONES = {
    "UTC": "2026-10-01",
    "Asia/Tokyo": "2026-10-01",
    "Asia/Kathmandu": "2026-10-01",
    "Asia/Kathmandu, offset changed by 15 minutes": "1985-12-01",
    "Europe/Berlin": "2026-10-01",
    "Europe/Berlin, spring": "2026-03-01",
    "Australia/Lord_Howe": "2026-09-15",
    "Australia/Lord_Howe, autumn": "2026-03-15",
    "America/Havana, midnight occurs twice": "2026-10-01",
    "America/Havana, midnight is skipped": "2026-02-15",
    "Pacific/Apia, a day is skipped": "2011-12-01",
    "America/Sao_Paulo, midnight is skipped": "2018-10-15",
    "America/Sao_Paulo, an hour before midnight occurs twice": "2018-01-25",
}
"""The zones, and the first of 70 days that contain the change."""

# Each bucket as the quarter hours of its label, compared with the function at its first and last
# microsecond and in its middle. The buckets at the ends of the range are not complete.
DIFFERENCES = """
WITH buckets AS (
    SELECT date_trunc($1, q.at, $2) AS label, min(q.at) AS first,
           max(q.at) + interval '15 minutes' AS after
      FROM generate_series($3::text::timestamptz, $3::text::timestamptz + interval '70 days',
                           interval '15 minutes') AS q (at)
     GROUP BY label
)
SELECT b.first, b.after, at.at, w.window_start, w.window_end
  FROM buckets AS b
 CROSS JOIN LATERAL (
       VALUES (b.first), (b.first + (b.after - b.first) / 2), (b.after - interval '1 microsecond')
       ) AS at (at)
 CROSS JOIN LATERAL asyncsvc.budget_window_v1(at.at, $1, $2) AS w
 WHERE (w.window_start, w.window_end) IS DISTINCT FROM (b.first, b.after)
   AND b.first > (SELECT min(o.first) FROM buckets AS o)
   AND b.after < (SELECT max(o.after) FROM buckets AS o)
"""


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("case", ZONES)
async def test_a_window_is_the_bucket_that_contains_the_instant(pool, case, grain):
    zone = case.partition(",")[0]
    differences = await pool.fetch(DIFFERENCES, grain, zone, f"{ZONES[case]} 00:00+00")
    assert differences == []


@pytest.mark.parametrize(
    ("zone", "at", "hours"),
    [
        ("Europe/Berlin", "2026-03-29 12:00+02", 23),
        ("Europe/Berlin", "2026-10-25 12:00+01", 25),
        ("Australia/Lord_Howe", "2026-10-04 12:00+11", 23.5),
        ("America/Havana", "2026-03-08 12:00-04", 23),
        ("America/Havana", "2026-11-01 12:00-05", 25),
        ("Pacific/Apia", "2011-12-29 12:00-10", 24),
        ("America/Sao_Paulo", "2018-02-17 12:00-02", 25),
    ],
)
async def test_a_day_has_the_length_that_its_clock_gives_it(pool, zone, at, hours):
    length = await pool.fetchval(
        "SELECT extract(epoch FROM w.window_end - w.window_start) / 3600"
        "  FROM asyncsvc.budget_window_v1($1::text::timestamptz, 'day', $2) AS w",
        at,
        zone,
    )
    assert length == hours


async def test_the_day_that_apia_skipped_is_no_window(pool):
    rows = await pool.fetch(
        "SELECT w.window_start AT TIME ZONE 'Pacific/Apia' AS start"
        "  FROM generate_series(timestamptz '2011-12-29 12:00+00', '2012-01-01 12:00+00',"
        "                       interval '1 hour') AS at"
        " CROSS JOIN LATERAL asyncsvc.budget_window_v1(at, 'day', 'Pacific/Apia') AS w"
        " GROUP BY start ORDER BY start",
    )
    assert [row["start"].day for row in rows] == [29, 31, 1, 2]


async def test_the_total_window_is_all_time(pool):
    row = await pool.fetchrow(
        "SELECT isfinite(w.window_start) OR isfinite(w.window_end) AS is_finite"
        "  FROM asyncsvc.budget_window_v1(now(), 'total', 'UTC') AS w"
    )
    assert row["is_finite"] is False
