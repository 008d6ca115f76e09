"""The whole public API against a model, in random order, with cancellations and lost connections.

Two tenants have conversations and tokens of equal names. A change is made in the model
(`tenant_model`) and in the database, and after each both tenants are read back whole. A change may
be cancelled at one of its awaits, or lose its connection there; then it happened or it did not:
what is read back must be one of the two, and an append with a key is made again until that is sure.

By default the same examples are run each time, and one that fails is shown as it is. To look for
others, for longer, and to have what fails made as short as can be:

    ASYNCSVC_STATEFUL_EXAMPLES=2000 pytest tests/test_stateful.py
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
from cancelling import MOMENTS, Moment, Strike, interrupted, struck
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from model import Query, Question, listed, usage
from tenant_model import (
    COUNTED,
    Append,
    Change,
    Clear,
    Copy,
    Create,
    CreateMany,
    DeleteDialogs,
    DeleteIds,
    DeleteMessage,
    DeleteTokens,
    DeleteUser,
    Edit,
    Found,
    Import,
    Issue,
    Judge,
    Patch,
    PatchToken,
    Pop,
    Purge,
    Revoke,
    RevokeAll,
    RevokeFamily,
    Rotate,
    Tenant,
    Transaction,
    Use,
    Verify,
    differences,
)

import asyncsvc
from asyncsvc import ANY, AsyncSvcError, NotFound, Settings, Unavailable

LONGER = os.environ.get("ASYNCSVC_STATEFUL_EXAMPLES")
PROFILE = settings(
    max_examples=int(LONGER or "60"),
    stateful_step_count=25,  # with many more, what is drawn comes near to Hypothesis' own limit
    derandomize=LONGER is None,
    database=None,
    deadline=None,
    print_blob=True,
    # To shrink what fails takes minutes: for whoever looks for it, not for whoever runs all tests.
    phases=[Phase.generate, Phase.shrink] if LONGER else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)
EVER = ("2000-01-01", "2099-12-31")

# ---------------------------------------------------------------- what is drawn

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
# Few, so that the same turn comes again under the same key, and another one too.
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
    st.builds(Patch, st.dictionaries(IDS, PATCHES, min_size=1, max_size=1), st.just(False)),
    st.builds(Patch, st.dictionaries(IDS, PATCHES, min_size=1, max_size=3), st.just(True)),
    st.builds(Judge, IDS, SEQS, st.sampled_from([1, -1, None])),
    st.builds(Edit, IDS, SEQS, st.fixed_dictionaries({}, optional={"content": TEXTS})),
    st.builds(
        Edit,
        IDS,
        SEQS,
        st.fixed_dictionaries({}, optional={"payload": OBJECTS, "reference": JSONS}),
    ),
    st.builds(DeleteMessage, IDS, SEQS),
    st.builds(Pop, IDS),
    st.builds(Clear, IDS),
)
DELETIONS = st.one_of(
    st.builds(DeleteIds, some(IDS)),
    st.builds(DeleteDialogs, some(DIALOGS)),
    st.builds(DeleteUser, st.sampled_from("uvw")),
    st.builds(
        Purge,
        st.sampled_from([*PAST, PAST[2] + timedelta(1)]),
        st.sampled_from(["created_at", "updated_at"]),
        st.just(ANY) | DIALOGS,
        st.booleans(),
    ),
)
ISSUES = st.builds(
    Issue,
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
    ISSUES,
    st.builds(Import, some(st.sampled_from(FOREIGN)), KINDS),
    st.builds(
        Rotate, NTH, st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(days=9)]), ACTORS
    ),
    st.builds(
        PatchToken,
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
    st.builds(Use, NTH),
)
TOKEN_ENDS = st.one_of(
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
class Accident:
    """What befalls a call: at which of its awaits, and a cancellation or the connection's end."""

    at: int
    kind: Moment | str


NO_ACCIDENT = st.none()
ACCIDENTS = st.one_of(
    NO_ACCIDENT,
    st.builds(Accident, st.integers(1, 6), st.sampled_from([*MOMENTS, "killed"])),
)

# ---------------------------------------------------------------- the machine

_numbers = itertools.count(1)


class TenantMachine(RuleBasedStateMachine):
    """Two tenants of a database, and a loop of its own in which their calls run."""

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
            self.run(self._settled())
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    async def _is_whole(self) -> None:
        """Every connection of the pool can be had, and none has a transaction open."""
        executor = self.svc._executor
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(executor._pool.get_max_size()):
                lent = await stack.enter_async_context(executor._lease())
                assert not lent.is_in_transaction()

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(call)

    # ------------------------------------------------------------ changes

    @initialize(
        each=st.lists(CONVERSATIONS, min_size=3, max_size=3, unique_by=lambda of: of["id"]),
        turns=st.lists(TURNS, min_size=2, max_size=3),
        keyed=KEYED_APPENDS,
        thumbs=st.lists(st.sampled_from([1, -1]), min_size=2, max_size=2),
        token=ISSUES,
    )
    def begin(self, each, turns, keyed, thumbs, token):
        """Have something there for the rest to find: equal things at both tenants."""
        said = [Append(fields["id"], turn) for fields in each for turn in turns]
        judged = [
            Judge(fields["id"], 2, thumb) for fields, thumb in zip(each, thumbs, strict=False)
        ]
        first = Append(keyed.id, keyed.turn, keyed.token_id, keyed.key)
        for name in self.tenants:
            self.change(name, CreateMany(each))
            self.change(name, first)
            self.change(name, Transaction([*said, *judged], fails=False))
            self.change(name, token)
            self.change(name, Rotate(0, timedelta(0), "me"))

    @rule(name=TENANTS, fields=CONVERSATIONS)
    def create(self, name, fields):
        self.change(name, Create(fields))

    @rule(name=TENANTS, change=CHANGES, accident=ACCIDENTS)
    def write(self, name, change, accident):
        self.change(name, change, accident)

    @rule(name=TENANTS, change=KEYED_APPENDS, accident=ACCIDENTS)
    def append_with_a_key(self, name, change, accident):
        self.change(name, change, accident)

    @rule(name=TENANTS, change=DELETIONS, accident=ACCIDENTS)
    def delete(self, name, change, accident):
        self.change(name, change, accident)

    @rule(
        name=TENANTS,
        changes=st.lists(CHANGES, min_size=1, max_size=3),
        fails=st.booleans(),
        accident=ACCIDENTS,
    )
    def transaction(self, name, changes, fails, accident):
        self.change(name, Transaction(changes, fails), accident)

    @rule(name=TENANTS, origin=TENANTS, accident=ACCIDENTS)
    def export_and_load(self, name, origin, accident):
        self.change(name, Copy(self.tenants[origin]), accident)

    @rule(name=TENANTS, change=TOKEN_CHANGES, accident=ACCIDENTS)
    def change_tokens(self, name, change, accident):
        if isinstance(change, Import):  # secrets are unique among all tenants of the database
            secrets = [self.secrets[FOREIGN.index(secret)] for secret in change.secrets]
            change = Import(secrets, change.kind)
        self.change(name, change, accident)

    @rule(name=TENANTS, change=TOKEN_ENDS, accident=ACCIDENTS)
    def end_tokens(self, name, change, accident):
        self.change(name, change, accident)

    @rule()
    def lose_all_connections(self):
        """Between two calls; the next ones find out, and may fail for it, but not all of them."""
        self.run(self._kill())

    def change(self, name: str, change: Change, accident: Accident | None = None) -> None:
        """Make it in the model and in the database, and compare what there is then."""
        before, after = self.tenants, copy.deepcopy(self.tenants)
        expected = outcome_of(change, after[name])
        strike = self.run(self._made(change, before[name], accident))
        if strike.was_struck and accident.kind in MOMENTS:
            assert isinstance(strike.error, asyncio.CancelledError), strike
            self._find_out(name, change, before, after)
        elif isinstance(strike.error, Unavailable):
            self._find_out(name, change, before, after)
        else:
            self._compare(change, expected, strike)
            if strike.error is None:
                change.learn(after[name], strike.result)
            self._settle_on(after)

    async def _made(self, change: Change, tenant: Tenant, accident: Accident | None) -> Strike:
        call = change.call(self.svc, tenant)
        if accident is None:
            return await struck(call, 0, "waiting")
        if accident.kind == "killed":
            return await interrupted(call, accident.at, self._kill)
        return await struck(call, accident.at, accident.kind)

    async def _kill(self) -> None:
        killed = await self.observer.fetch(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        pids = [row["pid"] for row in killed]  # and not whatever the pool opens in their place
        async with asyncio.timeout(20):  # the server's own wait for them is in steps of 100 ms
            while await self.observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1::int[])", pids
            ):
                await asyncio.sleep(0.001)

    def _compare(self, change: Change, expected: object, strike: Strike) -> None:
        if isinstance(expected, AsyncSvcError):
            assert type(strike.error) is type(expected), (change, expected, strike)
        else:
            assert strike.error is None, (change, expected, strike)
            assert change.told(strike.result) == expected, change

    def _find_out(self, name: str, change: Change, before: dict, after: dict) -> None:
        """Take what is there for what happened; make a keyed append again, and so be sure."""
        self._settle_on(before, after)
        if isinstance(change, Append) and change.key is not None:
            self.change(name, change)

    def _settle_on(self, *candidates: dict[str, Tenant]) -> None:
        """Go on with the first of these that the database agrees with."""
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

    async def _read(self) -> dict[str, Found]:
        await self._settled()
        return {name: await self._found(tenant.id) for name, tenant in self.tenants.items()}

    async def _settled(self) -> None:
        """Wait for what was cancelled, and use up what is left of connections that were lost."""
        async with asyncio.timeout(20):
            while await self.observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                " AND state IS DISTINCT FROM 'idle'"
            ):
                await asyncio.sleep(0.002)
            while True:
                # One that is lost while it is held is no longer to be asked.
                with contextlib.suppress(Unavailable, asyncpg.InterfaceError):
                    await self._is_whole()
                    await self.svc.tokens.get_list("nobody")
                    return

    async def _found(self, tenant_id: str) -> Found:
        svc = self.svc
        return Found(
            [each async for each in svc.conversations.export(tenant_id=tenant_id)],
            (await svc.tokens.get_list(tenant_id, limit=1_000)).items,
            (await svc.tokens.audit(tenant_id, limit=1_000)).items,
            await self._booked(tenant_id, ANY, ANY, ANY),
        )

    async def _booked(
        self, tenant_id: str, dialog_id: object, source: object, token_id: object
    ) -> dict[str, int]:
        buckets = await self.svc.conversations.stats(
            tenant_id,
            *EVER,
            source,
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
            # One filter at most in most cases: with several, nothing is found.
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
        expected = [talk.id for talk in listed(list(self.tenants[name].talks.values()), query)]
        by_cursor = by_cursor and query.has_cursors
        assert self.run(self._walked(self.tenants[name].id, query, size, by_cursor)) == expected

    async def _walked(self, tenant_id: str, query: Query, size: int, by_cursor: bool) -> list[str]:
        filters = {name: getattr(query, name) for name in query.__dataclass_fields__}
        found: list[str] = []
        page, after = 1, None
        while True:
            listed_page = await self.again(
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
        keywords=st.sampled_from(["HELLO", "h", "l", "%", "a_b", "50", "\n", "nobody says"]),
        dialog_id=st.just(ANY) | DIALOGS,
        user_id=st.sampled_from([*[ANY] * 3, "", "u"]),
        limit=st.integers(1, 3),
    )
    def search(self, name, keywords, dialog_id, user_id, limit):
        tenant = self.tenants[name]
        expected = [
            (talk.id, seq)
            for talk in tenant.talks.values()
            if dialog_id in {ANY, talk.dialog_id} and user_id in {ANY, talk.user_id}
            for seq in [
                said["seq"] for said in talk.messages if keywords.lower() in said["content"].lower()
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
            page = await self.again(
                lambda after=after: self.svc.conversations.search(
                    tenant_id, keywords, after=after, total="exact", **filters
                )
            )
            found += [(hit.id, hit.seq) for hit in page.items]
            after = page.next
            if after is None:
                assert page.total == len(found)
                return found

    async def again(self, call: Any) -> Any:
        """Make a read again whose connection was found to be lost: once for each there is."""
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
        call = self.again(
            lambda: self.svc.conversations.messages(
                id,
                tenant_id=tenant.id,
                after_seq=after_seq,
                before_seq=before_seq,
                last=last,
                limit=limit,
            )
        )
        if id not in tenant.talks:
            strike = self.run(struck(call, 0, "waiting"))
            assert isinstance(strike.error, NotFound)
            return
        seqs = [
            seq
            for seq in tenant.talks[id].said
            if seq > (after_seq or 0) and (before_seq is None or seq < before_seq)
        ]
        expected = seqs[:limit] if last is None else seqs[-last:]
        assert [message.seq for message in self.run(call)] == expected

    @rule(name=TENANTS, ids=st.lists(IDS, min_size=1, max_size=4))
    def by_ids(self, name, ids):
        tenant = self.tenants[name]
        conversations = self.svc.conversations
        call = self.again(lambda: conversations.get_by_ids(ids, tenant_id=tenant.id))
        expected = [(id, tenant.talks[id].name) for id in ids if id in tenant.talks]
        assert [(each.id, each.name) for each in self.run(call)] == expected

    @rule(name=TENANTS, dialog_id=DIALOGS, exp_user_id=st.sampled_from("uw"))
    def names(self, name, dialog_id, exp_user_id):
        tenant = self.tenants[name]
        conversations = self.svc.conversations
        call = self.again(
            lambda: conversations.get_names(dialog_id, exp_user_id, tenant_id=tenant.id)
        )
        assert sorted((each.id, str(each.name)) for each in self.run(call)) == sorted(
            (talk.id, str(talk.name))
            for talk in tenant.talks.values()
            if (talk.dialog_id, talk.exp_user_id) == (dialog_id, exp_user_id)
        )

    @rule()
    def maintain(self):
        """It finds nothing that is old, and takes nothing else; what is searched moves."""
        assert self.run(self.again(self.svc.maintain)).append_keys == 0

    @rule(
        name=TENANTS,
        dialog_id=st.just(ANY) | DIALOGS,
        source=st.just(ANY) | SOURCES,
        token_id=st.just(ANY) | TOKEN_IDS,
    )
    def usage(self, name, dialog_id, source, token_id):
        tenant = self.tenants[name]
        of = (dialog_id, source, token_id)
        found = self.run(self.again(lambda: self._booked(tenant.id, *of)))
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
            self.again(
                lambda: self.svc.conversations.stats(
                    self.tenants[name].id, basis="creation", **options
                )
            )
        )
        expected = usage(list(self.tenants[name].talks.values()), question)
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
            page = await self.again(
                lambda after=after: method(tenant_id, limit=limit, after=after, **filters)
            )
            found += page.items
            after = page.next
            if after is None:
                return found


def outcome_of(change: Change, tenant: Tenant) -> object:
    """What the call should answer, or the error that it should raise."""
    try:
        return change.apply(tenant)
    except AsyncSvcError as error:
        return error


def test_the_public_api_does_what_the_model_does_whatever_befalls_it(dsn):
    run_state_machine_as_test(lambda: TenantMachine(dsn), settings=PROFILE)
