"""The entries of `svc.tokens`."""

from datetime import timedelta

from tests.support.registry import counting
from tests.support.registry.counting import after, repeated, valid
from tests.support.registry.examples import TOKEN_PATCH
from tests.support.registry.method import (
    SECRET,
    TOKEN_ID,
    TOKEN_IDS,
    TOKEN_PATCHES,
    TOKEN_RECORDS,
    VALID,
    Method,
    Write,
    only,
)

TOKENS = [
    Method(
        name="tokens.create",
        call={
            "name": "n",
            "scopes": ["read"],
            "dialog_id": "d",
            "source": "s",
            "kind": "api",
            "metadata": {"label": "l"},
            "expires_at": None,
            "actor": "me",
        },
        cost="row",
        writes=True,
        cancelled=[Write(is_repeatable=False)],
        accepts_none=frozenset({"dialog_id"}),
    ),
    Method(
        name="tokens.import_",
        call={"records": TOKEN_RECORDS, "actor": None, "on_rejected": None},
        cost="batches",
        writes=True,
        has_batches=True,
    ),
    Method(
        name="tokens.verify",
        call={
            "secret": SECRET,
            "kind": "api",
            "scopes": ["read"],
            "record_use": True,
            "budgets": True,
            "user_id": "u",
            "dialog_id": "d",
        },
        cost="row",
        round_trips=[
            (2, valid()),
            (1, repeated()),
            (1, valid(record_use=False)),
            (0, valid(secret="s")),
            (1, valid(record_use=False, budgets=False, user_id=None, dialog_id=None)),
        ],
        writes=True,
        is_retried=True,
        tenant="secret",
        accepts_none=frozenset({"user_id", "dialog_id"}),
    ),
    Method(
        name="tokens.used",
        call={"secret": SECRET},
        cost="row",
        round_trips=[(2, valid()), (0, valid(secret="s"))],
        writes=True,
        is_retried=True,
        tenant="secret",
    ),
    Method(
        name="tokens.get_list",
        call={"kind": "api", "dialog_id": "d", "after": None, "limit": 5},
        cost="page",
        isolation=[VALID, only("dialog_id"), only("kind"), only()],
        accepts_none=frozenset({"dialog_id"}),
    ),
    Method(name="tokens.get_by_id", call={"id": TOKEN_ID}, cost="row"),
    Method(name="tokens.get_by_ids", call={"ids": TOKEN_IDS}, cost="row"),
    Method(
        name="tokens.update_many_by_id",
        call={"patches": TOKEN_PATCHES, "actor": "me"},
        cost="row",
        writes=True,
        cancelled=[Write(is_repeatable=False)],
    ),
    Method(
        name="tokens.delete_by_id",
        call={"id": TOKEN_ID, "actor": "me"},
        cost="row",
        writes=True,
    ),
    Method(
        name="tokens.delete_by_ids",
        call={"ids": TOKEN_IDS, "actor": "me"},
        cost="row",
        writes=True,
    ),
    Method(
        name="tokens.update_by_id",
        call={"id": TOKEN_ID, "patch": TOKEN_PATCH, "actor": "me"},
        cost="row",
        writes=True,
        cancelled=[Write({"patch": {"scopes": ["new"]}}, is_repeatable=False)],
    ),
    Method(
        name="tokens.rotate",
        call={"id": TOKEN_ID, "overlap": timedelta(days=1), "expires_at": None, "actor": "me"},
        cost="row",
        round_trips=[(1, valid()), (2, valid(id="absent")), (2, after("tokens.revoke"))],
        writes=True,
    ),
    Method(
        name="tokens.revoke",
        call={"id": TOKEN_ID, "reason": "leaked", "actor": "me"},
        cost="row",
        round_trips=[(1, valid()), (2, valid(id="absent")), (2, repeated())],
        writes=True,
    ),
    Method(
        name="tokens.revoke_family",
        call={"id": TOKEN_ID, "reason": "leaked", "actor": "me"},
        cost="batches",
        round_trips=[
            (3, valid()),
            (1, valid(id="absent")),
            (1, after("tokens.revoke")),
            (5, counting.revoke_a_family_that_grows),
        ],
        writes=True,
        is_retried=True,  # the first statement reads
    ),
    Method(
        name="tokens.revoke_all",
        call={
            "kind": "api",
            "dialog_id": "d",
            "unused_since": None,
            "keep": ["a"],
            "reason": "leaked",
            "actor": "me",
        },
        cost="batches",
        round_trips=[
            (2, valid()),
            (1, valid(dialog_id="absent")),
            (3, counting.while_a_token_is_created("revoke_many")),
        ],
        writes=True,
        isolation=[VALID, only("dialog_id"), only("kind"), only()],
        accepts_none=frozenset({"dialog_id"}),
    ),
    Method(
        name="tokens.delete_by_tenant_id",
        call={"actor": "me"},
        cost="batches",
        round_trips=[
            (2, valid()),
            (1, repeated()),
            (3, counting.while_a_token_is_created("delete")),
        ],
        writes=True,
    ),
    Method(
        name="tokens.audit",
        call={"token_id": TOKEN_ID, "after": None, "limit": 5},
        cost="page",
        isolation=[VALID, only("token_id"), only()],
    ),
]
