"""The entries of `svc.budgets`."""

from asyncsvc import ANY
from tests.support.registry.counting import valid
from tests.support.registry.method import BUDGET_ID, TOKEN_ID, VALID, Method, Write, only, with_

BUDGETS = [
    Method(
        name="budgets.set",
        call={
            "scope": "user",
            "subject": "u",
            "metric": "tokens",
            "limit": 10**6,
            "window": "total",
            "tz": "UTC",
            "since": None,
            "actor": "me",
        },
        cost="tenant",
        round_trips=[
            (6, valid()),
            (4, valid(scope="tenant", subject=None, metric="rounds", window="month")),
        ],
        writes=True,
        isolation=[VALID, only("scope", "subject", "limit")],
        cancelled=[Write(is_repeatable=False)],
        accepts_none=frozenset({"subject"}),
    ),
    Method(
        name="budgets.raise_limit",
        call={"id": BUDGET_ID, "by": 5, "actor": "me"},
        cost="row",
        round_trips=[(1, valid()), (2, valid(id="absent"))],
        writes=True,
        cancelled=[Write(is_repeatable=False)],
    ),
    Method(
        name="budgets.delete",
        call={"id": BUDGET_ID, "actor": "me"},
        cost="row",
        writes=True,
    ),
    Method(
        name="budgets.status",
        call={"token_id": TOKEN_ID, "user_id": "u", "dialog_id": "d"},
        cost="tenant",
        isolation=[VALID, only(), only("user_id")],
        accepts_none=frozenset({"token_id", "user_id", "dialog_id"}),
    ),
    Method(
        name="budgets.check",
        call={"token_id": TOKEN_ID, "user_id": "u", "dialog_id": "d"},
        cost="tenant",
        isolation=[VALID, only(), only("user_id")],
        accepts_none=frozenset({"token_id", "user_id", "dialog_id"}),
    ),
    Method(
        name="budgets.audit",
        call={"budget_id": BUDGET_ID, "after": None, "limit": 5},
        cost="page",
        isolation=[VALID, only()],
    ),
    Method(
        name="budgets.list",
        call={"scope": "tenant", "subject": None, "after": None, "limit": 5},
        cost="page",
        isolation=[VALID, only(), with_(scope=ANY, subject=ANY)],
        accepts_none=frozenset({"subject"}),
    ),
]
