"""The whole public API against a model, in random order, with cancellations and lost connections.

2 tenants have conversations and tokens with equal names. Each change is applied to the model
(`tenant_model`) and to the database; then both tenants are read completely and compared. A change
may be cancelled or lose its connection at one of its awaits. It then happened or did not, so the
stored state must equal one of the two states of the model. An append with a key is repeated until
its outcome is known.

By default each run uses the same examples and shows a failing example without shrinking. To try
other examples, for longer and with shrinking:

    ASYNCSVC_STATEFUL_EXAMPLES=2000 pytest tests/models/test_stateful.py
"""

import asyncio
import contextlib
import copy
import itertools
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

import asyncsvc
from asyncsvc import ANY, AsyncSvcError, NotFound, Settings, Unavailable
from tests.models.model import Query, Question, listed, usage
from tests.models.tenant_model import (
    COUNTED,
    Append,
    Change,
    ClearMessages,
    CopyConversations,
    Create,
    CreateMany,
    CreateToken,
    DeleteDialogs,
    DeleteIds,
    DeleteMessage,
    DeleteTokens,
    EraseUser,
    ImportTokens,
    PopMessage,
    Purge,
    Revoke,
    RevokeAll,
    RevokeFamily,
    Rotate,
    SetFeedback,
    StoredTenant,
    Tenant,
    Transaction,
    UpdateConversations,
    UpdateMessage,
    UpdateToken,
    Used,
    Verify,
    differences,
)
from tests.support.cancelling import MOMENTS, Moment, Outcome, cancelled_at, interrupted_at

LONGER = os.environ.get("ASYNCSVC_STATEFUL_EXAMPLES")
PROFILE = settings(
    max_examples=int(LONGER or "60"),
    stateful_step_count=25,  # many more steps would exceed Hypothesis' limit of drawn data
    derandomize=LONGER is None,
    database=None,
    deadline=None,
    print_blob=True,
    # Shrinking takes minutes.
    phases=[Phase.generate, Phase.shrink] if LONGER else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)
ALL_TIME = {"from_date": "2000-01-01", "to_date": "2099-12-31"}

# ---------------------------------------------------------------- generated values

TENANTS = st.sampled_from("ab")
IDS = st.sampled_from(["1", "2", "3%"])
DIALOGS = st.sampled_from("de")
USERS = st.sampled_from(["", "u", "v"])
EXP_USERS = st.sampled_from([None, "u", "w"])
SOURCES = st.sampled_from([None, "s", "t"])
NAMES = st.sampled_from([None, "Name", "50%", "a_b"])
TEXTS = st.sampled_from(["hello", "Hello again", "100%", "a_b", "axb"])
JSONS = st.sampled_from([None, {"a": [1, None]}, [], "text", 1.5])
OBJECTS = st.sampled_from([{}, {"k": "v"}])
PAST = [datetime(2026, month, 1, 12, tzinfo=UTC) for month in (1, 3, 5)]
CREATIONS = st.sampled_from([None, *PAST])
SEQS = st.integers(1, 6)
NTH = st.integers(0, 5)
KINDS = st.sampled_from(["api", "api", "beta"])
SCOPES = st.sampled_from([(), ("read",), ("read", "write"), ("*",)])
ACTORS = st.sampled_from([None, "me"])
REASONS = st.sampled_from([None, "lost"])
EXPIRIES = st.sampled_from([None, None, PAST[0], datetime(2090, 1, 1, tzinfo=UTC)])
TOKEN_IDS = st.sampled_from([None, None, "k", "l"])
FOREIGN = [f"{name}-of-another-system-with-a-long-secret" for name in ("one", "two", "three")]


def some(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(strategy, min_size=1, max_size=3, unique=True)


CONVERSATIONS = st.fixed_dictionaries(
    {
        "id": IDS,
        "dialog_id": DIALOGS,
        "user_id": USERS,
        "exp_user_id": EXP_USERS,
        "name": NAMES,
        "source": SOURCES,
        "dsl": JSONS,
        "metadata": st.none() | OBJECTS,
        "version_title": NAMES,
        "created_at": CREATIONS,
    }
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": TEXTS},
    optional={"payload": OBJECTS, "reference": JSONS},
)
TURNS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, min_size=1, max_size=3)},
    optional={
        "tokens": st.integers(0, 9),
        "duration": st.sampled_from([0.0, 0.1, 1.000001]),
        "round": st.integers(0, 2),
        "errors": NAMES,
        "dsl": JSONS,
    },
)
# Only 2, so that a key is often repeated with the same turn and with another turn.
KEYED_TURNS = st.sampled_from(
    [
        {"messages": [{"role": "user", "content": "keyed"}], "tokens": 1},
        {"messages": [{"role": "user", "content": "other"}] * 2, "duration": 0.25},
    ]
)
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "source": SOURCES,
        "dialog_id": DIALOGS,
        "user_id": USERS,
        "exp_user_id": EXP_USERS,
        "dsl": JSONS,
        "metadata": st.none() | OBJECTS,
        "errors": NAMES,
        "version_title": NAMES,
    },
)
APPENDS = st.builds(Append, IDS, TURNS, TOKEN_IDS)
KEYED_APPENDS = st.builds(
    Append,
    IDS,
    KEYED_TURNS,
    TOKEN_IDS,
    key=st.sampled_from(["k", "l"]),
    expected_seq=st.none() | st.integers(0, 4),
)
CHANGES = st.one_of(
    st.builds(Create, CONVERSATIONS),
    st.builds(
        CreateMany,
        st.lists(CONVERSATIONS, min_size=1, max_size=3, unique_by=lambda fields: fields["id"]),
    ),
    APPENDS,
    APPENDS,
    KEYED_APPENDS,
    st.builds(
        UpdateConversations, st.dictionaries(IDS, PATCHES, min_size=1, max_size=1), st.just(False)
    ),
    st.builds(
        UpdateConversations, st.dictionaries(IDS, PATCHES, min_size=1, max_size=3), st.just(True)
    ),
    st.builds(SetFeedback, IDS, SEQS, st.sampled_from([1, -1, None])),
    st.builds(UpdateMessage, IDS, SEQS, st.fixed_dictionaries({}, optional={"content": TEXTS})),
    st.builds(
        UpdateMessage,
        IDS,
        SEQS,
        st.fixed_dictionaries({}, optional={"payload": OBJECTS, "reference": JSONS}),
    ),
    st.builds(DeleteMessage, IDS, SEQS),
    st.builds(PopMessage, IDS),
    st.builds(ClearMessages, IDS),
)
DELETIONS = st.one_of(
    st.builds(DeleteIds, some(IDS)),
    st.builds(DeleteDialogs, some(DIALOGS)),
    st.builds(EraseUser, st.sampled_from("uvw")),
    st.builds(
        Purge,
        st.sampled_from([*PAST, PAST[2] + timedelta(1)]),
        st.sampled_from(["created_at", "updated_at"]),
        st.just(ANY) | DIALOGS,
        st.booleans(),
    ),
)
TOKEN_CREATIONS = st.builds(
    CreateToken,
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["one", "two"]),
            "kind": KINDS,
            "scopes": SCOPES,
            "dialog_id": st.none() | DIALOGS,
            "source": SOURCES,
            "metadata": OBJECTS,
            "expires_at": EXPIRIES,
        }
    ),
    ACTORS,
)
TOKEN_CHANGES = st.one_of(
    TOKEN_CREATIONS,
    st.builds(ImportTokens, some(st.sampled_from(FOREIGN)), KINDS),
    st.builds(
        Rotate, NTH, st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(days=9)]), ACTORS
    ),
    st.builds(
        UpdateToken,
        NTH,
        st.fixed_dictionaries(
            {}, optional={"scopes": SCOPES, "expires_at": EXPIRIES, "source": SOURCES}
        ),
        ACTORS,
    ),
    st.builds(Revoke, NTH, REASONS, ACTORS),
    st.builds(RevokeFamily, NTH, REASONS, ACTORS),
    st.builds(Verify, NTH, KINDS, SCOPES, st.booleans()),
    st.builds(Verify, NTH, KINDS, st.just(()), st.booleans()),
    st.builds(Used, NTH),
)
TOKEN_REVOCATIONS = st.one_of(
    st.builds(
        RevokeAll,
        st.sampled_from([ANY, "api", "beta"]),
        st.sampled_from([ANY, None, "d"]),
        st.lists(NTH, max_size=2),
        REASONS,
    ),
    st.builds(
        RevokeAll,
        st.sampled_from(["api", "beta"]),
        st.just(ANY),
        st.lists(NTH, max_size=1),
        REASONS,
    ),
    st.builds(DeleteTokens),
)


@dataclass(frozen=True)
class Fault:
    """A cancellation or a lost connection at one of the awaits of a call."""

    at: int
    kind: Moment | str


NO_FAULT = st.none()
FAULTS = st.one_of(
    NO_FAULT,
    st.builds(Fault, st.integers(1, 6), st.sampled_from([*MOMENTS, "killed"])),
)

# ---------------------------------------------------------------- the machine

_numbers = itertools.count(1)


class TenantMachine(RuleBasedStateMachine):
    """2 tenants of a database, with an event loop for their calls."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        number = next(_numbers)
        foreign: dict[str, tuple[str, str]] = {}
        self.tenants = {name: Tenant(f"{number} {name}", foreign) for name in "ab"}
        self.secrets = [f"{number}-{secret}" for secret in FOREIGN]
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.run(self._open(dsn))

    async def _open(self, dsn: str) -> None:
        self.observer = await asyncpg.connect(dsn)
        self.stack.push_async_callback(self.observer.close)
        connecting = asyncsvc.connect(
            dsn, max_size=2, settings=Settings(accept_foreign_tokens=True)
        )
        self.svc = await self.stack.enter_async_context(connecting)

    def teardown(self) -> None:
        try:
            for name in self.tenants:
                self.usage(name, ANY, ANY, ANY)
            self.run(self._wait_until_idle())
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    async def _check_pool(self) -> None:
        """Check that each connection of the pool can be acquired and has no open transaction."""
        executor = self.svc._executor
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(executor._pool.get_max_size()):
                connection = await stack.enter_async_context(executor._lease())
                assert not connection.is_in_transaction()

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    # ------------------------------------------------------------ changes

    @initialize(
        each=st.lists(CONVERSATIONS, min_size=3, max_size=3, unique_by=lambda of: of["id"]),
        turns=st.lists(TURNS, min_size=2, max_size=3),
        keyed=KEYED_APPENDS,
        thumbs=st.lists(st.sampled_from([1, -1]), min_size=2, max_size=2),
        token=TOKEN_CREATIONS,
    )
    def begin(self, each, turns, keyed, thumbs, token):
        """Create equal data in both tenants for the other rules."""
        appends = [Append(fields["id"], turn) for fields in each for turn in turns]
        feedback = [
            SetFeedback(fields["id"], 2, thumb) for fields, thumb in zip(each, thumbs, strict=False)
        ]
        first = Append(keyed.id, keyed.turn, keyed.token_id, keyed.key)
        for name in self.tenants:
            self.change(name, CreateMany(each))
            self.change(name, first)
            self.change(name, Transaction([*appends, *feedback], fails=False))
            self.change(name, token)
            self.change(name, Rotate(0, timedelta(0), "me"))

    @rule(name=TENANTS, fields=CONVERSATIONS)
    def create(self, name, fields):
        self.change(name, Create(fields))

    @rule(name=TENANTS, change=CHANGES, fault=FAULTS)
    def write(self, name, change, fault):
        self.change(name, change, fault)

    @rule(name=TENANTS, change=KEYED_APPENDS, fault=FAULTS)
    def append_with_a_key(self, name, change, fault):
        self.change(name, change, fault)

    @rule(name=TENANTS, change=DELETIONS, fault=FAULTS)
    def delete(self, name, change, fault):
        self.change(name, change, fault)

    @rule(
        name=TENANTS,
        changes=st.lists(CHANGES, min_size=1, max_size=3),
        fails=st.booleans(),
        fault=FAULTS,
    )
    def transaction(self, name, changes, fails, fault):
        self.change(name, Transaction(changes, fails), fault)

    @rule(name=TENANTS, origin=TENANTS, fault=FAULTS)
    def export_and_import(self, name, origin, fault):
        self.change(name, CopyConversations(self.tenants[origin]), fault)

    @rule(name=TENANTS, change=TOKEN_CHANGES, fault=FAULTS)
    def change_tokens(self, name, change, fault):
        if isinstance(change, ImportTokens):  # a secret is unique in the database
            secrets = [self.secrets[FOREIGN.index(secret)] for secret in change.secrets]
            change = ImportTokens(secrets, change.kind)
        self.change(name, change, fault)

    @rule(name=TENANTS, change=TOKEN_REVOCATIONS, fault=FAULTS)
    def revoke_tokens(self, name, change, fault):
        self.change(name, change, fault)

    @rule()
    def lose_all_connections(self):
        """End all connections between 2 calls. Some of the next calls may fail."""
        self.run(self._kill())

    def change(self, name: str, change: Change, fault: Fault | None = None) -> None:
        """Apply a change to the model and to the database, and compare both."""
        before, after = self.tenants, copy.deepcopy(self.tenants)
        expected = outcome_of(change, after[name])
        outcome = self.run(self._run_change(change, before[name], fault))
        if outcome.was_reached and fault.kind in MOMENTS:
            assert isinstance(outcome.error, asyncio.CancelledError), outcome
            self._determine_outcome(name, change, before, after)
        elif isinstance(outcome.error, Unavailable):
            self._determine_outcome(name, change, before, after)
        else:
            self._compare(change, expected, outcome)
            if outcome.error is None:
                change.adopt(after[name], outcome.result)
            self._continue_with_matching(after)

    async def _run_change(self, change: Change, tenant: Tenant, fault: Fault | None) -> Outcome:
        call = change.call(self.svc, tenant)
        if fault is None:
            return await cancelled_at(call, 0, "waiting")
        if fault.kind == "killed":
            return await interrupted_at(call, fault.at, self._kill)
        return await cancelled_at(call, fault.at, fault.kind)

    async def _kill(self) -> None:
        killed = await self.observer.fetch(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        # Only these: the pool opens new connections in their place.
        pids = [row["pid"] for row in killed]
        async with asyncio.timeout(20):  # pg_terminate_backend itself polls every 100 ms
            while await self.observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1::int[])", pids
            ):
                await asyncio.sleep(0.001)

    def _compare(self, change: Change, expected: object, outcome: Outcome) -> None:
        if isinstance(expected, AsyncSvcError):
            assert type(outcome.error) is type(expected), (change, expected, outcome)
        else:
            assert outcome.error is None, (change, expected, outcome)
            assert change.comparable(outcome.result) == expected, change

    def _determine_outcome(self, name: str, change: Change, before: dict, after: dict) -> None:
        """Adopt the stored state; repeat an append with a key."""
        self._continue_with_matching(before, after)
        if isinstance(change, Append) and change.key is not None:
            self.change(name, change)

    def _continue_with_matching(self, *candidates: dict[str, Tenant]) -> None:
        """Continue with the first candidate that equals the stored state."""
        found = self.run(self._read())
        wrong = []
        for tenants in candidates:
            trial = copy.deepcopy(tenants)
            differing = [
                line for name, tenant in trial.items() for line in differences(tenant, found[name])
            ]
            if not differing:
                self.tenants = trial
                return
            wrong.append("\n".join(differing))
        raise AssertionError("\n--- nor ---\n".join(wrong))

    async def _read(self) -> dict[str, StoredTenant]:
        await self._wait_until_idle()
        return {name: await self._stored_tenant(tenant.id) for name, tenant in self.tenants.items()}

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

    async def _stored_tenant(self, tenant_id: str) -> StoredTenant:
        svc = self.svc
        return StoredTenant(
            [each async for each in svc.conversations.export(tenant_id=tenant_id)],
            (await svc.tokens.get_list(tenant_id=tenant_id, limit=1_000)).items,
            (await svc.tokens.audit(tenant_id=tenant_id, limit=1_000)).items,
            await self._usage_counts(tenant_id, ANY, ANY, ANY),
        )

    async def _usage_counts(
        self, tenant_id: str, dialog_id: object, source: object, token_id: object
    ) -> dict[str, int]:
        buckets = await self.svc.conversations.stats(
            tenant_id=tenant_id,
            **ALL_TIME,
            source=source,
            basis="activity",
            interval="month",
            dialog_id=dialog_id,
            token_id=token_id,
            fill=False,
        )
        found = {name: sum(getattr(bucket, name) for bucket in buckets) for name in COUNTED}
        return found | {"duration": round(found["duration"] * 1_000_000)}

    # ------------------------------------------------------------ reads

    @rule(
        name=TENANTS,
        query=st.builds(
            Query,
            dialog_id=DIALOGS,
            orderby=st.sampled_from(
                ["created_at", "updated_at", "round", "tokens", "duration", "thumb_up"]
            ),
            desc=st.booleans(),
            # Mostly at most 1 filter: several filters rarely match a conversation.
            id=st.sampled_from([*[None] * 9, "1"]),
            user_id=st.sampled_from([*[None] * 5, "", "u"]),
            exp_user_id=st.sampled_from([*[None] * 5, "u"]),
            keywords=st.sampled_from([*[""] * 4, "HELLO", "%", "a_b", "50"]),
            from_date=st.sampled_from([*[None] * 6, "2026-03-01"]),
            to_date=st.sampled_from([*[None] * 6, "2026-03-01", "2099-01-01"]),
        ),
        size=st.integers(1, 3),
        by_cursor=st.booleans(),
    )
    def get_list(self, name, query, size, by_cursor):
        expected = [
            conversation.id
            for conversation in listed(list(self.tenants[name].conversations.values()), query)
        ]
        by_cursor = by_cursor and query.has_cursors
        assert self.run(self._walked(self.tenants[name].id, query, size, by_cursor)) == expected

    async def _walked(self, tenant_id: str, query: Query, size: int, by_cursor: bool) -> list[str]:
        filters = {name: getattr(query, name) for name in query.__dataclass_fields__}
        found: list[str] = []
        page, after = 1, None
        while True:
            listed_page = await self.retry(
                lambda page=page, after=after: self.svc.conversations.get_list(
                    tenant_id=tenant_id,
                    page_number=page,
                    items_per_page=size,
                    after=after,
                    **filters,
                )
            )
            found += [each.id for each in listed_page.items]
            if by_cursor:
                after = listed_page.next
            else:
                page += 1
            if (by_cursor and after is None) or not listed_page.items:
                assert listed_page.total == len(found)
                return found

    @rule(
        name=TENANTS,
        keywords=st.sampled_from(["HELLO", "h", "l", "%", "a_b", "50", "\n", "no such words"]),
        dialog_id=st.just(ANY) | DIALOGS,
        user_id=st.sampled_from([*[ANY] * 3, "", "u"]),
        limit=st.integers(1, 3),
    )
    def search(self, name, keywords, dialog_id, user_id, limit):
        tenant = self.tenants[name]
        expected = [
            (conversation.id, seq)
            for conversation in tenant.conversations.values()
            if dialog_id in {ANY, conversation.dialog_id} and user_id in {ANY, conversation.user_id}
            for seq in [
                message["seq"]
                for message in conversation.messages
                if keywords.lower() in message["content"].lower()
            ][:1]
        ]
        filters = {"dialog_id": dialog_id, "user_id": user_id, "limit": limit}
        found = self.run(self._searched(tenant.id, keywords, filters))
        assert sorted(found) == sorted(expected)

    async def _searched(
        self, tenant_id: str, keywords: str, filters: dict[str, Any]
    ) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        after = None
        while True:
            page = await self.retry(
                lambda after=after: self.svc.conversations.search(
                    tenant_id=tenant_id, keywords=keywords, after=after, total="exact", **filters
                )
            )
            found += [(hit.id, hit.seq) for hit in page.items]
            after = page.next
            if after is None:
                assert page.total == len(found)
                return found

    async def retry(self, call: Any) -> Any:
        """Repeat a read after a lost connection, at most once for each connection of the pool."""
        for _ in range(self.svc._executor._pool.get_max_size()):
            with contextlib.suppress(Unavailable):
                return await call()
        return await call()

    @rule(
        name=TENANTS,
        id=IDS,
        after_seq=st.none() | st.integers(0, 6),
        before_seq=st.none() | st.integers(0, 6),
        last=st.none() | st.integers(1, 3),
        limit=st.integers(1, 4),
    )
    def messages(self, name, id, after_seq, before_seq, last, limit):
        tenant = self.tenants[name]
        call = self.retry(
            lambda: self.svc.conversations.messages(
                id,
                tenant_id=tenant.id,
                after_seq=after_seq,
                before_seq=before_seq,
                last=last,
                limit=limit,
            )
        )
        if id not in tenant.conversations:
            outcome = self.run(cancelled_at(call, 0, "waiting"))
            assert isinstance(outcome.error, NotFound)
            return
        seqs = [
            seq
            for seq in tenant.conversations[id].messages_by_seq
            if seq > (after_seq or 0) and (before_seq is None or seq < before_seq)
        ]
        expected = seqs[:limit] if last is None else seqs[-last:]
        assert [message.seq for message in self.run(call)] == expected

    @rule(name=TENANTS, ids=st.lists(IDS, min_size=1, max_size=4))
    def by_ids(self, name, ids):
        tenant = self.tenants[name]
        conversations = self.svc.conversations
        call = self.retry(lambda: conversations.get_by_ids(ids, tenant_id=tenant.id))
        expected = [(id, tenant.conversations[id].name) for id in ids if id in tenant.conversations]
        assert [(each.id, each.name) for each in self.run(call)] == expected

    @rule(name=TENANTS, dialog_id=DIALOGS, exp_user_id=st.sampled_from("uw"))
    def names(self, name, dialog_id, exp_user_id):
        tenant = self.tenants[name]
        conversations = self.svc.conversations
        call = self.retry(
            lambda: conversations.get_names(
                dialog_id=dialog_id, exp_user_id=exp_user_id, tenant_id=tenant.id
            )
        )
        assert sorted((each.id, str(each.name)) for each in self.run(call)) == sorted(
            (conversation.id, str(conversation.name))
            for conversation in tenant.conversations.values()
            if (conversation.dialog_id, conversation.exp_user_id) == (dialog_id, exp_user_id)
        )

    @rule()
    def maintain(self):
        """Run maintenance. No idempotency key is old enough to be deleted."""
        assert self.run(self.retry(self.svc.maintain)).append_keys == 0

    @rule(
        name=TENANTS,
        dialog_id=st.just(ANY) | DIALOGS,
        source=st.just(ANY) | SOURCES,
        token_id=st.just(ANY) | TOKEN_IDS,
    )
    def usage(self, name, dialog_id, source, token_id):
        tenant = self.tenants[name]
        of = (dialog_id, source, token_id)
        found = self.run(self.retry(lambda: self._usage_counts(tenant.id, *of)))
        assert found == tenant.usage(*of)

    @rule(
        name=TENANTS,
        question=st.builds(
            Question,
            st.sampled_from(["2025-12-31", "2026-03-01T12:00"]),
            st.sampled_from(["2026-03-01", "2026-12-31"]),
            source=st.just(ANY) | SOURCES,
            interval=st.sampled_from(["day", "week", "month"]),
            dialog_id=st.just(ANY) | DIALOGS,
            tz=st.sampled_from(["UTC", "Europe/Berlin"]),
            fill=st.booleans(),
        ),
    )
    def usage_by_creation(self, name, question):
        options = {name: getattr(question, name) for name in question.__dataclass_fields__}
        buckets = self.run(
            self.retry(
                lambda: self.svc.conversations.stats(
                    tenant_id=self.tenants[name].id, basis="creation", **options
                )
            )
        )
        expected = usage(list(self.tenants[name].conversations.values()), question)
        assert [bucket.model_dump() for bucket in buckets] == expected

    @rule(
        name=TENANTS,
        kind=st.sampled_from([ANY, "api", "beta"]),
        dialog_id=st.sampled_from([ANY, None, "d"]),
        limit=st.integers(1, 3),
    )
    def list_tokens(self, name, kind, dialog_id, limit):
        tenant = self.tenants[name]
        filters = {"kind": kind, "dialog_id": dialog_id}
        found = self.run(self._pages(self.svc.tokens.get_list, tenant.id, limit, filters))
        assert len(found) == len({token.id for token in found})
        assert sorted((token.id, token.status) for token in found) == sorted(
            (token.id, token.status)
            for token in tenant.tokens
            if kind in {ANY, token.kind} and dialog_id in {ANY, token.dialog_id}
        )

    @rule(name=TENANTS, nth=st.none() | NTH, limit=st.integers(1, 3))
    def audit(self, name, nth, limit):
        tenant = self.tenants[name]
        of = ANY if nth is None else tenant.nth_token(nth).id
        found = self.run(self._pages(self.svc.tokens.audit, tenant.id, limit, {"token_id": of}))
        assert len(found) == len({event.id for event in found})
        assert sorted((event.action, event.token_id) for event in found) == sorted(
            (action, token.id) for action, token, _ in tenant.audit if of in {ANY, token.id}
        )

    async def _pages(self, method: Any, tenant_id: str, limit: int, filters: dict) -> list:
        found: list = []
        after = None
        while True:
            page = await self.retry(
                lambda after=after: method(tenant_id=tenant_id, limit=limit, after=after, **filters)
            )
            found += page.items
            after = page.next
            if after is None:
                return found


def outcome_of(change: Change, tenant: Tenant) -> object:
    """Return the expected result of a call, or the expected error."""
    try:
        return change.apply(tenant)
    except AsyncSvcError as error:
        return error


def test_the_public_api_equals_the_model_under_cancellations_and_lost_connections(dsn):
    run_state_machine_as_test(lambda: TenantMachine(dsn), settings=PROFILE)
