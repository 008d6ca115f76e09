"""The description of one public method; the tests of all methods are generated from it."""

import contextlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import pytest

from asyncsvc import (
    API4ConversationService,
    APITokenService,
    AsyncSvc,
    BudgetService,
    RecordService,
    Services,
)
from asyncsvc.services.credentials import new_secret
from tests.support.registry.counting import Case, valid
from tests.support.registry.examples import CONVERSATION, TOKEN_PATCH, TOKEN_RECORD, TURN

OWNERS = {
    "conversations": API4ConversationService,
    "tokens": APITokenService,
    "records": RecordService,
    "budgets": BudgetService,
    "": AsyncSvc,
}
"""The classes with public methods, by the attribute of the facade that holds them."""

Cost = Literal["nothing", "row", "page", "batches", "tenant", "database"]
"""What a call reads or writes at most.

- `nothing`: no row.
- `row`: one row or the rows whose ids the caller passes, by key, with the messages of these rows.
- `page`: a page of at most `Settings.max_page_size` rows, or a summary of limited size.
- `batches`: any number of rows, a batch at a time.
- `tenant`: all rows of one tenant in one statement.
- `database`: rows of all tenants.
"""


@dataclass(frozen=True)
class Tenant:
    """A tenant that `furnish` filled: its id and the values that the library generated."""

    id: str = "acme"
    token_id: str = "a"
    secret: str = field(default_factory=lambda: new_secret("asv"))
    token_records: list[dict[str, object]] = field(
        default_factory=lambda: [TOKEN_RECORD | {"secret": new_secret("asv")}]
    )
    budget_id: str = "a"

    @property
    def token_ids(self) -> list[str]:
        return [self.token_id]

    @property
    def token_patches(self) -> dict[str, object]:
        return {self.token_id: TOKEN_PATCH}


@dataclass(frozen=True)
class OfTenant:
    """A value of a call that differs between tenants: an attribute of `Tenant`."""

    attribute: str


TOKEN_ID = OfTenant("token_id")
SECRET = OfTenant("secret")
BUDGET_ID = OfTenant("budget_id")
TOKEN_RECORDS = OfTenant("token_records")
TOKEN_IDS = OfTenant("token_ids")
TOKEN_PATCHES = OfTenant("token_patches")

Arguments = dict[str, object]
Variant = Callable[[Arguments], Arguments]
"""Returns the arguments of another call, from those of the valid call."""


def with_(**changes: object) -> Variant:
    """Return the valid call with these values."""
    return lambda arguments: arguments | changes


def only(*names: str, **changes: object) -> Variant:
    """Return a call that passes these parameters of the valid call, `tenant_id`, and no others."""
    return lambda arguments: {name: arguments[name] for name in ("tenant_id", *names)} | changes


VALID = with_()


@dataclass(frozen=True)
class Write:
    """A call that `test_cancellation` cancels at each await."""

    changes: Mapping[str, object] = field(default_factory=dict)
    """The values that differ from the valid call."""
    is_repeatable: bool = True
    """A second call changes nothing, or is rejected."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A public method, a valid call of it, and what the call costs and does."""

    name: str
    """For example `conversations.create`; of the facade `migrate`."""
    call: Mapping[str, object]
    """A valid value for each parameter except `tenant_id`. The values name rows of `furnish`."""
    cost: Cost
    round_trips: int | Sequence[tuple[int, Case]] = 1
    """The number for the valid call, or each number that the method can make, with a case."""
    writes: bool = False
    is_retried: bool | None = None
    """Whether the first statement of the valid call is retried. None: if the method only reads."""
    tenant: Literal["parameter", "secret", "none"] = "parameter"
    """The argument that selects the tenant: `tenant_id`, the secret of a token, or none."""
    isolation: Sequence[Variant] = (VALID,)
    """Calls with the ids of another tenant. Results and changes equal those without that tenant."""
    cancelled: Sequence[Write] = (Write(),)
    """Of a method that writes: the calls to cancel. Each must change the rows of its tenant."""
    has_batches: bool = False
    """Each batch is a commit, so a part of the write may be applied after a cancellation."""
    accepts_none: frozenset[str] = frozenset()
    """The parameters whose None is valid, of those whose invalid values contain None."""
    unchecked: frozenset[str] = frozenset()
    """The parameters for which no value is rejected before any SQL."""
    reports_errors: bool = False
    """An error of the database is a part of the result. The call does not raise it."""
    error_as_restricted_role: str | None = None
    """The error of the valid call as a role that row-level security restricts."""

    def __str__(self) -> str:
        return self.name

    @property
    def is_retriable(self) -> bool:
        return not self.writes if self.is_retried is None else self.is_retried

    @property
    def cases(self) -> Sequence[tuple[int, Case]]:
        """The numbers of round trips, each with a call that makes as many."""
        if isinstance(self.round_trips, int):
            return [(self.round_trips, valid())]
        return self.round_trips

    def raises(self, error: type[Exception]) -> AbstractContextManager[object]:
        """Expect this error of the database, unless the method reports errors."""
        return contextlib.nullcontext() if self.reports_errors else pytest.raises(error)

    @property
    def sends_statements(self) -> bool:
        return any(number for number, _ in self.cases)

    @property
    def owner(self) -> type:
        """The class that has the method."""
        return OWNERS[self.name.rpartition(".")[0]]

    def arguments(self, tenant: Tenant | None = None) -> Arguments:
        """Return the arguments of the valid call in this tenant."""
        tenant = tenant or Tenant()
        values = {
            name: getattr(tenant, value.attribute) if isinstance(value, OfTenant) else value
            for name, value in self.call.items()
        }
        return values | ({"tenant_id": tenant.id} if self.tenant == "parameter" else {})

    async def run(self, svc: Services, arguments: Mapping[str, object]) -> object:
        """Call the method; return the items of an asynchronous generator as a list."""
        attribute, _, name = self.name.rpartition(".")
        outcome = getattr(getattr(svc, attribute) if attribute else svc, name)(**arguments)
        if isinstance(outcome, AbstractAsyncContextManager):
            async with outcome as value:
                return value
        if isinstance(outcome, AsyncIterator):
            return [item async for item in outcome]
        return await outcome if isinstance(outcome, Awaitable) else outcome


async def furnish(svc: Services, tenant_id: str) -> Tenant:
    """Store the rows of the valid calls: conversation "a" of 4 messages, records, a token and a
    budget of the tenant.

    The ids of the messages are "m1" to "m4".
    """
    await svc.conversations.create(tenant_id=tenant_id, **CONVERSATION | {"id": "a"})
    for key, ids in (("first", ("m1", "m2")), ("second", ("m3", "m4"))):
        messages = [each | {"id": id} for each, id in zip(TURN["messages"], ids, strict=True)]
        await svc.conversations.append_message(
            "a", TURN | {"messages": messages}, tenant_id=tenant_id, idempotency_key=key
        )
    await svc.conversations.set_feedback("a", 2, -1, tenant_id=tenant_id)
    for id in ("a", "b"):
        await svc.records.put("k", id, {"n": 0}, tenant_id=tenant_id, user_id="u")
    issued = await svc.tokens.create(tenant_id=tenant_id, name="n", dialog_id="d", scopes=["read"])
    budget = await svc.budgets.set(
        tenant_id=tenant_id, scope="tenant", metric="rounds", limit=10**6
    )
    return Tenant(tenant_id, issued.token.id, issued.secret.get_secret_value(), budget_id=budget.id)


# The parts of a result that differ per call: instants, new ids, and the hints of secrets.
_VARYING = re.compile(
    r"datetime\.datetime\((?:[^()]|\([^()]*\))*\)|\b[0-9a-f]{32}\b|hint='[^']*'|(?:Token|Usage)Event\(id=\d+"
)


def comparable(value: object) -> str:
    """Return a result or a row as text, without the parts that differ per call."""
    return _VARYING.sub("...", value if isinstance(value, str) else repr(value))


def public_methods() -> set[str]:
    """Return the names of all public methods of the services and of the facade."""
    return {
        f"{attribute}.{name}".removeprefix(".")
        for attribute, owner in OWNERS.items()
        for name, _ in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }


def parameters_of(name: str) -> list[str]:
    """Return the names of the parameters of a public method."""
    attribute, _, method = name.rpartition(".")
    signature = inspect.signature(getattr(OWNERS[attribute], method))
    return [each for each in signature.parameters if each != "self"]
