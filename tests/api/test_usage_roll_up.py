"""Statistics equal a recount at any moment, during changes and roll-ups.

Writers change the conversations of two tenants in every way. At the same time maintenance rolls up
and is killed, zones are declared, and checkers read statistics. A checker reads its statistics and
the conversations in one snapshot; the model counts these conversations. The model of the committed
activity is compared at the end.

By default a run has few operations. For a long run: ASYNCSVC_MODEL_EXAMPLES=200.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

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
    Usage,
)
from asyncsvc.database import sql_files
from asyncsvc.repositories import UsageRepository
from asyncsvc.services import conversation_import
from asyncsvc.services import usage as usage_service
from tests.models.clocks import DAY, clock_changes
from tests.models.comparison import LONG_RUN, differences, totals
from tests.models.model import Model
from tests.models.state import Conversation, Row
from tests.support.usage import (
    budget_differences,
    counters_of,
    group_differences,
    random_usage,
    set_budgets,
)

TENANTS = ("acme", "globex")
DECLARED = ("Europe/Berlin", "Asia/Kathmandu", "America/Havana")  # Havana's change at midnight
LATER = ("Australia/Lord_Howe", "America/New_York")  # by half an hour
ZONES = ("UTC", *DECLARED, *LATER)
DIALOGS, SOURCES, TOKENS = ("d1", "d2", "d3"), (None, "web", "api"), (None, "key")
USERS = ("", "ann", "bob", "eve", "joe")
ACTING = (None, "ann", "bob", "joe")
MAINTENANCE = "asyncsvc-maintenance"
TRIES = 5
"""The number of runs with a mutated statement. The order of tasks is random, so a run may pass."""
OPERATIONS = int(LONG_RUN) * 100 if LONG_RUN else 4_000
"""Each mutated statement below is detected within 30 to 700 operations."""

MOMENTS = [
    moment
    for tz in ZONES[1:]
    for moment in clock_changes(tz)
    if 2024 <= moment.year <= 2026
] + [datetime(2025, month, 1, tzinfo=UTC) for month in range(1, 13)]  # fmt: skip


@dataclass
class World:
    """The state that all tasks of a run share."""

    svc: AsyncSvc
    dsn: str
    chance: random.Random
    left: int
    """The number of operations that the writers still have to do."""
    ids: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in TENANTS})
    committed: Model = field(default_factory=Model)
    """The committed activity."""
    wrong: list[str] = field(default_factory=list)
    checks: int = 0
    roll_ups: int = 0
    """The number of tenants rolled up."""
    kills: int = 0

    def report(self, difference: str) -> None:
        self.wrong.append(difference)
        self.left = 0  # the run has failed

    def instant(self) -> datetime:
        spread = self.chance.choice((1, 3_600, 4 * 3_600, 40 * 86_400))
        return self.chance.choice(MOMENTS) + timedelta(seconds=self.chance.uniform(-spread, spread))

    def new_conversation(self) -> Row:
        return {
            "id": f"c{self.chance.getrandbits(64):x}",
            "dialog_id": self.chance.choice(DIALOGS),
            "source": self.chance.choice(SOURCES),
            "user_id": self.chance.choice(USERS),
            "created_at": self.instant(),
        }

    def record_creation(self, tenant_id: str, fields: Row, **counters: int) -> None:
        self.ids[tenant_id].append(fields["id"])
        conversation = Conversation(**fields)
        self.committed.conversations.record_activity(
            tenant_id, conversation, {"conversations": 1} | counters, at=conversation.created_at
        )

    def id(self, tenant_id: str) -> str:
        """Return an id, often a new one that other writers choose too."""
        ids = self.ids[tenant_id][-4:] if self.chance.random() < 1 / 2 else self.ids[tenant_id]
        return self.chance.choice(ids) if ids else "absent"


# ---------------------------------------------------------------- writers


class Writer:
    """One task that changes the conversations of a tenant."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.tenant_id = TENANTS[number % len(TENANTS)]
        self.tenant = {"tenant_id": self.tenant_id}
        self.conversations = world.svc.conversations
        self.chance = world.chance

    async def work(self) -> None:
        operations = {
            self.create: 5, self.append: 8, self.append_usages: 4, self.record_usage: 3,
            self.adjust_usage: 1, self.set_feedback: 3, self.delete_messages: 2, self.move: 3,
            self.delete: 2.5, self.import_: 1, self.roll_back: 1, self.erase: 0.1, self.purge: 0.05,
        }  # fmt: skip
        while self.world.left > 0:
            self.world.left -= 1
            (operation,) = self.chance.choices(list(operations), list(operations.values()))
            with contextlib.suppress(NotFound):
                await operation()

    async def create(self) -> None:
        rows = [self.world.new_conversation() for _ in range(self.chance.choice((1, 1, 3)))]
        await self.conversations.create_many(rows, **self.tenant)
        for fields in rows:
            self.world.record_creation(self.tenant_id, fields)

    async def append(self) -> None:
        id, token_id = self.world.id(self.tenant_id), self.chance.choice(TOKENS)
        costs = {"tokens": self.chance.randrange(9), "rounds": self.chance.randrange(2)}
        costs["duration"] = self.chance.randrange(10**6)
        turn = Turn(
            messages=[{"role": "user", "content": "?"}] * 2,
            tokens=costs["tokens"],
            duration=costs["duration"] / 10**6,
            round=costs["rounds"],
            token_id=token_id,
        )
        stored = await self.locked(id, lambda tx: tx.append_message(id, turn, **self.tenant))
        kind = "unpriced" if costs["tokens"] else "unmetered"
        without_cost = 1 if costs["tokens"] else costs["rounds"]
        self.record(stored, {**costs, kind: without_cost}, token_id=token_id)

    async def append_usages(self) -> None:
        id, usages = self.world.id(self.tenant_id), self.usages()
        acting = {"token_id": self.chance.choice(TOKENS), "user_id": self.chance.choice(ACTING)}
        message = {"role": "user", "content": "?"}
        turn = Turn(messages=[message], usage=usages, duration=0.25, round=1, **acting)
        stored = await self.locked(id, lambda tx: tx.append_message(id, turn, **self.tenant))
        self.record(stored, {"rounds": 1, "duration": 250_000}, model=usages[0].model, **acting)
        self.record_usages(stored, usages, **acting)

    async def record_usage(self) -> None:
        id, usages = self.world.id(self.tenant_id), self.usages()
        acting = {"token_id": self.chance.choice(TOKENS), "user_id": self.chance.choice(ACTING)}
        more = {"conversation_id": id, "idempotency_key": f"{self.chance.getrandbits(64)}"}

        async def record(conversations) -> None:
            for _ in range(2):  # the second call is a retry
                await conversations.record_usage(usages, **more, **acting, **self.tenant)

        self.record_usages(await self.locked(id, record), usages, **acting)

    async def adjust_usage(self) -> None:
        usage, rounds = random_usage(self.chance), self.chance.randrange(-2, 3)
        change = {name: -value for name, value in counters_of(usage).items()} | {"rounds": rounds}
        place = self.world.new_conversation()
        of = {name: place[name] for name in ("dialog_id", "source", "user_id")}
        adjustment = {name: value for name, value in change.items() if name != "tokens"}
        adjustment |= {"cost": -(usage.cost or Decimal(0)), "model": usage.model}
        await self.conversations.adjust_usage(
            adjustment, actor="a", reason="r", token_id="key", **of, **self.tenant
        )
        self.record(Conversation("", **of), change, token_id="key", model=usage.model)

    def usages(self) -> list[Usage]:
        return [random_usage(self.chance) for _ in range(self.chance.choice((1, 1, 3)))]

    def record_usages(
        self, stored: asyncsvc.Conversation, usages: list[Usage], **acting: object
    ) -> None:
        for usage in usages:
            self.record(stored, counters_of(usage), model=usage.model, **acting)

    async def set_feedback(self) -> None:
        id, thumb = self.world.id(self.tenant_id), self.chance.choice((1, -1, None))
        before, seq = None, None

        async def change(conversations) -> None:
            nonlocal before, seq
            messages = await conversations.messages(id, last=1, **self.tenant)
            if messages:
                before, seq = messages[0].thumb, messages[0].seq
                await conversations.set_feedback(id, seq, thumb, **self.tenant)

        stored = await self.locked(id, change)
        if seq is not None:
            up, down = (thumb == 1) - (before == 1), (thumb == -1) - (before == -1)
            self.record(stored, {"thumb_up": up, "thumb_down": down})

    async def locked(self, id: str, change: Callable) -> asyncsvc.Conversation:
        """Change a locked conversation; return it with the dialog and source that it had then."""
        async with self.world.svc.transaction() as tx:
            stored = await tx.conversations.update_by_id(id, {"name": "locked"}, **self.tenant)
            await change(tx.conversations)
        return stored

    def record(
        self, stored: asyncsvc.Conversation, counters: Mapping[str, int], **options: object
    ) -> None:
        self.world.committed.conversations.record_activity(
            self.tenant_id, stored, counters, **options
        )

    async def delete_messages(self) -> None:
        id = self.world.id(self.tenant_id)
        methods = (self.conversations.pop_message, self.conversations.clear_messages)
        await self.chance.choice(methods)(id, **self.tenant)

    async def move(self) -> None:
        patch = {
            "dialog_id": self.chance.choice(DIALOGS),
            "source": self.chance.choice(SOURCES),
            "user_id": self.chance.choice(USERS),
        }
        some = dict(self.chance.sample(sorted(patch.items()), self.chance.randint(1, 3)))
        await self.conversations.update_by_id(self.world.id(self.tenant_id), some, **self.tenant)

    async def delete(self) -> None:
        ids = self.world.ids[self.tenant_id]
        deleted = self.chance.sample(ids, min(len(ids), self.chance.choice((1, 2, 8))))
        await self.conversations.delete_by_ids(deleted, **self.tenant)
        for id in deleted:
            with contextlib.suppress(ValueError):  # another writer was faster
                ids.remove(id)

    async def import_(self) -> None:
        fields = self.world.new_conversation()
        messages = [{"role": "user", "content": "x", "thumb": 1}]
        record = fields | {"tokens": 5, "duration": 1.5, "round": 2, "messages": messages}
        report = await self.conversations.import_([record], **self.tenant)
        assert report.conversations == 1
        costs = {"tokens": 5, "duration": 1_500_000, "rounds": 2, "unpriced": 1}
        self.world.record_creation(self.tenant_id, fields, thumb_up=1, **costs)

    async def roll_back(self) -> None:
        fields = self.world.new_conversation()
        with contextlib.suppress(ZeroDivisionError):
            async with self.world.svc.transaction() as tx:
                await tx.conversations.create(**fields, **self.tenant)
                turn = Turn(messages=[{"role": "user", "content": "?"}], tokens=1_000)
                await tx.conversations.append_message(fields["id"], turn, **self.tenant)
                raise ZeroDivisionError

    async def erase(self) -> None:
        await self.conversations.erase_user("joe", **self.tenant)

    async def purge(self) -> None:
        before = self.world.instant() - 300 * DAY
        await self.conversations.purge(before, by="created_at", **self.tenant)


# ---------------------------------------------------------------- maintenance


async def maintain(world: World) -> None:
    """Run maintenance in a loop, on connections that `kill` terminates."""

    def count(report: MaintenanceReport) -> None:
        world.roll_ups += report.ledger_rows > 0

    async with asyncsvc.connect(
        f"{world.dsn}?application_name={MAINTENANCE}",
        max_size=2,
        settings=asyncsvc.Settings(usage_retention=10**9),
    ) as svc:
        while world.left > 0:
            with contextlib.suppress(Unavailable, DatabaseError):
                await svc.maintain(on_batch=count)
            await asyncio.sleep(0.01)


async def roll_up_without_commit(world: World) -> None:
    """Roll up in transactions that never commit, one for each 200 operations."""
    while world.left > 0:
        next_one = world.left - 200
        connection = await asyncpg.connect(world.dsn)
        try:
            await connection.transaction().start()
            usage = UsageRepository(world.svc.on(connection)._executor)
            await usage.roll_up(tenant_id=world.chance.choice(TENANTS))
            await asyncio.sleep(0.05)
        finally:
            connection.terminate()
        world.kills += 1
        while world.left > max(next_one, 0):
            await asyncio.sleep(0.01)


async def kill(world: World) -> None:
    """Terminate connections of maintenance, each time after a tenant was rolled up."""
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


def question(chance: random.Random) -> Row:
    interval = chance.choice(("day", "day", "week", "month", "hour"))
    since = chance.choice(MOMENTS) + timedelta(hours=chance.choice((-24, -1, 0, 0.5, 24)))
    days = {"hour": 3, "day": 60, "week": 200, "month": 700}[interval]
    return {
        "from_date": since,
        "to_date": since + chance.random() * days * DAY,
        "source": chance.choice((ANY, ANY, *SOURCES)),
        "basis": "creation",
        "interval": interval,
        "dialog_id": chance.choice((ANY, ANY, *DIALOGS)),
        "tz": chance.choice(ZONES),
        "fill": chance.random() < 1 / 4,
    }


@contextlib.asynccontextmanager
async def connected(world: World) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world.dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def check(
    world: World, connection: asyncpg.Connection, tenant_id: str, questions: list[Row]
) -> None:
    """Read statistics and totals, and count the conversations, in one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        model = await read_model(connection, tenant_id)
        conversations = world.svc.on(connection).conversations
        for each in questions:
            buckets = await conversations.stats(tenant_id=tenant_id, **each)
            expected = model.conversations.stats(tenant_id=tenant_id, **each)
            world.checks += 1
            if differences(expected, buckets):
                world.report(f"{tenant_id}: {each}")
        subjects = {
            "token_id": "key",
            "user_id": world.chance.choice(USERS),
            "dialog_id": world.chance.choice(DIALOGS),
        }
        services = world.svc.on(connection)
        for difference in await budget_differences(services, connection, tenant_id, **subjects):
            world.report(difference)
        for dialog_id in (ANY, *DIALOGS):
            query = {"tenant_id": tenant_id, "dialog_id": dialog_id}
            page = await conversations.get_list(**query, items_per_page=1)
            if page.total != len(model.conversations.get_list(**query)):
                world.report(f"{tenant_id}: total of {dialog_id}")


async def read_model(connection: asyncpg.Connection, tenant_id: str) -> Model:
    """Return a model with the conversations of the snapshot."""
    rows = await connection.fetch(
        "SELECT id, dialog_id, source, user_id, created_at, round, tokens,"
        " duration AS microseconds, thumb_up, thumb_down"
        " FROM asyncsvc.conversation WHERE tenant_id = $1",
        tenant_id,
    )
    model = Model()
    for row in map(dict, rows):
        thumbs = [1] * row.pop("thumb_up") + [-1] * row.pop("thumb_down")
        messages = dict(enumerate({"thumb": thumb} for thumb in thumbs))
        conversation = Conversation(**row, messages=messages)
        model.tenants[tenant_id].conversations[conversation.id] = conversation
    return model


async def check_often(world: World) -> None:
    async with connected(world) as connection:
        while world.left > 0:
            questions = [question(world.chance) for _ in range(6)]
            await check(world, connection, world.chance.choice(TENANTS), questions)


async def check_activity(world: World, tenant_id: str) -> None:
    """Assert that statistics by activity equal the committed activity in several zones."""
    filters = [
        {},
        {"dialog_id": "d1", "source": "web", "token_id": None},
        *({"dialog_id": each} for each in DIALOGS),
        *({"source": each} for each in SOURCES),
        *({"token_id": each} for each in TOKENS),
        *({"user_id": each} for each in USERS if each != "joe"),  # whom writers erase
    ]
    for tz in ("UTC", "Asia/Kathmandu", "Africa/Lagos"):  # the last one is not declared
        for interval in ("day", "month"):
            for each in filters:
                question = {
                    "tenant_id": tenant_id, "from_date": "2022-01-01", "to_date": "2027-12-31",
                    "basis": "activity", "interval": interval, "tz": tz, "fill": False, **each,
                }  # fmt: skip
                stored = totals(await world.svc.conversations.stats(**question))
                committed = totals(world.committed.conversations.stats(**question))
                world.checks += 1
                if stored != committed:
                    world.report(f"{tenant_id}: {question}: {stored}, but {committed}")
    activity = world.committed.tenants[tenant_id].activity
    for tz in ZONES:
        for each in await group_differences(world.svc, tenant_id, activity, tz, erased="joe"):
            world.report(each)


async def run(dsn: str, operations: int, seed: int) -> World:
    # A declaration waits for the recount of another one, which may take long on a busy machine.
    settings = asyncsvc.Settings(lock_timeout=300, usage_retention=10**9)
    async with asyncsvc.connect(dsn, max_size=24, settings=settings) as svc:
        world = World(svc, dsn, random.Random(seed), operations)
        for tenant_id in TENANTS:
            for tz in DECLARED:
                await svc.conversations.declare_zone(tenant_id=tenant_id, tz=tz)
            await set_budgets(svc, tenant_id)
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(Writer(world, number).work())
            for work in (
                maintain, maintain, roll_up_without_commit, kill, declare, check_often, check_often
            ):  # fmt: skip
                group.create_task(work(world))
        questions = [
            {"from_date": "2023-06-01", "to_date": "2026-03-31", "source": source,
             "basis": "creation", "interval": interval, "dialog_id": dialog_id, "tz": tz}
            for source in (ANY, None, "web") for dialog_id in (ANY, "d1")
            for interval in ("day", "week", "month") for tz in ZONES
        ]  # fmt: skip
        # First with ledger rows that are not rolled up, then without.
        async with connected(world) as connection:
            for _ in range(0 if world.wrong else 2):
                for tenant_id in TENANTS:
                    await check(world, connection, tenant_id, questions)
                    await check_activity(world, tenant_id)
                await svc.maintain()
    return world


async def test_statistics_equal_a_recount_during_changes_and_roll_ups(dsn, monkeypatch):
    monkeypatch.setattr(conversation_import, "_FAST_LEDGER", 1)  # each import rolls up
    monkeypatch.setattr(usage_service, "_MIN_RECOUNT", 1)  # some roll-ups are recounts
    world = await run(dsn, OPERATIONS, seed=1)
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
    "a roll-up ignores the change when it looks for other rows of a user": (
        "usage/roll_up", (("           OFFSET greatest(u.conversations, 0))", "           )"),)
    ),
    "a roll-up replaces the usage of a budget": (
        "usage/roll_up", (("SET used = u.used + excluded.used", "SET used = excluded.used"),)
    ),
    "a roll-up counts all usage as that of no model": (
        "usage/roll_up",
        (("d.user_id) AS user_id, d.model,", "d.user_id) AS user_id, NULL AS model,"),
         ("d.user_id),\n              d.model,", "d.user_id),\n              ")),
    ),
    "statistics ignore a change when they look for other rows of a user": (
        "usage/creation_stats",
        (("           OFFSET greatest(u.conversations, 0))", "           )"),),
    ),
    "statistics do not read the ledger": (
        "usage/creation_stats",
        (("     WHERE u.tenant_id = :tenant_id\n       AND u.dialog_id",
          "     WHERE u.tenant_id = :tenant_id AND false\n       AND u.dialog_id"),),
    ),
    "a total does not read the ledger": (
        "conversation/get_list", (("AND u.dialog_id = :dialog_id ",
                                   "AND u.dialog_id = :dialog_id AND false "),)
    ),
    "a deletion records counters that it read before its lock": (
        "conversation/delete",
        (("               FOR UPDATE\n               SKIP LOCKED", "               -- SKIP LOCKED"),
         ("c.source, c.user_id, c.created_at, c.round, c.tokens,\n",
          "l.source, l.user_id, l.created_at, l.round, l.tokens,\n"),
         ("c.duration, c.thumb_up, c.thumb_down, l.m", "l.duration, l.thumb_up, l.thumb_down, l.m"),
         ("MATERIALIZED (\n    SELECT ", f"MATERIALIZED (\n    SELECT {COUNTERS}, "),
         ("LATERAL (\n            SELECT ", f"LATERAL (\n            SELECT {COUNTERS}, ")),
    ),
    "a move records counters that it read before its lock": (
        "conversation/update_many_by_id", (("               FOR NO KEY UPDATE\n", ""),)
    ),
}  # fmt: skip


@pytest.mark.damages
@pytest.mark.parametrize("name", MUTATIONS)
async def test_the_test_detects_a_statement_without_a_necessary_part(
    database_factory, monkeypatch, name
):
    """The test above fails if a necessary part of a statement is removed."""
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
