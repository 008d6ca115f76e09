"""Statistics equal a recount at any moment, during changes and roll-ups.

Writers change the conversations of two tenants in every way. At the same time maintenance rolls up
and is killed, zones are declared, and checkers ask for statistics. A checker reads its statistics
and the conversations in one snapshot, and counts the conversations with `model.usage`, which shares
no code with the library. The activity is compared at the end with what the writers committed.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    ANY,
    AsyncSvc,
    DatabaseError,
    MaintenanceReport,
    NotFound,
    Turn,
    Unavailable,
)
from asyncsvc.database import sql_files
from asyncsvc.repositories import UsageRepository
from tests.models.model import DAY, Question, clock_changes, usage

TENANTS = ("acme", "globex")
DECLARED = ("Europe/Berlin", "Asia/Kathmandu", "America/Havana")  # Havana's change at midnight
LATER = ("Australia/Lord_Howe", "America/New_York")  # by half an hour
ZONES = ("UTC", *DECLARED, *LATER)
DIALOGS, SOURCES, TOKENS = ("d1", "d2", "d3"), (None, "web", "api"), (None, "key")
USERS = ("", "ann", "bob", "eve", "joe")
MAINTENANCE = "asyncsvc-maintenance"
TRIES = 5
"""The number of runs with a mutated statement. Which tasks meet is random, so one run may pass."""
COUNTED = ("pv", "tokens", "duration", "rounds", "thumb_up", "thumb_down")

MOMENTS = [
    moment
    for tz in ZONES[1:]
    for moment in clock_changes(tz)
    if 2024 <= moment.year <= 2026
] + [datetime(2025, month, 1, tzinfo=UTC) for month in range(1, 13)]  # fmt: skip


@dataclass
class Row:
    """A conversation as it is stored, for the model to count."""

    dialog_id: str
    source: str | None
    user_id: str
    created_at: datetime
    round: int
    tokens: int
    microseconds: int
    thumb_up: int
    thumb_down: int

    def thumb_count(self, thumb: int) -> int:
        return self.thumb_up if thumb == 1 else self.thumb_down


@dataclass
class World:
    """What goes on, and what is known of it."""

    svc: AsyncSvc
    dsn: str
    chance: random.Random
    left: int
    ids: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in TENANTS})
    happened: Counter = field(default_factory=Counter)
    """What is committed of the activity, by tenant, dialog, source, token and counter."""
    where: dict[tuple[str, str], tuple[str, str | None]] = field(default_factory=dict)
    """The dialog and the source of each conversation."""
    wrong: list[str] = field(default_factory=list)
    checks: int = 0
    roll_ups: int = 0
    """The number of tenants rolled up."""
    kills: int = 0

    def found_wrong(self, what: str) -> None:
        self.wrong.append(what)
        self.left = 0  # enough is seen

    def instant(self) -> datetime:
        spread = self.chance.choice((1, 3_600, 4 * 3_600, 40 * 86_400))
        return self.chance.choice(MOMENTS) + timedelta(seconds=self.chance.uniform(-spread, spread))

    def new(self) -> dict[str, object]:
        return {
            "id": f"c{self.chance.getrandbits(64):x}",
            "dialog_id": self.chance.choice(DIALOGS),
            "source": self.chance.choice(SOURCES),
            "user_id": self.chance.choice(USERS),
            "created_at": self.instant(),
        }

    def made(self, tenant_id: str, record: dict[str, object], **counters: int) -> None:
        id, place = str(record["id"]), (record["dialog_id"], record["source"])
        self.ids[tenant_id].append(id)
        self.where[tenant_id, id] = place
        self.record(tenant_id, place, None, pv=1, **counters)

    def record(self, tenant_id: str, place: tuple, token_id: str | None, **counters: int) -> None:
        for name, number in counters.items():
            self.happened[(tenant_id, *place, token_id, name)] += number

    def id(self, tenant_id: str) -> str:
        ids = self.ids[tenant_id][-4:] if self.chance.random() < 1 / 2 else self.ids[tenant_id]
        return self.chance.choice(ids) if ids else "nobody"  # often one that others have, too


# ---------------------------------------------------------------- writers


class Writer:
    """One task: a conversation has one writer at a time, so that each knows what it changes."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.tenant_id = TENANTS[number % len(TENANTS)]
        self.of = {"tenant_id": self.tenant_id}
        self.talks = world.svc.conversations
        self.chance = world.chance

    async def work(self) -> None:
        kinds = [self.create, self.append, self.judge, self.shorten, self.move, self.delete,
                 self.load, self.roll_back, self.erase, self.purge]  # fmt: skip
        weights = [5, 8, 3, 2, 3, 2.5, 1, 1, 0.1, 0.05]
        while self.world.left > 0:
            self.world.left -= 1
            (kind,) = self.chance.choices(kinds, weights)
            with contextlib.suppress(NotFound):
                await kind()

    async def create(self) -> None:
        records = [self.world.new() for _ in range(self.chance.choice((1, 1, 3)))]
        await self.talks.create_many(records, **self.of)
        for record in records:
            self.world.made(self.tenant_id, record)

    async def append(self) -> None:
        id, token_id = self.world.id(self.tenant_id), self.chance.choice(TOKENS)
        cost = {"tokens": self.chance.randrange(9), "rounds": self.chance.randrange(2)}
        cost["duration"] = self.chance.randrange(10**6)
        turn = Turn(
            messages=[{"role": "user", "content": "?"}] * 2,
            tokens=cost["tokens"],
            duration=cost["duration"] / 10**6,
            round=cost["rounds"],
            token_id=token_id,
        )
        place = await self.locked(id, lambda tx: tx.append_message(id, turn, **self.of))
        self.world.record(self.tenant_id, place, token_id, **cost)

    async def judge(self) -> None:
        id, thumb = self.world.id(self.tenant_id), self.chance.choice((1, -1, None))
        before, seq = None, None

        async def change(talks) -> None:
            nonlocal before, seq
            messages = await talks.messages(id, last=1, **self.of)
            if messages:
                before, seq = messages[0].thumb, messages[0].seq
                await talks.set_feedback(id, seq, thumb, **self.of)

        place = await self.locked(id, change)
        if seq is not None:
            up, down = (thumb == 1) - (before == 1), (thumb == -1) - (before == -1)
            self.world.record(self.tenant_id, place, None, thumb_up=up, thumb_down=down)

    async def locked(self, id: str, change: Callable) -> tuple[str, str | None]:
        """Change a conversation; return where it was meanwhile, as nobody moves it then."""
        async with self.world.svc.transaction() as tx:
            talk = await tx.conversations.update_by_id(id, {"name": "held"}, **self.of)
            await change(tx.conversations)
        return talk.dialog_id, talk.source

    async def shorten(self) -> None:
        id = self.world.id(self.tenant_id)
        shorten = self.chance.choice((self.talks.pop_message, self.talks.clear_messages))
        await shorten(id, **self.of)

    async def move(self) -> None:
        patch = {
            "dialog_id": self.chance.choice(DIALOGS),
            "source": self.chance.choice(SOURCES),
            "user_id": self.chance.choice(USERS),
        }
        some = dict(self.chance.sample(sorted(patch.items()), self.chance.randint(1, 3)))
        await self.talks.update_by_id(self.world.id(self.tenant_id), some, **self.of)

    async def delete(self) -> None:
        ids = self.world.ids[self.tenant_id]
        doomed = self.chance.sample(ids, min(len(ids), self.chance.choice((1, 2, 8))))
        await self.talks.delete_by_ids(doomed, **self.of)
        for id in doomed:
            with contextlib.suppress(ValueError):  # another writer was faster
                ids.remove(id)

    async def load(self) -> None:
        cost = {"tokens": 5, "duration": 1_500_000, "rounds": 2}
        record = self.world.new()
        given = record | {"tokens": 5, "duration": 1.5, "round": 2, "messages": [
            {"role": "user", "content": "x", "thumb": 1}]}  # fmt: skip
        report = await self.talks.import_([given], **self.of)
        assert report.conversations == 1
        self.world.made(self.tenant_id, record, thumb_up=1, **cost)

    async def roll_back(self) -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with self.world.svc.transaction() as tx:
                made = await tx.conversations.create(**self.world.new(), **self.of)
                turn = Turn(messages=[{"role": "user", "content": "?"}], tokens=1_000)
                await tx.conversations.append_message(made.id, turn, **self.of)
                raise ZeroDivisionError

    async def erase(self) -> None:
        await self.talks.erase_user("joe", **self.of)

    async def purge(self) -> None:
        await self.talks.purge(self.world.instant() - 300 * DAY, by="created_at", **self.of)


# ---------------------------------------------------------------- maintenance


async def maintain(world: World) -> None:
    """Run maintenance in a loop, on connections that `kill` terminates."""

    def count(report: MaintenanceReport) -> None:
        world.roll_ups += report.ledger_rows > 0

    async with asyncsvc.connect(f"{world.dsn}?application_name={MAINTENANCE}", max_size=2) as svc:
        while world.left > 0:
            with contextlib.suppress(Unavailable, DatabaseError):
                await svc.maintain(on_batch=count)
            await asyncio.sleep(0.01)


async def die_before_the_commit(world: World) -> None:
    """Roll up in transactions that never commit."""
    while world.left > 0:
        connection = await asyncpg.connect(world.dsn)
        try:
            await connection.transaction().start()
            usage = UsageRepository(world.svc.on(connection)._executor)
            await usage.roll_up(tenant_id=world.chance.choice(TENANTS))
            await asyncio.sleep(0.05)
        finally:
            connection.terminate()
        world.kills += 1
        await asyncio.sleep(0.1)


async def kill(world: World) -> None:
    """Terminate connections of maintenance, each time after it rolled up at least one tenant."""
    roll_ups = -1
    while world.left > 0:
        await asyncio.sleep(world.chance.random())
        if world.roll_ups == roll_ups:
            continue
        roll_ups = world.roll_ups
        async with world.svc._executor._pool.acquire() as killer:
            world.kills += await killer.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE application_name = $1 ORDER BY random() LIMIT 1) AS chosen",
                MAINTENANCE,
            )


async def declare(world: World) -> None:
    """Declare zones during the changes."""
    begun = world.left
    for number, tz in enumerate(LATER, 1):
        while world.left > begun * (1 - number / 4):
            await asyncio.sleep(0.01)
        for tenant_id in TENANTS:
            await world.svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)


# ---------------------------------------------------------------- checkers


def question(chance: random.Random) -> Question:
    interval = chance.choice(("day", "day", "week", "month", "hour"))
    since = chance.choice(MOMENTS) + timedelta(hours=chance.choice((-24, -1, 0, 0.5, 24)))
    days = {"hour": 3, "day": 60, "week": 200, "month": 700}[interval]
    return Question(
        since,
        since + chance.random() * days * DAY,
        source=chance.choice((ANY, ANY, *SOURCES)),
        interval=interval,
        dialog_id=chance.choice((ANY, ANY, *DIALOGS)),
        tz=chance.choice(ZONES),
        fill=chance.random() < 1 / 4,
    )


@contextlib.asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection
    finally:
        await connection.close()


async def check(world: World, tenant_id: str, asked: list[Question]) -> None:
    """Read statistics and count the conversations in one snapshot."""
    async with snapshot(world.dsn) as connection:
        rows = await connection.fetch(
            "SELECT dialog_id, source, user_id, created_at, round, tokens,"
            " duration AS microseconds, thumb_up, thumb_down"
            " FROM asyncsvc.conversation WHERE tenant_id = $1",
            tenant_id,
        )
        kept, talks = [Row(**row) for row in rows], world.svc.on(connection).conversations
        for each in asked:
            answer = await talks.stats(tenant_id=tenant_id, **asdict(each))
            world.checks += 1
            if [bucket.model_dump() for bucket in answer] != usage(kept, each):
                world.found_wrong(f"{tenant_id}: {each}")
        for dialog_id in DIALOGS:
            page = await talks.get_list(dialog_id=dialog_id, tenant_id=tenant_id, items_per_page=1)
            if page.total != sum(row.dialog_id == dialog_id for row in kept):
                world.found_wrong(f"{tenant_id}: total of {dialog_id}")


async def ask(world: World) -> None:
    while world.left > 0:
        asked = [question(world.chance) for _ in range(6)]
        await check(world, world.chance.choice(TENANTS), asked)


async def check_activity(world: World, tenant_id: str) -> None:
    """The activity equals what was committed, in any zone, despite later deletions."""
    for tz in ("UTC", "Asia/Kathmandu", "Africa/Lagos"):  # the last one is not declared
        for interval in ("day", "month"):
            for dialog_id in (ANY, *DIALOGS):
                for source in (ANY, *SOURCES):
                    for token_id in (ANY, *TOKENS):
                        buckets = await world.svc.conversations.stats(
                            tenant_id=tenant_id, from_date="2022-01-01", to_date="2027-12-31",
                            source=source, basis="activity", interval=interval,
                            dialog_id=dialog_id, token_id=token_id, tz=tz, fill=False,
                        )  # fmt: skip
                        told = {name: sum(getattr(each, name) for each in buckets)
                                for name in COUNTED}  # fmt: skip
                        told["duration"] = round(told["duration"] * 10**6)
                        known = Counter(dict.fromkeys(COUNTED, 0))
                        for (tenant, dialog, of, token, name), number in world.happened.items():
                            if (
                                tenant == tenant_id
                                and dialog_id in {ANY, dialog}
                                and source in {ANY, of}
                                and token_id in {ANY, token}
                            ):
                                known[name] += number
                        world.checks += 1
                        if told != known:
                            world.found_wrong(f"{tenant_id} did {told}, not {dict(known)}")


async def run(dsn: str, operations: int, seed: int) -> World:
    # A declaration waits for a recount of another, which may take long on a busy machine.
    patient = asyncsvc.Settings(lock_timeout=300)
    async with asyncsvc.connect(dsn, max_size=24, settings=patient) as svc:
        world = World(svc, dsn, random.Random(seed), operations)
        for tenant_id in TENANTS:
            for tz in DECLARED:
                await svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(Writer(world, number).work())
            for work in (maintain, maintain, die_before_the_commit, kill, declare, ask, ask):
                group.create_task(work(world))
        every = [Question(*span, source=source, interval=interval, dialog_id=dialog_id, tz=tz)
                 for span in (("2023-06-01", "2026-03-31"),)
                 for source in (ANY, None, "web") for dialog_id in (ANY, "d1")
                 for interval in ("day", "week", "month") for tz in ZONES]  # fmt: skip
        for _ in range(
            0 if world.wrong else 2
        ):  # first with ledger rows that are not rolled up, then without
            for tenant_id in TENANTS:
                await check(world, tenant_id, every)
                await check_activity(world, tenant_id)
            await svc.maintain()
    return world


async def test_statistics_equal_a_recount_during_changes_and_roll_ups(dsn):
    world = await run(dsn, 10_000, seed=1)
    assert not world.wrong, world.wrong[:5]
    assert world.checks > 500
    assert world.roll_ups > 10
    assert world.kills > 10


COUNTERS = "c.source, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down"
MUTATIONS = {
    "two roll-ups share the rows of a tenant": (
        "usage/roll_up",
        (
            ("       FOR UPDATE SKIP LOCKED\n", ""),
            ("     USING locked AS l\n     WHERE u.tenant_id = l.tenant_id\n",
             ("     WHERE u.ctid IN (SELECT l.ctid FROM asyncsvc.usage_ledger AS l"
             " WHERE l.tenant_id = :tenant_id ORDER BY random() LIMIT 50 FOR UPDATE"
             " SKIP LOCKED)\n")),
        ),
    ),
    "a roll-up looks for users as if the change did not exist": (
        "usage/roll_up", (("           OFFSET greatest(u.pv, 0))", "           )"),)
    ),
    "a statistic looks for users as if the change did not exist": (
        "usage/stats", (("           OFFSET greatest(u.pv, 0))", "           )"),)
    ),
    "a statistic does not read the ledger": (
        "usage/stats",
        (("     WHERE u.tenant_id = :tenant_id\n       AND u.dialog_id",
          "     WHERE u.tenant_id = :tenant_id AND false\n       AND u.dialog_id"),),
    ),
    "a total does not read the ledger": (
        "conversation/get_list", (("AND u.dialog_id = :dialog_id ",
                                   "AND u.dialog_id = :dialog_id AND false "),)
    ),
    "a deletion records what it saw before it waited": (
        "conversation/delete",
        (("               FOR UPDATE\n               SKIP LOCKED", "               -- SKIP LOCKED"),
         ("c.source, c.user_id, c.created_at, c.round, c.tokens,\n",
          "l.source, l.user_id, l.created_at, l.round, l.tokens,\n"),
         ("c.duration, c.thumb_up, c.thumb_down, l.m", "l.duration, l.thumb_up, l.thumb_down, l.m"),
         ("MATERIALIZED (\n    SELECT ", f"MATERIALIZED (\n    SELECT {COUNTERS}, "),
         ("LATERAL (\n            SELECT ", f"LATERAL (\n            SELECT {COUNTERS}, ")),
    ),
    "a move records what it saw before it waited": (
        "conversation/update_many_by_id", (("               FOR NO KEY UPDATE\n", ""),)
    ),
}  # fmt: skip


@pytest.mark.damages
@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_missing_lock_makes_the_test_fail(database_factory, monkeypatch, name):
    """The test above detects a statement from which the part that makes it correct is removed."""
    file, changes = MUTATIONS[name]
    source = (sql_files.root() / f"{file}.sql").read_text(encoding="utf-8")
    for before, after in changes:
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    mutant, load = sql_files.Statement(file, source), sql_files.load
    monkeypatch.setattr(sql_files, "load", lambda it: mutant if it == file else load(it))
    for seed in range(2, 2 + TRIES):
        if await is_detected(await database_factory(), seed):
            return
    pytest.fail(f"not detected in {TRIES} runs")


async def is_detected(dsn: str, seed: int) -> bool:
    wrong = ["the run did not finish"]
    with contextlib.suppress(ExceptionGroup):  # for example a deadlock
        wrong = (await run(dsn, 4_000, seed)).wrong
    return bool(wrong)
