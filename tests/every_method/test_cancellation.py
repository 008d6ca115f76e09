"""Every public write is cancelled at every await; see `cancelling`.

Each trial has a tenant of its own. Afterwards the state of the tenant equals the state before the
call or the state after a call that is not cancelled. Then the call is repeated and must lead to the
latter. No connection is lost and no transaction stays open.
"""

import asyncio
import contextlib
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

import asyncsvc
from asyncsvc import API4ConversationService, APITokenService, AsyncSvc, Services, Settings
from asyncsvc.database import finish_despite_cancellation
from asyncsvc.services import conversation_import, retention, token_import
from asyncsvc.services.credentials import new_secret
from tests.conftest import contradictions
from tests.support.cancelling import Moment, Outcome, at_each_await, cancelled_at, interrupted_at

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TURN = {
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "tokens": 3,
    "duration": 0.5,
}
POOL_SIZE = 2


@dataclass
class World:
    """A tenant with rows of every kind."""

    tenant_id: str
    token: str
    secret: str
    new_secrets: list[str]


Call = Callable[[Services, World], Coroutine[Any, Any, object]]


@dataclass(frozen=True)
class Write:
    """A call that writes."""

    call: Call
    is_repeatable: bool = True
    """A second call changes nothing, or is rejected."""
    has_batches: bool = False
    """Each batch is a commit, so a part of the write may be applied."""


def conversations(
    method: str,
    *args: object,
    is_repeatable: bool = True,
    has_batches: bool = False,
    **more: object,
) -> Write:
    return Write(
        lambda svc, world: getattr(svc.conversations, method)(
            *args, tenant_id=world.tenant_id, **more
        ),
        is_repeatable=is_repeatable,
        has_batches=has_batches,
    )


def token(method: str, *args: object, is_repeatable: bool = True, **more: object) -> Write:
    """Return a write of the token of the world."""
    return Write(
        lambda svc, world: getattr(svc.tokens, method)(
            world.token, *args, tenant_id=world.tenant_id, actor="me", **more
        ),
        is_repeatable=is_repeatable,
    )


def records(*ids: str) -> list[dict[str, object]]:
    return [
        {"id": id, "dialog_id": "d", "messages": TURN["messages"], "tokens": 1, "user_id": "u"}
        for id in ids
    ]


WRITES: dict[type, dict[str, list[Write]]] = {
    API4ConversationService: {
        "create": [conversations("create", id="new", dialog_id="d")],
        "create_many": [
            conversations("create_many", [{"id": id, "dialog_id": "d"} for id in ("a", "y", "z")])
        ],
        "append_message": [
            conversations("append_message", "a", TURN, is_repeatable=False),
            conversations("append_message", "a", TURN, idempotency_key="k"),
            conversations("append_message", "a", TURN, expected_seq=2, idempotency_key="k"),
        ],
        "update_by_id": [conversations("update_by_id", "a", {"name": "new", "dsl": None})],
        "update_many_by_id": [
            conversations("update_many_by_id", {"a": {"name": "x"}, "b": {"user_id": "v"}})
        ],
        "set_feedback": [conversations("set_feedback", "a", 2, -1)],
        "update_message": [conversations("update_message", "a", 1, {"content": "new"})],
        "delete_message": [conversations("delete_message", "a", 2)],
        "pop_message": [conversations("pop_message", "a", is_repeatable=False)],
        "clear_messages": [conversations("clear_messages", "a")],
        "delete_by_id": [conversations("delete_by_id", "a")],
        "delete_by_ids": [conversations("delete_by_ids", ["a", "c"])],
        "delete_by_dialog_ids": [
            conversations("delete_by_dialog_ids", ["d", "e"], has_batches=True)
        ],
        "erase_user": [conversations("erase_user", "u", has_batches=True)],
        "delete_tenant": [conversations("delete_tenant", has_batches=True)],
        "purge": [conversations("purge", timedelta(days=1), has_batches=True)],
        "import_": [
            conversations("import_", records("a", "w", "x", "y", "z")[1:], has_batches=True)
        ],
        "declare_zone": [
            Write(
                lambda svc, world: svc.conversations.declare_zone(
                    tenant_id=world.tenant_id, tz="Asia/Tokyo"
                )
            )
        ],
        "recount_usage": [
            Write(lambda svc, world: svc.conversations.recount_usage(tenant_id=world.tenant_id))
        ],
    },
    APITokenService: {
        "create": [
            Write(
                lambda svc, world: svc.tokens.create(tenant_id=world.tenant_id, name="new"),
                is_repeatable=False,
            )
        ],
        "import_": [
            Write(
                lambda svc, world: svc.tokens.import_(
                    [{"secret": each, "name": each[-4:]} for each in world.new_secrets],
                    tenant_id=world.tenant_id,
                ),
                has_batches=True,
            )
        ],
        "verify": [Write(lambda svc, world: svc.tokens.verify(world.secret))],
        "used": [Write(lambda svc, world: svc.tokens.used(world.secret))],
        "update_by_id": [token("update_by_id", {"scopes": ["new"]}, is_repeatable=False)],
        "rotate": [token("rotate", overlap=timedelta(hours=1))],
        "revoke": [token("revoke", reason="lost")],
        "revoke_family": [token("revoke_family", reason="lost")],
        "revoke_all": [Write(lambda svc, world: svc.tokens.revoke_all(tenant_id=world.tenant_id))],
        "delete_by_tenant_id": [
            Write(lambda svc, world: svc.tokens.delete_by_tenant_id(tenant_id=world.tenant_id))
        ],
    },
}
# Reads leave nothing behind.
READS = {
    API4ConversationService: {
        *("get_list", "search", "get_by_id", "get_by_ids", "get_names", "messages", "stats"),
    },
    APITokenService: {"get_list", "get_by_id", "audit"},
}
CASES = [
    pytest.param(write, id=f"{service.__name__}.{method}-{number}")
    for service, methods in WRITES.items()
    for method, writes in methods.items()
    for number, write in enumerate(writes)
]
APPENDS = [
    pytest.param(write, id=name)
    for write, name in zip(
        WRITES[API4ConversationService]["append_message"],
        ("without a key", "keyed", "keyed and expected"),
        strict=True,
    )
]


@pytest.mark.parametrize("service", WRITES)
def test_every_public_method_is_listed_as_a_write_or_a_read(service):
    public = {
        name
        for name, _ in inspect.getmembers(service, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert public == WRITES[service].keys() | READS[service]
    assert not WRITES[service].keys() & READS[service]


# ---------------------------------------------------------------- trials


# The state of a tenant, without the values that differ between tenants and runs. Ledger rows are
# summed, since a batch that is stored in 2 parts has 2 of them.
STATE = """
    SELECT 'conversation ' || c.id AS thing,
           (to_jsonb(c) - '{tenant_id,created_at,updated_at}'::text[] || jsonb_build_object(
               'touched', c.updated_at > c.created_at,
               'messages', array(SELECT to_jsonb(m)
                                          - '{tenant_id,created_at,conversation_created_at}'::text[]
                                   FROM asyncsvc.message AS m
                                  WHERE m.tenant_id = $1 AND m.conversation_id = c.id
                                  ORDER BY m.seq),
               'keys', array(SELECT to_jsonb(k) - '{tenant_id,created_at}'::text[]
                               FROM asyncsvc.append_key AS k
                              WHERE k.tenant_id = $1 AND k.conversation_id = c.id
                              ORDER BY k.key)))::text AS state
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = $1
     UNION ALL
    SELECT 'token ' || t.name || ' '
           || row_number() OVER (PARTITION BY t.name ORDER BY t.created_at, t.id),
           (to_jsonb(t) - '{id,tenant_id,token_hash,hint,created_at,revoked_at,last_used_at,
                            rotated_from}'::text[]
            || jsonb_build_object('revoked', t.revoked_at <= statement_timestamp(),
                                  'used', t.last_used_at IS NOT NULL))::text
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = $1
     UNION ALL
    SELECT 'usage', jsonb_agg(u ORDER BY u::text)::text
      FROM (SELECT u.dialog_id, u.source, u.token_id, sum(u.pv) AS pv, sum(u.tokens) AS tokens,
                   sum(u.duration) AS duration, sum(u.rounds) AS rounds,
                   sum(u.thumb_up) AS thumb_up, sum(u.thumb_down) AS thumb_down
              FROM (SELECT u.dialog_id, u.source, u.token_id, u.pv, u.tokens, u.duration,
                           u.rounds, u.thumb_up, u.thumb_down
                      FROM asyncsvc.usage_ledger AS u
                     WHERE u.tenant_id = $1 AND u.quarter_hour IS NOT NULL
                     UNION ALL
                    SELECT q.dialog_id, q.source, q.token_id, q.pv, q.tokens, q.duration,
                           q.rounds, q.thumb_up, q.thumb_down
                      FROM asyncsvc.usage_quarter_hour AS q
                     WHERE q.tenant_id = $1) AS u
             GROUP BY 1, 2, 3) AS u
     UNION ALL
    SELECT 'bucket ' || b.zone || ' ' || b.basis || ' ' || b.grain || ' ' || b.dialog_key || ' '
           || b.source_key || ' ' || b.bucket,
           (to_jsonb(b) - 'tenant_id')::text
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = $1
     UNION ALL
    SELECT 'audit', jsonb_agg(a ORDER BY a::text)::text
      FROM (SELECT a.action, a.actor,
                   a.detail - '{successor,ends_at,rotated_from,family_of}'::text[] AS detail
              FROM asyncsvc.token_audit AS a
             WHERE a.tenant_id = $1) AS a
"""
UNFINISHED = """
    SELECT (SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type = 'client backend' AND state IS DISTINCT FROM 'idle')
         + (SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
             WHERE d.datname = current_database() AND l.locktype = 'advisory')
"""
SETTINGS = Settings(accept_foreign_tokens=True)


class Trials:
    """Creates tenants, and reads their state over a connection outside of the pool."""

    def __init__(self, svc: AsyncSvc, observer: asyncpg.Connection) -> None:
        self.svc = svc
        self.observer = observer
        self._tenants = 0

    async def world(self) -> World:
        """Create a tenant, equal to all others."""
        self._tenants += 1
        tenant_id = f"tenant {self._tenants}"
        old = {"created_at": LONG_AGO, "user_id": "u"}
        await self.svc.conversations.import_(
            [
                *({**record, **old} for record in records("a", "b", "c")),
                {**records("other")[0], "dialog_id": "e", "updated_at": LONG_AGO, **old},
                {**records("young")[0], "dialog_id": "f", "exp_user_id": "u"},
            ],
            tenant_id=tenant_id,
        )
        await self.svc.conversations.set_feedback("a", 2, 1, tenant_id=tenant_id)
        first = await self.svc.tokens.create(tenant_id=tenant_id, name="rotated")
        issued = await self.svc.tokens.rotate(
            first.token.id, tenant_id=tenant_id, overlap=timedelta(hours=1)
        )
        secrets = [new_secret("asv") for _ in range(3)]
        return World(tenant_id, issued.token.id, issued.secret.get_secret_value(), secrets)

    async def state(self, world: World) -> dict[str, object]:
        rows = await self.observer.fetch(STATE, world.tenant_id)
        state = {row["thing"]: json.loads(row["state"] or "null") for row in rows}
        assert len(state) == len(rows)
        # Generated secrets, by their index.
        names = {each[-4:]: number for number, each in enumerate(world.new_secrets)}
        text = json.dumps(state)
        for name, number in names.items():
            text = text.replace(f'"{name}"', f'"new {number}"').replace(
                f"token {name}", f"token new {number}"
            )
        state = json.loads(text)
        (state["audit"] or []).sort(key=json.dumps)
        return state

    async def settle(self) -> None:
        """Wait until the server has finished all statements."""
        async with asyncio.timeout(20):
            while await self.observer.fetchval(UNFINISHED):
                await asyncio.sleep(0.005)

    async def assert_consistent(self) -> None:
        """Assert that nothing is open, no connection is lost and no row contradicts another."""
        pool = self.svc._executor._pool
        async with asyncio.timeout(20):  # until the last connection is released
            while pool.get_idle_size() < pool.get_size():
                await asyncio.sleep(0.005)
        await self.settle()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(pool.get_max_size()):
                lent = await stack.enter_async_context(pool.acquire(timeout=20))
                assert not lent.is_in_transaction()
        assert await contradictions(self.observer) == []


@asynccontextmanager
async def trials_on(dsn: str, **options: int) -> AsyncIterator[Trials]:
    observer = await asyncpg.connect(dsn)
    try:
        async with asyncsvc.connect(dsn, settings=SETTINGS, **options) as svc:
            yield Trials(svc, observer)
    finally:
        await observer.close()


@pytest.fixture
async def trials(dsn: str) -> AsyncIterator[Trials]:
    async with trials_on(dsn, min_size=1, max_size=POOL_SIZE) as trials:
        yield trials


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few rows form several batches."""
    monkeypatch.setattr(retention, "_BATCH_SIZE", 2)
    monkeypatch.setattr(retention, "_DIALOG_BATCH_SIZE", 2)
    monkeypatch.setattr(conversation_import, "_MAX_MESSAGES", 5)
    monkeypatch.setattr(token_import, "_BATCH_SIZE", 2)


def assert_all_or_none(write: Write, before: dict, after: dict, left: dict) -> None:
    if not write.has_batches:
        assert left in (before, after)
        return
    # Each conversation and token is unchanged or complete; sums are in between.
    for thing in before.keys() | after.keys() | left.keys():
        if thing.startswith(("conversation ", "token ")):
            assert left.get(thing) in (before.get(thing), after.get(thing)), thing


async def assert_repeatable(trials: Trials, write: Write, world: World, after: dict) -> None:
    """Repeat the call and compare the state with that after a call that was not cancelled."""
    if write.is_repeatable or await trials.state(world) != after:
        with contextlib.suppress(asyncsvc.AlreadyExists, asyncsvc.Conflict):
            await write.call(trials.svc, world)
    assert await trials.state(world) == after


Place = Callable[[Trials], AbstractAsyncContextManager[Services]]


async def cancel_everywhere(
    trials: Trials,
    write: Write,
    run: Callable[[World, int, Moment], Coroutine[Any, Any, Outcome]],
) -> dict[Moment, int]:
    """Run the write in a world of its own for each of its awaits, and check each."""
    untouched = await trials.world()
    before = await trials.state(untouched)
    await write.call(trials.svc, untouched)
    after = await trials.state(untouched)
    assert before != after

    async def trial(at: int, moment: Moment) -> Outcome:
        world = await trials.world()
        outcome = await run(world, at, moment)
        await trials.assert_consistent()
        if outcome.was_reached:
            assert isinstance(outcome.error, asyncio.CancelledError), (at, moment, outcome)
            assert_all_or_none(write, before, after, await trials.state(world))
        else:
            assert outcome.error is None
            assert await trials.state(world) == after
        await assert_repeatable(trials, write, world, after)
        return outcome

    return await at_each_await(trial)


# ---------------------------------------------------------------- finish_despite_cancellation


async def test_work_finishes_however_often_its_task_is_cancelled():
    finish, finished, cancellations = asyncio.Event(), [], []

    async def work() -> None:
        await finish.wait()
        finished.append(True)

    task = asyncio.create_task(
        finish_despite_cancellation(work(), on_cancel=lambda: cancellations.append(True))
    )
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    finish.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(finished), len(cancellations)) == (1, 3)


async def test_work_that_is_not_cancelled_returns_its_result_or_raises_its_error():
    assert await finish_despite_cancellation(asyncio.sleep(0, "result")) == "result"

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish_despite_cancellation(fail())


async def test_an_error_of_cancelled_work_is_the_cause_of_the_cancellation():
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    async def run() -> BaseException | None:
        try:
            await finish_despite_cancellation(fail())
        except asyncio.CancelledError as error:
            return error.__cause__
        return None

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    assert isinstance(await task, ZeroDivisionError)


# ---------------------------------------------------------------- tests


@pytest.mark.parametrize("write", CASES)
async def test_a_write_cancelled_at_any_await_is_applied_completely_or_not_at_all(
    trials, write, record_property
):
    awaits = await cancel_everywhere(
        trials,
        write,
        lambda world, at, moment: cancelled_at(write.call(trials.svc, world), at, moment),
    )
    record_property("awaits", awaits)
    assert min(awaits.values()) >= 2  # the reply, and the release of the connection


@pytest.mark.parametrize("write", [case for case in CASES if not case.values[0].has_batches])
async def test_a_write_cancelled_on_a_new_connection_is_applied_completely_or_not_at_all(
    trials, write, record_property
):
    """This includes the opening, and the moment between the 2 parts of a new statement."""

    async def run(world: World, at: int, moment: Moment) -> Outcome:
        await trials.svc._executor._pool.expire_connections()
        return await cancelled_at(write.call(trials.svc, world), at, moment)

    awaits = await cancel_everywhere(trials, write, run)
    record_property("awaits", awaits)
    assert min(awaits.values()) >= 5


@pytest.mark.parametrize("write", CASES)
async def test_a_transaction_cancelled_at_any_await_is_applied_completely_or_not_at_all(
    trials, write, record_property
):
    """The awaits are those of BEGIN, of the write, and of COMMIT or ROLLBACK."""

    async def transaction(world: World) -> None:
        async with trials.svc.transaction() as tx:
            await write.call(tx, world)

    all_or_none = Write(write.call, is_repeatable=write.is_repeatable)
    awaits = await cancel_everywhere(
        trials, all_or_none, lambda world, at, moment: cancelled_at(transaction(world), at, moment)
    )
    record_property("awaits", awaits)
    assert min(awaits.values()) >= 4


@pytest.mark.parametrize("write", APPENDS)
async def test_an_append_cancelled_at_any_await_leaves_the_callers_connection_usable(trials, write):
    """Without a transaction of the caller. A connection that was lost is closed."""

    async def run(world: World, at: int, moment: Moment) -> Outcome:
        async with trials.svc._executor._pool.acquire(timeout=20) as lent:
            on = trials.svc.on(lent)
            outcome = await cancelled_at(write.call(on, world), at, moment)
            if not lent.is_closed():
                await on.conversations.get_by_id("a", tenant_id=world.tenant_id)
        return outcome

    await cancel_everywhere(trials, write, run)


@pytest.mark.parametrize("write", APPENDS)
async def test_a_cancelled_append_in_a_callers_transaction_is_rolled_back_with_it(trials, write):
    async def run(world: World, at: int, moment: Moment) -> Outcome:
        async with trials.svc._executor._pool.acquire(timeout=20) as lent:
            transaction = lent.transaction()
            await transaction.start()
            outcome = await cancelled_at(write.call(trials.svc.on(lent), world), at, moment)
            if not outcome.was_reached:
                await transaction.commit()
            elif not lent.is_closed():
                await transaction.rollback()
                # The key is unused, too.
                left = await trials.state(world)
                assert left["conversation a"]["last_seq"] == 2
        return outcome

    await cancel_everywhere(trials, write, run)


@pytest.mark.parametrize("write", APPENDS)
async def test_a_cancelled_savepoint_leaves_the_callers_transaction_usable(trials, write):
    """The caller's own writes before and after it are committed."""

    async def savepoint(on: Services, world: World) -> None:
        async with on.transaction() as inner:
            await write.call(inner, world)

    async def run(world: World, at: int, moment: Moment) -> Outcome:
        async with trials.svc._executor._pool.acquire(timeout=20) as lent:
            on = trials.svc.on(lent)
            async with lent.transaction():
                for id in ("b", "c"):
                    if id == "c":
                        outcome = await cancelled_at(savepoint(on, world), at, moment)
                    await on.conversations.append_message(id, TURN, tenant_id=world.tenant_id)
        left = await trials.state(world)
        assert [left[f"conversation {id}"]["last_seq"] for id in "bc"] == [4, 4]
        for id in "bc":
            await remove_turn(trials, world, id)
        return outcome

    await cancel_everywhere(trials, write, run)


async def remove_turn(trials: Trials, world: World, id: str) -> None:
    """Remove the caller's own turn, so that the rest can be compared."""
    await trials.observer.execute(
        "DELETE FROM asyncsvc.message WHERE tenant_id = $1 AND conversation_id = $2 AND seq > 2",
        world.tenant_id,
        id,
    )
    await trials.observer.execute(
        "UPDATE asyncsvc.conversation SET last_seq = 2, round = round - 1, tokens = tokens - 3,"
        " duration = duration - 500000, updated_at = created_at"
        " WHERE tenant_id = $1 AND id = $2",
        world.tenant_id,
        id,
    )
    await trials.observer.execute(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, source, user_id, created_at,"
        " quarter_hour, tokens, duration, rounds)"
        " SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, '2020-01-01Z',"
        " -3, -500000, -1 FROM asyncsvc.conversation AS c WHERE tenant_id = $1 AND id = $2",
        world.tenant_id,
        id,
    )
    await trials.observer.execute(
        "UPDATE asyncsvc.conversation_recency AS r SET updated_at = c.updated_at"
        " FROM asyncsvc.conversation AS c"
        " WHERE c.tenant_id = $1 AND c.id = $2 AND r.tenant_id = $1 AND r.id = $2",
        world.tenant_id,
        id,
    )


async def test_a_connection_lost_at_any_await_raises_nothing_but_unavailable(trials):
    """This includes its release, where asyncpg raises an internal error."""
    pool = trials.svc._executor._pool

    async def lose() -> None:
        for holder in pool._holders:
            if holder._con is not None:
                holder._con.terminate()

    for write in (case.values[0] for case in APPENDS):
        world = await trials.world()
        for at in itertools.count(1):
            outcome = await interrupted_at(write.call(trials.svc, world), at, lose)
            assert outcome.error is None or isinstance(outcome.error, asyncsvc.Unavailable), at
            await trials.assert_consistent()
            if not outcome.was_reached:
                break
