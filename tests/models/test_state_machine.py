"""All public methods against the model, in random order, with cancellations and lost connections.

2 tenants have conversations and tokens with equal names. Each change is applied to the model and to
the database; then the tenant is read completely and compared. A change may be cancelled or lose its
connection at one of its awaits. It is then applied or not, so the stored state must equal one of
the two states of the model. An append with a key is repeated until its outcome is known.

By default each run uses the same examples and shows a failing example without shrinking. To try
other examples, for longer and with shrinking:

    ASYNCSVC_MODEL_EXAMPLES=2000 pytest tests/models
"""

import asyncio
import contextlib
import copy
import inspect
import itertools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import asyncsvc
from asyncsvc import AsyncSvcError, IssuedToken, Settings, Unavailable
from tests.models import calls as generated
from tests.models.calls import (
    CONVERSATIONS,
    TURNS,
    Call,
    Copy,
    NthToken,
    Transaction,
    arguments_of,
    calls,
    method_of,
)
from tests.models.comparison import CURSOR_ORDERS, assert_pages, differences, profile, totals
from tests.models.model import Model, adopt, event_differences, read_tenant
from tests.support.cancelling import MOMENTS, Moment, Outcome, cancelled_at, interrupted_at
from tests.support.registry import public_methods

TENANTS = st.sampled_from("ab")
KEYED_APPENDS = calls("conversations.append_message", **generated.WITH_A_KEY)
Change = Call | Transaction | Copy


@dataclass(frozen=True)
class Fault:
    """A cancellation or a lost connection at one of the awaits of a call."""

    at: int
    kind: Moment | str


FAULTS = st.none() | st.builds(Fault, st.integers(1, 6), st.sampled_from([*MOMENTS, "killed"]))
_numbers = itertools.count(1)


class StoreMachine(RuleBasedStateMachine):
    """2 tenants of a database and of the model, with an event loop for their calls."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        number = next(_numbers)
        self.ids = {name: f"{number} {name}" for name in "ab"}
        self.model = Model()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.run(self._open(dsn))

    async def _open(self, dsn: str) -> None:
        self.observer = await asyncpg.connect(dsn)
        self.stack.push_async_callback(self.observer.close)
        settings = Settings(accept_foreign_tokens=True)
        connecting = asyncsvc.connect(dsn, max_size=2, settings=settings)
        self.svc = await self.stack.enter_async_context(connecting)

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    def teardown(self) -> None:
        """Compare both tenants: no call may have changed the other tenant."""
        try:
            self.run(self._wait_until_idle())
            for name in self.ids:
                self._continue_with_equal(name, self.model)
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    # ------------------------------------------------------------ changes

    @initialize(
        conversations=st.lists(
            CONVERSATIONS, min_size=3, max_size=3, unique_by=lambda each: each["id"]
        ),
        turns=st.lists(TURNS, min_size=2, max_size=3),
        keyed=KEYED_APPENDS,
        thumbs=st.lists(st.sampled_from([1, -1]), min_size=2, max_size=2),
        token=calls("tokens.create"),
    )  # fmt: skip
    def begin(self, conversations, turns, keyed, thumbs, token):
        """Create equal data in both tenants for the other rules."""
        ids = [fields["id"] for fields in conversations]
        appends = [
            Call("conversations.append_message", {"id": id, "turn": turn})
            for id in ids
            for turn in turns
        ]
        feedback = [
            Call("conversations.set_feedback", {"id": id, "message": 2, "thumb": thumb})
            for id, thumb in zip(ids, thumbs, strict=False)
        ]
        first = Call(keyed.method, keyed.arguments | {"expected_seq": None})
        rotation = Call("tokens.rotate", {"id": NthToken(0, "id"), "actor": "me"})
        for name in self.ids:
            self.change(name, Call("conversations.create_many", {"conversations": conversations}))
            self.change(name, first)
            self.change(name, Transaction([*appends, *feedback]))
            self.change(name, token)
            self.change(name, rotation)

    @rule(name=TENANTS, change=calls(*generated.WRITES), fault=FAULTS)
    def write(self, name, change, fault):
        self.change(name, change, fault)

    @rule(name=TENANTS, change=KEYED_APPENDS, fault=FAULTS)
    def append_with_a_key(self, name, change, fault):
        self.change(name, change, fault)

    @rule(name=TENANTS, change=calls(*generated.TOKEN_WRITES), fault=FAULTS)
    def change_a_token(self, name, change, fault):
        self.change(name, change, fault)

    @rule(name=TENANTS, change=calls(*generated.DELETIONS), fault=FAULTS)
    def delete(self, name, change, fault):
        if change.method != "conversations.delete_tenant":
            self.change(name, change, fault)
            return
        # Each batch is a commit. Further rules need conversations, so copy the other tenant's.
        self.change(name, change)
        (other,) = self.ids.keys() - {name}
        self.change(name, Copy(self.ids[other]))

    @rule(
        name=TENANTS,
        changes=st.lists(calls(*generated.WRITES, *generated.TOKEN_WRITES), min_size=1, max_size=3),
        fails=st.booleans(),
        fault=FAULTS,
    )
    def transaction(self, name, changes, fails, fault):
        self.change(name, Transaction(changes, fails), fault)

    @rule(name=TENANTS, origin=TENANTS, fault=FAULTS)
    def export_and_import(self, name, origin, fault):
        self.change(name, Copy(self.ids[origin]), fault)

    @rule()
    def lose_all_connections(self):
        """End all connections between 2 calls. Some of the next calls may fail."""
        self.run(self._kill())

    def change(self, name: str, change: Change, fault: Fault | None = None) -> None:
        """Apply a change to the model and to the database, and compare both."""
        before, after = self.model, copy.deepcopy(self.model)
        change = change.resolved(before, self.ids[name])
        expected = apply(change, after, self.ids[name])
        if isinstance(change, Transaction) and isinstance(expected, AsyncSvcError):
            after = before
        outcome = self.run(self._run_change(change, self.ids[name], fault))
        is_cancelled = outcome.was_reached and fault.kind in MOMENTS
        assert not is_cancelled or isinstance(outcome.error, asyncio.CancelledError), outcome
        if is_cancelled or isinstance(outcome.error, Unavailable):
            self.run(self._wait_until_idle())
            self._continue_with_equal(name, before, after)
            if isinstance(change, Call) and change.arguments.get("idempotency_key"):
                self.change(name, change)
            return
        compare(change, expected, outcome)
        self._continue_with_equal(name, after)
        self._adopt_secrets(name, outcome.result)

    async def _run_change(self, change: Change, tenant_id: str, fault: Fault | None) -> Outcome:
        call = change.run(self.svc, tenant_id)
        if fault is None:
            return await cancelled_at(call, 0, "waiting")
        if fault.kind == "killed":
            return await interrupted_at(call, fault.at, self._kill)
        return await cancelled_at(call, fault.at, fault.kind)

    def _continue_with_equal(self, name: str, *candidates: Model) -> None:
        """Continue with the first candidate that equals the stored state of the tenant."""
        stored = self.run(self._retry(lambda: read_tenant(self.svc, self.ids[name])))
        wrong = []
        for candidate in candidates:
            model = copy.deepcopy(candidate)
            lines = adopt(model, self.ids[name], stored)
            if not lines:
                self.model = model
                return
            wrong.append("\n".join(lines))
        raise AssertionError("\n--- nor ---\n".join(wrong))

    def _adopt_secrets(self, name: str, result: Any) -> None:
        """Copy the secrets of issued tokens, which cannot be read again."""
        for each in result if isinstance(result, list) else [result]:
            if isinstance(each, IssuedToken):
                token = self.model.tenants[self.ids[name]].token(each.token.id)
                token.secret = each.secret.get_secret_value()

    # ------------------------------------------------------------ connections

    async def _kill(self) -> None:
        killed = await self.observer.fetch(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        # Wait for these backends only, since the pool opens new connections.
        pids = [row["pid"] for row in killed]
        async with asyncio.timeout(20):  # pg_terminate_backend itself polls every 100 ms
            while await self.observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1::int[])", pids
            ):
                await asyncio.sleep(0.001)

    async def _wait_until_idle(self) -> None:
        """Wait until the server is idle and the pool has replaced its lost connections."""
        async with asyncio.timeout(20):
            while await self.observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                " AND state IS DISTINCT FROM 'idle'"
            ):
                await asyncio.sleep(0.002)
            while True:
                # A connection that is lost while it is acquired raises InterfaceError.
                with contextlib.suppress(Unavailable, asyncpg.InterfaceError):
                    await self._check_pool()
                    await self.svc.tokens.get_list(tenant_id="absent")
                    return

    async def _check_pool(self) -> None:
        """Check that each connection of the pool can be acquired and has no open transaction."""
        executor = self.svc._executor
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(executor._pool.get_max_size()):
                connection = await stack.enter_async_context(executor._lease())
                assert not connection.is_in_transaction()

    async def _retry(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Repeat a read after a lost connection, at most once for each connection of the pool."""
        for _ in range(self.svc._executor._pool.get_max_size()):
            with contextlib.suppress(Unavailable):
                return await call()
        return await call()

    # ------------------------------------------------------------ reads

    @rule(name=TENANTS, call=calls(*generated.UPKEEP))
    def maintain(self, name, call):
        self.read(name, call)

    @rule(name=TENANTS, call=calls(*generated.READS))
    def read(self, name, call):
        """Compare the result of a call that does not change the state of the model."""
        call = call.resolved(self.model, self.ids[name])
        expected = apply(call, self.model, self.ids[name])
        reading = self._retry(lambda: call.run(self.svc, self.ids[name]))
        outcome = self.run(cancelled_at(reading, 0, "waiting"))
        if call.arguments.get("basis") == "activity" and outcome.error is None:
            # A test that runs across midnight has its activity in two buckets.
            assert totals(outcome.result) == totals(expected), call
        else:
            compare(call, expected, outcome)

    @rule(
        name=TENANTS,
        call=calls(*generated.LISTS),
        size=st.integers(1, 3),
        total=st.sampled_from(["exact", "capped", "none"]),
    )
    def read_pages(self, name, call, size, total):
        call = call.resolved(self.model, self.ids[name])
        is_list = call.method == "conversations.get_list"
        page = {"items_per_page" if is_list else "limit": size}
        if call.method in {"conversations.get_list", "conversations.search"}:
            page["total"] = total

        def read(**more: object) -> Coroutine[Any, Any, Any]:
            return self._retry(lambda: call.run(self.svc, self.ids[name], **page, **more))

        self.run(
            assert_pages(
                read,
                apply(call, self.model, self.ids[name]),
                size=size,
                has_total=page.get("total", "none") != "none",
                has_numbers=is_list,
                has_cursors=call.arguments.get("orderby", "created_at") in CURSOR_ORDERS,
                compare=event_differences if call.method == "tokens.audit" else differences,
            )
        )


def apply(change: Change, model: Model, tenant_id: str) -> Any:
    """Return the expected result of a change, or the expected error."""
    try:
        return change.apply(model, tenant_id)
    except AsyncSvcError as error:
        return error


def compare(change: Change, expected: object, outcome: Outcome) -> None:
    if isinstance(expected, AsyncSvcError):
        assert type(outcome.error) is type(expected), (change, expected, outcome)
        for name in ("field", "resource"):
            assert getattr(outcome.error, name, None) == getattr(expected, name, None), change
    else:
        assert outcome.error is None, (change, expected, outcome)
        assert differences(expected, outcome.result) == [], change


def test_the_public_api_equals_the_model_under_cancellations_and_lost_connections(dsn):
    # Many more steps would exceed Hypothesis' limit of drawn data.
    run_state_machine_as_test(
        lambda: StoreMachine(dsn), settings=profile(60, stateful_step_count=25)
    )


# ---------------------------------------------------------------- completeness

NOT_MODELLED = {
    "transaction", "on", "at_least", "close", "position", "applied", "pending", "check",
    "migration_plan", "migrate", "doctor", "explain", "pool_stats", "backlog",
    "conversations.watch", "conversations.record_usage", "conversations.adjust_usage",
    *(name for name in public_methods() if name.startswith("budgets.")),
}  # fmt: skip
"""Methods that neither return nor change rows of tenants, and those with tests of their own."""
NEW_METHOD = """\
{name} is not in the model. Add it to a group of methods in tests/models/calls.py,
and as a method to the model in tests/models/{module}_model.py."""
NEW_PARAMETER = """\
{name}: add the parameter "{parameter}" to the method of the model,
and its values to VALUES in tests/models/calls.py."""


def gaps() -> Iterator[str]:
    """Yield what to add to the model for new methods and parameters."""
    for name in public_methods() - NOT_MODELLED - generated.GENERATED:
        module = name.partition("s.")[0] if "." in name else "conversation"
        yield NEW_METHOD.format(name=name, module=module)
    for name in generated.GENERATED - public_methods():
        yield f"{name} does not exist. Remove it from tests/models."
    for name in generated.GENERATED & public_methods():
        known = inspect.signature(method_of(Model(), name)).parameters
        has_fields = any(each.kind is each.VAR_KEYWORD for each in known.values())
        for parameter, values in arguments_of(name).items():
            if values is None or not (has_fields or parameter in known):
                yield NEW_PARAMETER.format(name=name, parameter=parameter)


def test_the_model_knows_every_public_method_and_parameter():
    lines = list(gaps())
    assert lines == [], "\n".join(["", *lines])


def test_a_method_that_the_model_does_not_know_is_reported(monkeypatch):
    known = generated.GENERATED - {"conversations.set_feedback"}
    monkeypatch.setattr(generated, "GENERATED", known)
    (line,) = gaps()
    assert line.startswith("conversations.set_feedback is not in the model.")
    assert "tests/models/conversation_model.py" in line


def test_a_parameter_that_the_model_does_not_know_is_reported(monkeypatch):
    monkeypatch.delitem(generated.VALUES["tokens"], "secret")
    assert [line.partition(",")[0] for line in sorted(gaps())] == [
        f'{name}: add the parameter "secret" to the method of the model'
        for name in ("tokens.used", "tokens.verify")
    ]
