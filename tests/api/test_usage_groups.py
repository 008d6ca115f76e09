"""Groups of usage add up to the usage without groups, in each dimension, zone and roll-up state."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import asyncsvc
from asyncsvc import InvalidInput, Settings
from asyncsvc.models import UsageBucket
from tests.support.usage import EVER, spend

ZONES = (
    *("Asia/Tokyo", "Europe/Berlin", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "America/Havana", "Pacific/Apia"),
)
DIMENSIONS = ("model", "token_id", "user_id", "dialog_id", "source")
SUMS = [
    name
    for name in UsageBucket.model_fields
    if name not in {"dt", "group", "is_other", "users", "round", "duration"}
]
# The clocks of Berlin and Havana go back; Apia skips a day; months end.
MOMENTS = [
    datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2026, 11, 1, 5, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC), datetime(2026, 8, 31, 23, tzinfo=UTC),
]  # fmt: skip
LARGE = 9 * 10**18
"""A sum of two is more than a bigint holds."""
INSERT = """
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, at, dialog_id, source, user_id, acting_user_id, token_id, model, rounds,
           requests, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
           reasoning_tokens, tokens, cost, unpriced, unmetered, duration, thumb_up)
    SELECT 't', u.*
      FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                  $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
                  $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[],
                  $17::bigint[], $18::bigint[], $19::bigint[], $20::integer[]) AS u
"""


async def store_usage(pool, chance: random.Random, count: int) -> None:
    """Insert rows into the ledger, around the moments, with some NULL and some large values."""
    rows = []
    for _ in range(count):
        names = [
            None if chance.random() < 0.2 else f"{name}{chance.randrange(4)}" for name in "stm"
        ]
        spread = timedelta(seconds=chance.uniform(-200_000, 200_000))
        counters = [chance.choice((None, 0, 1, chance.randrange(10**6), LARGE)) for _ in range(10)]
        tokens, thumb = chance.choice((0, 7, LARGE)), chance.choice((0, 1, -1))
        unmetered, duration = chance.choice((None, 0, 1)), chance.randrange(10**6)
        rows.append(
            (
                chance.choice(MOMENTS) + spread, chance.choice("de"), names[0],
                chance.choice(("", "ann", "bob")), chance.choice((None, None, "eve")),
                *names[1:], chance.choice((0, 1, 1)), *counters[:6], tokens, *counters[6:8],
                unmetered, duration, thumb,
            )
        )  # fmt: skip
    await pool.execute(INSERT, *map(list, zip(*rows, strict=True)))


def nonzero(*counters: Counter) -> dict[str, int]:
    """Return the sums of counters, of which some may be negative, without zeros."""
    total = Counter()
    for each in counters:
        total.update(each)
    return {name: value for name, value in total.items() if value}


def added(buckets) -> dict[datetime, Counter]:
    """Return the sums of the groups of each bucket."""
    sums: dict[datetime, Counter] = {}
    for bucket in buckets:
        of = sums.setdefault(bucket.dt, Counter())
        for name in SUMS:
            of[name] += getattr(bucket, name)
        of["duration"] += round(bucket.duration * 10**6)
    return sums


async def check(svc, chance: random.Random) -> None:
    """Compare groups, buckets and totals of random ranges in each zone and dimension."""
    for tz in ("UTC", *ZONES):
        since = chance.choice(MOMENTS) + timedelta(minutes=15 * chance.randrange(-99, 99))
        of = {"tenant_id": "t", "tz": tz, "from_date": since}
        of["to_date"] = since + timedelta(days=chance.randrange(1, 90), microseconds=-1)
        interval = chance.choice(("hour", "day", "week", "month"))
        plain = await svc.conversations.stats(**of, interval=interval, fill=False)
        total = await svc.conversations.stats_total(**of)
        assert nonzero(*added(plain).values()) == nonzero(added([total])[total.dt]), (tz, of)
        for name in DIMENSIONS:
            grouped = of | {"group_by": name, "top": chance.choice((1, 2, 20))}
            groups = await svc.conversations.stats(**grouped, interval=interval, fill=False)
            assert {dt: nonzero(sums) for dt, sums in added(groups).items()} == {
                dt: nonzero(sums) for dt, sums in added(plain).items()
            }, (tz, grouped)
            whole = await svc.conversations.stats(**grouped, interval="total")
            assert nonzero(*added(whole).values()) == nonzero(added([total])[total.dt]), grouped
            keys = [(each.is_other, each.group) for each in whole]
            assert len(set(keys)) == len(keys) <= grouped["top"] + 1
            costs = [each.cost for each in whole if not each.is_other]
            assert costs == sorted(costs, reverse=True)
            for each in whole:
                if not each.is_other and (name != "user_id" or each.group):
                    (one,) = await svc.conversations.stats(
                        **of, interval="total", **{name: each.group}
                    )
                    assert added([one])[total.dt] == added([each])[total.dt], (name, each)


@pytest.mark.parametrize("seed", range(2))
async def test_groups_add_up_to_the_usage_without_groups(svc, pool, seed):
    chance = random.Random(seed)
    await store_usage(pool, chance, 150)
    await check(svc, chance)  # nothing is rolled up
    for tz in ZONES:
        await svc.conversations.declare_zone(tz, tenant_id="t")
    await svc.maintain()
    await check(svc, chance)
    await store_usage(pool, chance, 60)
    await check(svc, chance)  # a part is rolled up
    before = await users(svc)
    await svc.conversations.recount_usage(tenant_id="t")
    await check(svc, chance)
    assert await users(svc) == before


async def users(svc) -> list[int]:
    """Return the users of all buckets of all time, for each dialog and of all."""
    return [
        bucket.users
        for of in ({}, {"dialog_id": "d"}, {"model": "m1"}, {"source": None}, {"token_id": "t1"})
        for interval in ("day", "week", "month", "total")
        for bucket in await svc.conversations.stats(
            tenant_id="t", from_date="2011-12-01", to_date="2026-12-31", interval=interval,
            fill=False, **of,
        )
    ]  # fmt: skip


async def test_sums_beyond_64_bits_are_exact(svc, pool):
    await pool.execute(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, user_id, at, tokens, cost, model)"
        " SELECT 't', 'd', 'u', '2026-11-20Z', 9223372036854775807, 9223372036854775807, 'm'"
        " FROM generate_series(1, 3)"
    )
    day = {"tenant_id": "t", "from_date": "2026-11-20", "to_date": "2026-11-20"}
    for _ in range(2):
        for more in ({}, {"interval": "total"}, {"group_by": "model"}, {"group_by": "user_id"}):
            (bucket,) = await svc.conversations.stats(**day, **more)
            assert bucket.tokens == 3 * (2**63 - 1)
            assert bucket.cost == Decimal("27670116110.564327421")
            assert '"cost":"27670116110.564327421"' in bucket.model_dump_json()
        await svc.maintain()


async def test_the_tokens_of_a_rotation_are_one_group(svc):
    first = await svc.tokens.create(tenant_id="t", name="n", scopes=[])
    second = await svc.tokens.rotate(first.token.id, tenant_id="t")
    for token in (first.token, second.token):
        await svc.conversations.append_message(
            "c",
            {"messages": [{"role": "user", "content": "?"}], "tokens": 5, "token_id": token.id},
            tenant_id="t",
            create={"dialog_id": "d"},
        )
    now = datetime.now(UTC)
    day = {
        "tenant_id": "t",
        "from_date": now - timedelta(days=1),
        "to_date": now + timedelta(days=1),
        "interval": "total",
    }
    for _ in range(2):
        for token in (first.token, second.token):
            (usage,) = await svc.conversations.stats(**day, token_id=token.id)
            assert usage.tokens == 10
        groups = await svc.conversations.stats(**day, group_by="token_id")
        assert [(each.group, each.tokens) for each in groups] == [(first.token.id, 10), (None, 0)]
        await svc.maintain()


async def test_creation_has_no_groups(svc):
    with pytest.raises(InvalidInput, match="group_by"):
        await svc.conversations.stats(
            tenant_id="t", from_date="2026-01-01", to_date="2026-01-01", basis="creation",
            group_by="source",
        )  # fmt: skip


@pytest.mark.parametrize("costs", [(None,), (0, 7, -5), range(-(10**6), 10**9, 997)], ids=str)
async def test_the_first_persons_of_many_are_exact(dsn, pool, costs):
    """Few persons are read, whose bounds are high: with usage of other months, or corrections.

    Without costs, ann and bob are the first by their usage in the ledger, bob by 4 tokens more.
    """
    chance, day = random.Random(3), timedelta(days=1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    spring = start + 100 * day
    of_names = (
        [("bob", spring, None, 5)],
        [],
        [("ann", spring, None, 10**9), ("bob", spring, None, 10**9 - 1)],
    )
    async with asyncsvc.connect(dsn, settings=Settings(maintenance_interval=None)) as svc:
        for count, named in zip((1500, 1500, 40), of_names, strict=True):
            rows = [
                (f"u{person}", start + day * chance.uniform(0, 240) * chance.choice((0, 1)),
                 chance.choice(costs), chance.randrange(-20, 10**3) * chance.choice((1, person)))
                for person in [chance.randrange(700) for _ in range(count)]
            ]  # fmt: skip
            await svc.maintain()
            await pool.executemany(
                "INSERT INTO asyncsvc.usage_ledger"
                " (tenant_id, dialog_id, user_id, at, cost, tokens)"
                " VALUES ('t', 'd', $1, $2, $3, $4)",
                [*rows, *named],
            )
        for since, until in ((59, 119), (41.3, 200.6), (31, 59), (150.5, 151.5), (0, 240)):
            range_ = {
                "tenant_id": "t",
                "from_date": start + day * since,
                "to_date": start + day * until,
            }
            by_person = {"group_by": "user_id", "interval": "total"}
            every = await svc.conversations.stats(**range_, **by_person, top=1000)
            for top in (1, 7):
                first = await svc.conversations.stats(**range_, **by_person, top=top)
                assert first[:top] == every[:top]
                assert len(first) == min(top + 1, len(every))
                others = sum(each.tokens for each in first if each.is_other)
                assert others == sum(each.tokens for each in every[top:])


# ---------------------------------------------------------------- retention and erasure


async def test_old_usage_names_no_persons_and_keeps_all_else(dsn, pool):
    """All sums and the users of stored buckets stay; the persons of the last months stay, too."""
    now = datetime.now(UTC)
    old, new = now - timedelta(days=500), now - timedelta(days=10)
    await pool.executemany(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, user_id, at, tokens)"
        " VALUES ('t', 'd', $1, $2, 5)",
        [(user, at) for user in ("ann", "bob", "eve") for at in (old, old, new)],
    )
    ever = {"tenant_id": "t", "from_date": old - timedelta(days=62), "to_date": now}
    months = {"interval": "month", "fill": False}
    async with asyncsvc.connect(dsn, settings=Settings(usage_retention=10**9)) as svc:
        await svc.maintain()
        before = await svc.conversations.stats(**ever, **months)
        assert [bucket.users for bucket in before if bucket.tokens] == [3, 3]
    async with asyncsvc.connect(dsn, settings=Settings(maintenance_interval=None)) as svc:
        for _ in range(2):
            await svc.maintain()
            assert [
                bucket.tokens for bucket in await svc.conversations.stats(**ever, **months)
            ] == [bucket.tokens for bucket in before]
            groups = await svc.conversations.stats(**ever, interval="total", group_by="user_id")
            assert {each.group: each.tokens for each in groups} == {
                None: 30, "ann": 5, "bob": 5, "eve": 5,
            }  # fmt: skip
            await svc.conversations.recount_usage(tenant_id="t")
            after = await svc.conversations.stats(**ever, **months)
            assert [bucket.users for bucket in after][-1] == 3
            assert max(bucket.users for bucket in after[:-1]) == 3  # of the stored bucket
    assert not await pool.fetchval(
        "SELECT count(*) FROM asyncsvc.usage_quarter_hour"
        " WHERE user_id <> '' AND quarter_hour < $1",
        now - timedelta(days=450),
    )


async def test_usage_names_persons_for_400_days_by_default(dsn, pool):
    """Whole UTC months are summed out, so the month of 400 days ago is the oldest with names."""
    kept = (datetime.now(UTC) - timedelta(days=400)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    earlier = kept - timedelta(minutes=15)
    for user_id, at in (("ann", earlier), ("bob", earlier), ("bob", kept), ("eve", kept)):
        await spend(pool, user_id=user_id, at=at, tokens=5)
    await spend(pool, user_id="bob", at=earlier - timedelta(days=31), tokens=5)
    async with asyncsvc.connect(dsn, settings=Settings(maintenance_interval=None)) as svc:
        reports = [await svc.maintain() for _ in range(2)]
        assert [report.user_months for report in reports] == [3, 0]
        groups = await svc.conversations.stats(
            tenant_id="t", **EVER, interval="total", group_by="user_id"
        )
    assert {group.group: group.tokens for group in groups} == {None: 15, "bob": 5, "eve": 5}


@pytest.mark.parametrize("is_rolled_up", [True, False])
async def test_an_erased_person_stays_a_person_without_a_name(svc, pool, is_rolled_up):
    for user_id in ("ann", "bob"):
        chat = await svc.conversations.create(tenant_id="t", dialog_id="d", user_id=user_id)
        turn = {"messages": [{"role": "user", "content": "?"}], "tokens": 5, "user_id": "ann"}
        await svc.conversations.append_message(chat.id, turn, tenant_id="t")
    now = datetime.now(UTC)
    day = {
        "tenant_id": "t",
        "from_date": now - timedelta(days=1),
        "to_date": now + timedelta(days=1),
    }
    if is_rolled_up:
        await svc.maintain()
    before = await svc.conversations.stats_total(**day)
    await svc.conversations.erase_user("ann", tenant_id="t")
    assert await svc.conversations.stats_total(**day) == before
    groups = await svc.conversations.stats(**day, interval="total", group_by="user_id")
    assert [(each.tokens, each.users) for each in groups] == [(10, 1), (0, 1)]
    assert groups[0].group.startswith("erased-")
    assert groups[1].group == "bob"
    (creation,) = await svc.conversations.stats(**day, basis="creation", fill=False)
    assert (creation.conversations, creation.users) == (1, 1)
    await svc.maintain()
    for table in ("usage_ledger", "usage_quarter_hour", "usage_user_month", "usage_user"):
        assert not await pool.fetchval(
            f"SELECT count(*) FROM asyncsvc.{table} AS r WHERE to_jsonb(r)::text LIKE '%ann%'"
        )
