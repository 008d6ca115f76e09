"""Every public write is cancelled at every await; see `cancelling`.

Each trial has a tenant of its own. Afterwards the state of the tenant equals the state before the
call or the state after a call that is not cancelled. Then the call is repeated and must lead to the
latter. No connection is lost and no transaction stays open.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from _pytest.mark import ParameterSet

import asyncsvc
from asyncsvc import AsyncSvc, Services, Settings
from asyncsvc.cancellation import finish_despite_cancellation
from asyncsvc.services import conversation_import, erasure, retention, token_import
from asyncsvc.services.credentials import new_secret
from tests.conftest import contradictions
from tests.support.cancelling import Moment, Outcome, at_each_await, cancelled_at, interrupted_at
from tests.support.registry import BY_NAME, SERVICE_METHODS, Method, Tenant
from tests.support.registry.method import Write

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TURN = {
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "tokens": 3,
    "duration": 0.5,
}
POOL_SIZE = 2


@dataclass(frozen=True)
class Cancelled:
    """A call of the registry that is cancelled at each of its awaits."""

    method: Method
    write: Write
    commits_batches: bool
    """Each batch is a commit, so a part of the write may be applied."""

    async def run(self, svc: Services, tenant: Tenant) -> object:
        return await self.method.run(svc, self.method.arguments(tenant) | self.write.changes)


def cases(*methods: Method) -> list[ParameterSet]:
    return [
        pytest.param(Cancelled(method, write, method.has_batches), id=f"{method}-{number}")
        for method in methods
        for number, write in enumerate(method.cancelled)
    ]


WRITES = cases(*(method for method in SERVICE_METHODS if method.writes))
IN_TRANSACTIONS = [case for case in WRITES if case.id != "conversations.watch-0"]
"""A watch reads committed rows, so a transaction has no watch."""
ATOMIC = [case for case in WRITES if not case.values[0].commits_batches]
APPENDS = cases(BY_NAME["conversations.append_message"])


def records(*ids: str) -> list[dict[str, object]]:
    return [
        {"id": id, "dialog_id": "d", "messages": TURN["messages"], "tokens": 1, "user_id": "u"}
        for id in ids
    ]


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
    SELECT 'record ' || r.kind || ' ' || r.id,
           (to_jsonb(r) - '{tenant_id,created_at,updated_at}'::text[])::text
      FROM asyncsvc.record AS r
     WHERE r.tenant_id = $1
     UNION ALL
    SELECT 'token ' || t.name || ' '
           || row_number() OVER (PARTITION BY t.name ORDER BY t.created_at, t.id),
           (to_jsonb(t) - '{id,tenant_id,token_hash,hint,created_at,revoked_at,last_used_at,
                            rotated_from,family_id}'::text[]
            || jsonb_build_object('revoked', t.revoked_at <= statement_timestamp(),
                                  'used', t.last_used_at IS NOT NULL))::text
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = $1
     UNION ALL
    SELECT 'usage', jsonb_agg(u ORDER BY u::text)::text
      FROM (SELECT u.dialog_id, u.source, u.token_id, sum(u.conversations) AS conversations,
                   sum(u.tokens) AS tokens, sum(u.duration) AS duration, sum(u.rounds) AS rounds,
                   sum(u.thumb_up) AS thumb_up, sum(u.thumb_down) AS thumb_down
              FROM (SELECT u.dialog_id, u.source, u.token_id, u.conversations, u.tokens, u.duration,
                           u.rounds, u.thumb_up, u.thumb_down
                      FROM asyncsvc.usage_ledger AS u
                     WHERE u.tenant_id = $1 AND u.at IS NOT NULL
                     UNION ALL
                    SELECT q.dialog_id, q.source, q.token_id, q.conversations, q.tokens, q.duration,
                           q.rounds, q.thumb_up, q.thumb_down
                      FROM asyncsvc.usage_quarter_hour AS q
                     WHERE q.tenant_id = $1) AS u
             GROUP BY 1, 2, 3) AS u
     UNION ALL
    SELECT 'bucket ' || b.zone || ' ' || b.basis || ' ' || b.grain || ' ' || b.dimension || ' '
           || coalesce(b.value, '') || ' ' || b.bucket,
           (to_jsonb(b) - 'tenant_id')::text
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = $1
     UNION ALL
    SELECT 'zones', jsonb_agg(z.zone ORDER BY z.zone)::text
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = $1
     UNION ALL
    SELECT 'watched', to_jsonb(count(*))::text
      FROM asyncsvc.watched_tenant AS w
     WHERE w.tenant_id = $1
     UNION ALL
    SELECT 'audit', jsonb_agg(a ORDER BY a::text)::text
      FROM (SELECT a.action, a.actor,
                   a.detail - '{successor,ends_at,rotated_from,family_of}'::text[] AS detail
              FROM asyncsvc.token_audit AS a
             WHERE a.tenant_id = $1) AS a
     UNION ALL
    SELECT concat_ws(' ', 'budget', b.scope, b.subject, b.metric, b.grain, b.zone), b.max_used::text
      FROM asyncsvc.budget AS b
     WHERE b.tenant_id = $1
     UNION ALL
    SELECT 'audit of usage', jsonb_agg(e ORDER BY e::text)::text
      FROM (SELECT e.action, e.actor, e.subject, e.detail - 'since' AS detail
              FROM asyncsvc.usage_audit AS e
             WHERE e.tenant_id = $1) AS e
"""
UNFINISHED = """
    SELECT (SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type = 'client backend' AND state IS DISTINCT FROM 'idle')
         + (SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
             WHERE d.datname = current_database() AND l.locktype = 'advisory')
"""
ORIGIN = "origin"
COPIES = ", ".join(
    f"of_{table} AS (INSERT INTO asyncsvc.{table}"
    " SELECT (jsonb_populate_record(r, jsonb_build_object('tenant_id', $2::text))).*"
    f" FROM asyncsvc.{table} AS r WHERE r.tenant_id = $1)"
    for table in (
        "conversation", "conversation_recency", "conversation_title", "message", "usage_ledger",
        "record"
    )
)  # fmt: skip
COPY = f"WITH {COPIES} SELECT"
"""Copy the conversations and records of a tenant to another one."""
SETTINGS = Settings(accept_foreign_tokens=True)


class Trials:
    """Creates tenants, and reads their state over a connection outside of the pool."""

    def __init__(self, svc: AsyncSvc, observer: asyncpg.Connection) -> None:
        self.svc = svc
        self.observer = observer
        self._outside = svc.on(observer)
        self._tenants = 0

    async def tenant(self) -> Tenant:
        """Create a tenant with rows of every kind, equal to all others."""
        if self._tenants == 0:
            await self._create_origin()
        self._tenants += 1
        id = f"tenant {self._tenants}"
        await self.observer.execute(COPY, ORIGIN, id)
        first = await self._outside.tokens.create(
            tenant_id=id, name="rotated", scopes=["read"], dialog_id="d"
        )
        issued = await self._outside.tokens.rotate(
            first.token.id, tenant_id=id, overlap=timedelta(hours=1)
        )
        secrets = [new_secret("asv") for _ in range(3)]
        budget = await self._outside.budgets.set(
            tenant_id=id, scope="tenant", metric="rounds", limit=10**6
        )
        return Tenant(
            id,
            issued.token.id,
            issued.secret.get_secret_value(),
            [{"secret": secret, "name": secret[-4:]} for secret in secrets],
            budget.id,
        )

    async def _create_origin(self) -> None:
        """Create the conversations that each tenant gets as copies."""
        old = {"created_at": LONG_AGO, "user_id": "u"}
        await self._outside.conversations.import_(
            [
                *({**record, **old} for record in records("a", "b", "c")),
                {**records("other")[0], "dialog_id": "e", "updated_at": LONG_AGO, **old},
                {**records("young")[0], "dialog_id": "f", "exp_user_id": "u"},
            ],
            tenant_id=ORIGIN,
        )
        await self._outside.conversations.set_feedback("a", 2, 1, tenant_id=ORIGIN)
        for id in ("a", "b", "c"):
            await self._outside.records.put("k", id, {}, tenant_id=ORIGIN, user_id="u")

    async def state(self, tenant: Tenant) -> dict[str, object]:
        rows = await self.observer.fetch(STATE, tenant.id)
        state = {row["thing"]: json.loads(row["state"] or "null") for row in rows}
        assert len(state) == len(rows)
        # Generated secrets, by their index.
        names = {each["name"]: number for number, each in enumerate(tenant.token_records)}
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
                connection = await stack.enter_async_context(pool.acquire(timeout=20))
                assert not connection.is_in_transaction()
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
    monkeypatch.setattr(retention, "BATCH_SIZE", 2)
    monkeypatch.setattr(erasure, "BATCH_SIZE", 2)
    monkeypatch.setattr(erasure, "_RECORD_BATCH_SIZE", 2)
    monkeypatch.setattr(retention, "_DIALOG_BATCH_SIZE", 2)
    monkeypatch.setattr(conversation_import, "_MAX_MESSAGES", 5)
    monkeypatch.setattr(token_import, "_BATCH_SIZE", 2)


def assert_all_or_none(write: Cancelled, before: dict, after: dict, left: dict) -> None:
    if not write.commits_batches:
        assert left in (before, after)
        return
    # Each conversation and token is unchanged or complete; sums are in between.
    for thing in before.keys() | after.keys() | left.keys():
        if thing.startswith(("conversation ", "token ")):
            assert left.get(thing) in (before.get(thing), after.get(thing)), thing


async def assert_repeatable(trials: Trials, write: Cancelled, tenant: Tenant, after: dict) -> None:
    """Repeat the call and compare the state with that after a call that was not cancelled."""
    if write.write.is_repeatable or await trials.state(tenant) != after:
        with contextlib.suppress(asyncsvc.AlreadyExists, asyncsvc.Conflict):
            await write.run(trials.svc, tenant)
    assert await trials.state(tenant) == after


Place = Callable[[Trials], AbstractAsyncContextManager[Services]]


async def cancel_everywhere(
    trials: Trials,
    write: Cancelled,
    run: Callable[[Tenant, int, Moment], Coroutine[Any, Any, Outcome]],
) -> dict[Moment, int]:
    """Cancel the write at each of its awaits, each time in a new tenant, and check the state."""
    untouched = await trials.tenant()
    before = await trials.state(untouched)
    await write.run(trials.svc, untouched)
    after = await trials.state(untouched)
    assert before != after

    async def trial(at: int, moment: Moment) -> Outcome:
        tenant = await trials.tenant()
        outcome = await run(tenant, at, moment)
        await trials.assert_consistent()
        if outcome.was_reached:
            assert isinstance(outcome.error, asyncio.CancelledError), (at, moment, outcome)
            assert_all_or_none(write, before, after, await trials.state(tenant))
        else:
            assert outcome.error is None
            assert await trials.state(tenant) == after
        await assert_repeatable(trials, write, tenant, after)
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


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_cancelled_at_any_await_is_applied_completely_or_not_at_all(
    trials, write, record_property
):
    awaits = await cancel_everywhere(
        trials,
        write,
        lambda tenant, at, moment: cancelled_at(write.run(trials.svc, tenant), at, moment),
    )
    record_property("awaits", awaits)
    assert min(awaits.values()) >= 2  # the reply, and the release of the connection


@pytest.mark.parametrize("write", ATOMIC)
async def test_a_write_cancelled_on_a_new_connection_is_applied_completely_or_not_at_all(
    trials, write, record_property
):
    """This includes the opening, and the moment between the 2 parts of a new statement."""

    async def run(tenant: Tenant, at: int, moment: Moment) -> Outcome:
        await trials.svc._executor._pool.expire_connections()
        return await cancelled_at(write.run(trials.svc, tenant), at, moment)

    awaits = await cancel_everywhere(trials, write, run)
    record_property("awaits", awaits)
    assert min(awaits.values()) >= 5


@pytest.mark.parametrize("write", IN_TRANSACTIONS)
async def test_a_transaction_cancelled_at_any_await_is_applied_completely_or_not_at_all(
    trials, write, record_property
):
    """The awaits are those of BEGIN, of the write, and of COMMIT or ROLLBACK."""

    async def transaction(tenant: Tenant) -> None:
        async with trials.svc.transaction() as tx:
            await write.run(tx, tenant)

    all_or_none = replace(write, commits_batches=False)
    awaits = await cancel_everywhere(
        trials,
        all_or_none,
        lambda tenant, at, moment: cancelled_at(transaction(tenant), at, moment),
    )
    record_property("awaits", awaits)
    assert min(awaits.values()) >= 4


@pytest.mark.parametrize("write", APPENDS)
async def test_an_append_cancelled_at_any_await_leaves_the_callers_connection_usable(trials, write):
    """The caller has no transaction. A lost connection is closed."""

    async def run(tenant: Tenant, at: int, moment: Moment) -> Outcome:
        async with trials.svc._executor._pool.acquire(timeout=20) as connection:
            on = trials.svc.on(connection)
            outcome = await cancelled_at(write.run(on, tenant), at, moment)
            if not connection.is_closed():
                await on.conversations.get_by_id("a", tenant_id=tenant.id)
        return outcome

    await cancel_everywhere(trials, write, run)


@pytest.mark.parametrize("write", APPENDS)
async def test_a_cancelled_append_in_a_callers_transaction_is_rolled_back_with_it(trials, write):
    async def run(tenant: Tenant, at: int, moment: Moment) -> Outcome:
        async with trials.svc._executor._pool.acquire(timeout=20) as connection:
            transaction = connection.transaction()
            await transaction.start()
            outcome = await cancelled_at(write.run(trials.svc.on(connection), tenant), at, moment)
            if not outcome.was_reached:
                await transaction.commit()
            elif not connection.is_closed():
                await transaction.rollback()
                # The key is unused, too.
                left = await trials.state(tenant)
                assert left["conversation a"]["last_seq"] == 2
        return outcome

    await cancel_everywhere(trials, write, run)


@pytest.mark.parametrize("write", APPENDS)
async def test_a_cancelled_savepoint_leaves_the_callers_transaction_usable(trials, write):
    """The caller's own writes before and after it are committed."""

    async def savepoint(on: Services, tenant: Tenant) -> None:
        async with on.transaction() as inner:
            await write.run(inner, tenant)

    async def run(tenant: Tenant, at: int, moment: Moment) -> Outcome:
        async with trials.svc._executor._pool.acquire(timeout=20) as connection:
            on = trials.svc.on(connection)
            async with connection.transaction():
                for id in ("b", "c"):
                    if id == "c":
                        outcome = await cancelled_at(savepoint(on, tenant), at, moment)
                    await on.conversations.append_message(id, TURN, tenant_id=tenant.id)
        left = await trials.state(tenant)
        assert [left[f"conversation {id}"]["last_seq"] for id in "bc"] == [4, 4]
        for id in "bc":
            await remove_turn(trials, tenant, id)
        return outcome

    await cancel_everywhere(trials, write, run)


async def remove_turn(trials: Trials, tenant: Tenant, id: str) -> None:
    """Remove the caller's own turn, so that the rest can be compared."""
    await trials.observer.execute(
        "DELETE FROM asyncsvc.message WHERE tenant_id = $1 AND conversation_id = $2 AND seq > 2",
        tenant.id,
        id,
    )
    await trials.observer.execute(
        "UPDATE asyncsvc.conversation SET last_seq = 2, round = round - 1, tokens = tokens - 3,"
        " duration = duration - 500000, updated_at = created_at"
        " WHERE tenant_id = $1 AND id = $2",
        tenant.id,
        id,
    )
    await trials.observer.execute(
        "INSERT INTO asyncsvc.usage_ledger (tenant_id, dialog_id, source, user_id, created_at,"
        " at, tokens, duration, rounds)"
        " SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, '2020-01-01Z',"
        " -3, -500000, -1 FROM asyncsvc.conversation AS c WHERE tenant_id = $1 AND id = $2",
        tenant.id,
        id,
    )
    await trials.observer.execute(
        "UPDATE asyncsvc.conversation_recency AS r SET updated_at = c.updated_at"
        " FROM asyncsvc.conversation AS c"
        " WHERE c.tenant_id = $1 AND c.id = $2 AND r.tenant_id = $1 AND r.id = $2",
        tenant.id,
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
        tenant = await trials.tenant()
        for at in itertools.count(1):
            outcome = await interrupted_at(write.run(trials.svc, tenant), at, lose)
            assert outcome.error is None or isinstance(outcome.error, asyncsvc.Unavailable), at
            await trials.assert_consistent()
            if not outcome.was_reached:
                break
