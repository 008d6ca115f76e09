"""Tasks that compare statistics with a recount."""

import contextlib
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg

from asyncsvc import ANY
from tests.models.clocks import DAY
from tests.models.comparison import differences, totals
from tests.models.model import Model
from tests.models.state import Conversation, Row
from tests.support.usage import budget_differences, group_differences
from tests.support.usage_run.world import (
    DIALOGS,
    MOMENTS,
    SOURCES,
    TENANTS,
    TOKENS,
    USERS,
    ZONES,
    World,
)


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
