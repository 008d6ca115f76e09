"""The server's clock decides: a client whose clock is a day off gets the same results.

`models/test_statistics.py` and `models/test_lists.py` test days and zones across clock changes.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import time_machine

import asyncsvc
from asyncsvc import AsyncSvc, InvalidToken, Settings

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TURN = {"messages": [{"role": "user", "content": "hello"}], "tokens": 7}


class ServerClock:
    """The server's clock, independent of the clock of this process."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._last: datetime | None = None

    async def now(self) -> datetime:
        self._last = await self._connection.fetchval("SELECT clock_timestamp()")
        return self._last

    async def assert_since_last(self, *instants: datetime) -> None:
        """Assert that each instant is between the previous reading of the clock and now."""
        since, until = self._last, await self.now()
        for instant in instants:
            assert since <= instant <= until


@pytest.fixture(params=[-DAY, 0 * DAY, DAY], ids=["a day behind", "right", "a day ahead"])
async def server(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[ServerClock]:
    """The server's clock. The clock of this process differs from it by the parameter."""
    connection = await asyncpg.connect(dsn)
    with time_machine.travel(datetime.now(UTC) + request.param, tick=True):
        clock = ServerClock(connection)
        off = datetime.now(UTC) - await clock.now()
        assert abs(off - request.param) < HOUR  # the fixture has an effect
        yield clock
    await connection.close()


@pytest.fixture
async def svc(server: ServerClock, dsn: str) -> AsyncIterator[AsyncSvc]:
    async with asyncsvc.connect(dsn) as service:
        yield service


async def test_writes_have_the_time_of_the_server(server, svc):
    created = await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    await server.assert_since_last(created.created_at, created.updated_at)
    await svc.conversations.import_([{"id": "b", "dialog_id": "d", **TURN}], tenant_id="t")
    imported = await svc.conversations.get_by_id("b", tenant_id="t", include_messages=True)
    await server.assert_since_last(
        imported.created_at, imported.updated_at, imported.messages[0].created_at
    )
    for key in (None, "k"):
        await svc.conversations.append_message("a", TURN, tenant_id="t", idempotency_key=key)
        appended = await svc.conversations.get_by_id("a", tenant_id="t", include_messages=True)
        await server.assert_since_last(appended.updated_at, appended.messages[-1].created_at)
    for patch in ({"name": "n"}, {}):
        patched = await svc.conversations.update_by_id("a", patch, tenant_id="t")
        await server.assert_since_last(patched.updated_at)
    await svc.conversations.pop_message("a", tenant_id="t")
    popped = await svc.conversations.get_by_id("a", tenant_id="t")
    await server.assert_since_last(popped.updated_at)
    receipt = await svc.conversations.erase_user("nobody", tenant_id="t")
    await server.assert_since_last(receipt.erased_at)


async def test_a_token_expires_by_the_clock_of_the_server(server, svc):
    now = await server.now()
    soon = await svc.tokens.create(tenant_id="t", name="soon", expires_at=now + HOUR)
    await server.assert_since_last(soon.token.created_at)
    assert (await svc.tokens.verify(soon.secret)).status == "active"
    late = await svc.tokens.create(tenant_id="t", name="late", expires_at=now - HOUR)
    assert late.token.status == "expired"
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(late.secret)
    listed = (await svc.tokens.get_list(tenant_id="t")).items
    assert [(token.name, token.status) for token in listed] == [
        ("late", "expired"),
        ("soon", "active"),
    ]


async def test_last_used_at_and_its_resolution_follow_the_server(server, svc, dsn):
    issued = await svc.tokens.create(tenant_id="t", name="n")
    await server.now()
    await svc.tokens.verify(issued.secret)
    stamp = (await svc.tokens.get_by_id(issued.token.id, tenant_id="t")).last_used_at
    await server.assert_since_last(stamp)
    await svc.tokens.verify(issued.secret)  # not a minute later
    assert (await svc.tokens.get_by_id(issued.token.id, tenant_id="t")).last_used_at == stamp
    async with asyncsvc.connect(dsn, settings=Settings(last_used_resolution=0)) as eager:
        await eager.tokens.verify(issued.secret)
    again = (await svc.tokens.get_by_id(issued.token.id, tenant_id="t")).last_used_at
    await server.assert_since_last(again)
    assert again > stamp


async def test_the_overlap_of_a_rotation_follows_the_server(server, svc):
    issued = await svc.tokens.create(tenant_id="t", name="n")
    await server.now()
    await svc.tokens.rotate(issued.token.id, tenant_id="t", overlap=HOUR)
    old = await svc.tokens.verify(issued.secret)
    assert old.status == "retiring"
    await server.assert_since_last(old.revoked_at - HOUR)
    ended = await svc.tokens.revoke(issued.token.id, tenant_id="t")
    await server.assert_since_last(ended.revoked_at)
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(issued.secret)


async def test_a_purge_by_age_counts_from_the_time_of_the_server(server, svc):
    now = await server.now()
    records = [
        {"id": id, "dialog_id": "d", "messages": [], "created_at": at, "updated_at": at}
        for id, at in (("old", now - 13 * HOUR), ("young", now - 11 * HOUR), ("new", now))
    ]
    await svc.conversations.import_(records, tenant_id="t")
    report = await svc.conversations.purge(timedelta(hours=12), tenant_id="t")
    assert report.conversations == 1
    await server.assert_since_last(report.before + timedelta(hours=12))
    left = await svc.conversations.get_by_ids(["old", "young", "new"], tenant_id="t")
    assert {each.id for each in left} == {"young", "new"}


async def test_usage_is_recorded_at_the_time_of_the_server(server, svc):
    since = await server.now()
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    await svc.conversations.append_message("a", TURN, tenant_id="t")
    await svc.conversations.set_feedback("a", 1, 1, tenant_id="t")
    until = await server.now()
    for basis in ("creation", "activity"):
        for start, end, expected in (
            (since, until, (1, 7, 1)),
            (since - DAY, since - HOUR, (0, 0, 0)),
            (until + HOUR, until + DAY, (0, 0, 0)),
        ):
            buckets = await svc.conversations.stats(
                tenant_id="t", from_date=start, to_date=end, basis=basis, interval="hour"
            )
            counted = [(bucket.conversations, bucket.tokens, bucket.thumb_up) for bucket in buckets]
            assert tuple(map(sum, zip(*counted, strict=True))) == expected, (basis, start)


async def test_lists_compare_bounds_with_the_times_of_the_server(server, svc):
    since = await server.now()
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    until = await server.now()
    for orderby in ("created_at", "updated_at"):
        for from_date, to_date, expected in (
            (since, until, ["a"]),
            (since - DAY, since - HOUR, []),
            (until + HOUR, until + DAY, []),
        ):
            page = await svc.conversations.get_list(
                dialog_id="d", tenant_id="t", orderby=orderby, from_date=from_date, to_date=to_date
            )
            assert [each.id for each in page.items] == expected


async def test_unused_tokens_are_determined_by_the_server(server, svc):
    await svc.tokens.create(tenant_id="t", name="unused")
    since = await server.now()
    kept = await svc.tokens.create(tenant_id="t", name="new")
    assert await svc.tokens.revoke_all(tenant_id="t", unused_since=since) == 1
    assert (await svc.tokens.verify(kept.secret)).status == "active"
    audit = (await svc.tokens.audit(tenant_id="t")).items
    await server.assert_since_last(*(event.at for event in audit if event.action == "revoke"))
