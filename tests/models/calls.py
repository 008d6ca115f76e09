"""Generated calls of each public method: `VALUES` has a strategy for each parameter.

Values come from small sets, so that calls often name the same rows. A placeholder stands for a
value that only the store knows, until the call runs.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from asyncsvc import ANY, UNSET, Conflict, Services
from tests.models.conversation_model import SORT_KEYS
from tests.models.model import Model
from tests.models.record_model import RECORD_KINDS
from tests.models.state import Row, Tenant
from tests.support.registry import parameters_of

# ---------------------------------------------------------------- placeholders


@dataclass(frozen=True)
class NthToken:
    """The id or the secret of a token by its number; "unknown" if the tenant has no token."""

    number: int
    attribute: str

    def resolve(self, tenant: Tenant, _tenant_id: str) -> str:
        if not tenant.tokens:
            return "unknown"
        token = tenant.tokens[self.number % len(tenant.tokens)]
        return getattr(token, self.attribute) or "unknown"


@dataclass(frozen=True)
class ForeignSecret:
    """A secret of another system, unique in the database. Both tenants of an example share it."""

    name: str

    def resolve(self, _tenant: Tenant, tenant_id: str) -> str:
        return f"{tenant_id.split(maxsplit=1)[0]}-{self.name}-with-a-long-secret-of-another-system"


def resolve(value: object, tenant: Tenant, tenant_id: str) -> Any:
    if isinstance(value, NthToken | ForeignSecret):
        return value.resolve(tenant, tenant_id)
    if isinstance(value, list):
        return [resolve(each, tenant, tenant_id) for each in value]
    if isinstance(value, dict):
        return {
            resolve(name, tenant, tenant_id): resolve(each, tenant, tenant_id)
            for name, each in value.items()
        }
    return value


# ---------------------------------------------------------------- calls


@dataclass(frozen=True)
class Call:
    """A call of a public method in one tenant."""

    method: str
    arguments: Row

    def resolved(self, model: Model, tenant_id: str) -> "Call":
        return Call(self.method, resolve(self.arguments, model.tenants[tenant_id], tenant_id))

    async def run(self, svc: Services, tenant_id: str, **more: object) -> Any:
        method = method_of(svc, self.method)
        accepted = inspect.signature(method).parameters
        callbacks = {"on_rejected": lambda *_: None}
        more |= {name: each for name, each in callbacks.items() if name in accepted}
        result = method(**self.arguments, **with_tenant(method, tenant_id), **more)
        return [each async for each in result] if inspect.isasyncgen(result) else await result

    def apply(self, model: Model, tenant_id: str) -> Any:
        method = method_of(model, self.method)
        return method(**self.arguments, **with_tenant(method, tenant_id))


def method_of(services: Services | Model, name: str) -> Any:
    """Return a method by its name, such as "conversations.create"."""
    for part in name.split("."):
        services = getattr(services, part)
    return services


def with_tenant(method: Any, tenant_id: str) -> dict[str, str]:
    has_tenant = "tenant_id" in inspect.signature(method).parameters
    return {"tenant_id": tenant_id} if has_tenant else {}


@dataclass(frozen=True)
class Transaction:
    """Calls in one transaction, which commits or fails after the last call."""

    calls: list[Call]
    fails: bool = False

    def resolved(self, model: Model, tenant_id: str) -> "Transaction":
        return Transaction([each.resolved(model, tenant_id) for each in self.calls], self.fails)

    async def run(self, svc: Services, tenant_id: str) -> list[Any]:
        async with svc.transaction() as tx:
            results = [await call.run(tx, tenant_id) for call in self.calls]
            if self.fails:
                raise Conflict("on purpose")
        return results

    def apply(self, model: Model, tenant_id: str) -> list[Any]:
        results = [call.apply(model, tenant_id) for call in self.calls]
        if self.fails:
            raise Conflict("on purpose")
        return results


@dataclass(frozen=True)
class Copy:
    """Export the conversations of a tenant and import them into another, or into itself."""

    origin_id: str

    def resolved(self, _model: Model, _tenant_id: str) -> "Copy":
        return self

    async def run(self, svc: Services, tenant_id: str) -> Any:
        records = [each async for each in svc.conversations.export(tenant_id=self.origin_id)]
        return await Call("conversations.import_", {"records": records}).run(svc, tenant_id)

    def apply(self, model: Model, tenant_id: str) -> Any:
        records = model.conversations.export(tenant_id=self.origin_id)
        return model.conversations.import_(records, tenant_id=tenant_id)


# ---------------------------------------------------------------- values

IDS = st.sampled_from(["1", "2", "3%"])
DIALOGS = st.sampled_from("de")
ANY_DIALOG = st.just(ANY) | DIALOGS
USERS = st.sampled_from(["", "u", "v"])
SOURCES = st.sampled_from([None, "s", "t"])
NAMES = st.sampled_from([None, "name", "50%", "a_b"])
TEXTS = st.sampled_from(["hello", "Hello again", "100%", "a_b", "axb"])
JSONS = st.sampled_from([None, {"a": [1, None]}, [], "text", 1.5])
OBJECTS = st.sampled_from([{}, {"k": "v"}])
PAST = [datetime(2026, month, 1, 12, tzinfo=UTC) for month in (1, 3, 5)]
FUTURE = datetime(2090, 1, 1, tzinfo=UTC)
SEQS = st.integers(1, 6)
COUNTS = st.integers(0, 9)
DURATIONS = st.sampled_from([0.0, 0.1, 1.000001])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"])
KINDS = st.sampled_from(["api", "api", "beta"])
SCOPES = st.sampled_from([(), ("read",), ("read", "write"), ("*",)])
EXPIRIES = st.sampled_from([None, None, PAST[0], FUTURE])
TOKEN_IDS = st.sampled_from([None, None, "k", "l"])
NTH_ID = st.builds(NthToken, st.integers(0, 5), st.just("id"))
NTH_SECRET = st.builds(NthToken, st.integers(0, 5), st.just("secret"))


def some(strategy: st.SearchStrategy, size: int = 3) -> st.SearchStrategy:
    return st.lists(strategy, min_size=1, max_size=size, unique=True)


def mostly(default: object, *others: object) -> st.SearchStrategy:
    """Return the default in most cases, since several filters together rarely match a row."""
    return st.sampled_from([default] * 5 + list(others))


def optional(**strategies: st.SearchStrategy) -> st.SearchStrategy:
    """Return a dictionary with some of these keys."""
    return st.fixed_dictionaries({}, optional=strategies)


FIELDS = {
    "dialog_id": DIALOGS,
    "user_id": USERS,
    "exp_user_id": st.sampled_from([None, "u", "w"]),
    "name": NAMES,
    "source": SOURCES,
    "version_title": NAMES,
    "metadata": st.none() | OBJECTS,
    "dsl": JSONS,
}
NEW_CONVERSATION = {**FIELDS, "created_at": st.sampled_from([None, *PAST])}
NEW_CONVERSATIONS = st.fixed_dictionaries(NEW_CONVERSATION)
CONVERSATION = {"id": IDS, **NEW_CONVERSATION}
CONVERSATIONS = st.fixed_dictionaries(CONVERSATION)
MERGES = st.sampled_from([{}, {"k": None}, {"k": {"x": 1}}, {"a": {"y": None, "z": [None]}}])


def exclusive(patch: Row) -> Row:
    """Return the patch without merges of columns that it replaces."""
    replaced = {f"merge_{name}" for name in patch}
    return {name: value for name, value in patch.items() if name not in replaced}


PATCHES = optional(**FIELDS, errors=NAMES, merge_dsl=MERGES, merge_metadata=MERGES).map(exclusive)
TEXT = {"role": st.sampled_from(["user", "assistant"]), "content": TEXTS}
MESSAGE_IDS = st.sampled_from(["m1", "m2", "m3"])
OWN = {"id": MESSAGE_IDS, "created_at": st.sampled_from([None, *PAST])}
MESSAGE = {"payload": OBJECTS, "reference": JSONS}
THUMBS = st.sampled_from([1, -1, None])
TURNS = st.fixed_dictionaries(
    {
        "messages": st.lists(st.fixed_dictionaries(TEXT, optional=MESSAGE), min_size=1, max_size=3),
        "token_id": TOKEN_IDS,
    },
    optional={"tokens": COUNTS, "duration": DURATIONS, "round": st.integers(0, 2),
              "errors": NAMES, "dsl": JSONS, "merge_dsl": MERGES, "merge_metadata": MERGES},
).map(exclusive)  # fmt: skip
TURNS_WITH_IDS = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries(TEXT | OWN, optional=MESSAGE),
            min_size=1,
            max_size=2,
            unique_by=lambda each: each["id"],
        )
    }
)
RECORDS = st.fixed_dictionaries(
    {
        "id": IDS,
        **FIELDS,
        "created_at": st.sampled_from(PAST),
        "messages": st.lists(
            st.fixed_dictionaries(TEXT, optional=MESSAGE | {"thumb": THUMBS}), max_size=3
        ),
    },
    optional={"tokens": COUNTS, "duration": DURATIONS, "round": st.none() | COUNTS,
              "errors": NAMES, "last_seq": st.integers(3, 5), "updated_at": st.just(PAST[2])},
)  # fmt: skip
TOKEN = {
    "scopes": SCOPES,
    "dialog_id": st.none() | DIALOGS,
    "source": SOURCES,
    "metadata": OBJECTS,
    "expires_at": EXPIRIES,
}
TOKEN_RECORDS = st.builds(
    lambda name, kind: {"secret": ForeignSecret(name), "kind": kind, "name": name},
    st.sampled_from(["one", "two", "three"]),
    KINDS,
)

# ---------------------------------------------------------------- arguments of each public method

VALUES: Mapping[str, Mapping[str, st.SearchStrategy]] = {
    "conversations": {
        "id": IDS,
        "ids": st.lists(IDS, min_size=1, max_size=4),
        "dialog_id": ANY_DIALOG,
        "dialog_ids": some(DIALOGS),
        "user_id": mostly(ANY, "", "u"),
        "exp_user_id": st.sampled_from("uw"),
        "conversations": st.lists(
            CONVERSATIONS, min_size=1, max_size=3, unique_by=lambda each: each["id"]
        ),
        "records": st.lists(RECORDS, min_size=1, max_size=3),
        "patch": PATCHES,
        "patches": st.dictionaries(IDS, PATCHES, min_size=1, max_size=3),
        "turn": st.one_of(TURNS, TURNS_WITH_IDS),
        "idempotency_key": st.none(),
        "expected_seq": mostly(None, 0, 4),
        "create": st.none() | NEW_CONVERSATIONS,
        "new": NEW_CONVERSATIONS,
        "message": SEQS | MESSAGE_IDS,
        "message_id": MESSAGE_IDS,
        "thumb": THUMBS,
        "after": st.none() | SEQS | MESSAGE_IDS,
        "before": st.none() | SEQS | MESSAGE_IDS,
        "last": st.none() | st.integers(1, 3),
        "include_dsl": st.booleans(),
        "include_messages": st.booleans(),
        "orderby": st.sampled_from(list(SORT_KEYS)),
        "desc": st.booleans(),
        "keywords": st.sampled_from(["HELLO", "h", "l", "%", "a_b", "50", "\n", "no such words"]),
        "from_date": st.sampled_from(["2025-12-31", "2026-03-01T12:00"]),
        "to_date": st.sampled_from(["2026-03-01", "2027-06-30"]),
        "tz": ZONES,
        "source": st.just(ANY) | SOURCES,
        "basis": st.sampled_from(["creation", "activity"]),
        "interval": st.sampled_from(["day", "week", "month", "total"]),
        "token_id": mostly(ANY, None, "k"),
        "model": mostly(ANY, None, "m"),
        "group_by": mostly(None, "user_id", "dialog_id", "source", "token_id", "model"),
        "top": st.sampled_from([1, 2, 20]),
        "fill": st.booleans(),
        "older_than": st.sampled_from(
            [*PAST, PAST[2] + timedelta(1), timedelta(1), timedelta(9_999), "2026-03-01"]
        ),
        "by": st.sampled_from(["created_at", "updated_at"]),
        "dry_run": st.booleans(),
        "split": st.booleans(),
        # tests/api/test_import_update.py has the updates.
        "update": st.just(False),
    },
    "tokens": {
        "id": NTH_ID,
        "ids": some(NTH_ID),
        "keep": st.lists(NTH_ID, max_size=2),
        "token_id": st.just(ANY) | NTH_ID,
        "secret": NTH_SECRET,
        "records": st.lists(TOKEN_RECORDS, min_size=1, max_size=3),
        "patch": optional(**TOKEN),
        "patches": st.dictionaries(NTH_ID, optional(**TOKEN), min_size=1, max_size=3),
        "kind": st.sampled_from([ANY, "api", "beta"]),
        "dialog_id": st.sampled_from([ANY, None, "d"]),
        "scopes": st.just(()) | SCOPES,
        "record_use": st.booleans(),
        "overlap": st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(days=9), UNSET]),
        "expires_at": st.just(UNSET) | EXPIRIES,
        "unused_since": mostly(None, PAST[0], FUTURE),
        "reason": st.sampled_from([None, "lost"]),
        "actor": st.sampled_from([None, "me"]),
    },
    "records": {
        "kind": st.sampled_from(RECORD_KINDS),
        "id": IDS,
        "ids": st.lists(IDS, min_size=1, max_size=4),
        "data": OBJECTS,
        "patch": st.sampled_from([{}, {"k": None}, {"a": {"b": 1}}, {"a": {"b": None, "c": []}}]),
        "user_id": mostly(ANY, "", "u", "v"),
    },
}
"""The values of a parameter in each method of a service."""
MESSAGE_PATCHES = optional(content=TEXTS, **MESSAGE, merge_payload=MERGES).map(exclusive)
VALUES_OF_METHODS: Mapping[str, Mapping[str, st.SearchStrategy]] = {
    "conversations.create": CONVERSATION,
    "conversations.upsert": {"patch": st.none() | PATCHES},
    "conversations.erase_user": {"user_id": st.sampled_from("uvw")},
    "conversations.put_message": {
        "message": st.fixed_dictionaries(TEXT | OWN, optional=MESSAGE),
        "patch": st.none() | MESSAGE_PATCHES,
    },
    "conversations.set_feedback": {"merge_payload": MERGES},
    "conversations.update_message": {"patch": MESSAGE_PATCHES},
    "conversations.get_list": {
        "id": mostly(ANY, "1"),
        "user_id": mostly(ANY, "", "u"),
        "exp_user_id": mostly(ANY, "u"),
        "thumb": mostly(ANY, 1, -1),
        "metadata": mostly(ANY, {}, {"k": "v"}, {"k": None}),
        "keywords": mostly("", "HELLO", "%", "a_b", "50"),
        "from_date": mostly(None, "2026-03-01"),
        "to_date": mostly(None, "2026-03-01", "2027-06-30"),
    },
    "conversations.declare_zone": {"tz": st.sampled_from(["Europe/Berlin", "Asia/Kathmandu"])},
    "tokens.create": {"name": st.sampled_from(["one", "two"]), "kind": KINDS, **TOKEN},
    "tokens.verify": {
        "kind": KINDS,
        "budgets": st.just(False),
        "user_id": st.none(),
        "dialog_id": st.none(),
    },
}
"""Values of a parameter in one method that differ from those of its service."""
# Only 2 turns, so that a key is often repeated with the same turn and with another turn.
KEYED_TURNS = [
    {"messages": [{"role": "user", "content": "keyed"}], "tokens": 1},
    {"messages": [{"role": "user", "content": "other"}] * 2, "duration": 0.25},
]
WITH_A_KEY = {
    "turn": st.builds(
        lambda turn, token_id: turn | {"token_id": token_id},
        st.sampled_from(KEYED_TURNS),
        TOKEN_IDS,
    ),
    "idempotency_key": st.sampled_from(["k", "l"]),
    "expected_seq": st.none() | st.integers(0, 4),
}

WRITES = (
    *("conversations.create", "conversations.create_many", "conversations.append_message"),
    *("conversations.update_by_id", "conversations.update_many_by_id", "conversations.upsert"),
    *("conversations.set_feedback", "conversations.update_message", "conversations.delete_message"),
    *("conversations.put_message",),
    *("conversations.pop_message", "conversations.clear_messages", "conversations.import_"),
    *("records.put", "records.merge"),
)
TOKEN_WRITES = (
    *("tokens.create", "tokens.import_", "tokens.update_by_id", "tokens.update_many_by_id"),
    *("tokens.rotate", "tokens.revoke", "tokens.revoke_family", "tokens.verify", "tokens.used"),
)
DELETIONS = (
    *("conversations.delete_by_id", "conversations.delete_by_ids", "conversations.erase_user"),
    *("conversations.delete_by_dialog_ids", "conversations.purge", "conversations.delete_tenant"),
    *("tokens.delete_by_id", "tokens.delete_by_ids", "tokens.delete_by_tenant_id"),
    *("tokens.revoke_all", "records.delete"),
)
READS = (
    *("conversations.get_by_id", "conversations.get_by_ids", "conversations.get_names"),
    *("conversations.messages", "conversations.payloads", "conversations.iter_messages"),
    *("conversations.get_message", "conversations.find_message"),
    *("conversations.export", "conversations.stats", "conversations.stats_total"),
    *("tokens.get_by_id", "tokens.get_by_ids", "records.get", "records.get_many"),
)
LISTS = (
    *("conversations.get_list", "conversations.search", "tokens.get_list", "tokens.audit"),
    *("conversations.list_dialogs", "records.list"),
)
UPKEEP = ("maintain", "conversations.declare_zone", "conversations.recount_usage")
GENERATED = {*WRITES, *TOKEN_WRITES, *DELETIONS, *READS, *LISTS, *UPKEEP}
NOT_GENERATED = {
    *("tenant_id", "page_number", "items_per_page", "limit", "after", "after_id", "total"),
    *("on_batch", "on_rejected"),
}
"""Parameters that the state machine itself passes, or leaves at their defaults."""


def arguments_of(method: str) -> dict[str, st.SearchStrategy | None]:
    """Return the strategy of each argument of a public method, or None for a missing strategy."""
    values = VALUES.get(method.partition(".")[0], {}) | VALUES_OF_METHODS.get(method, {})
    return {name: values.get(name) for name in parameters_of(method) if name not in NOT_GENERATED}


def calls(*methods: str, **values: st.SearchStrategy) -> st.SearchStrategy[Call]:
    """Return a strategy for calls of these methods. `values` replaces strategies of arguments."""
    return st.one_of(
        [
            st.builds(Call, st.just(each), st.fixed_dictionaries(arguments_of(each) | values))
            for each in methods
        ]
    )
