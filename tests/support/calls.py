"""Every public method of both services, with valid arguments.

Tests of all methods use this table. `test_validation` compares the table with the signatures, so it
contains every method and every parameter.
"""

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from asyncsvc import API4ConversationService, APITokenService
from asyncsvc.client import Services
from asyncsvc.services.credentials import new_secret

ATTRIBUTE = {API4ConversationService: "conversations", APITokenService: "tokens"}
MESSAGE = {
    "role": "user",
    "content": "hello",
    "reference": {"chunks": ["c"]},
    "payload": {"id": "m", "parts": ["p"]},
}
TURN = {
    "messages": [MESSAGE, MESSAGE | {"role": "assistant", "content": "world"}],
    "tokens": 7,
    "duration": 0.5,
    "round": 1,
    "errors": "none",
    "dsl": {"graph": ["node"]},
    "token_id": "t",
}
CONVERSATION = {
    "dialog_id": "d",
    "id": "new",
    "user_id": "u",
    "exp_user_id": "e",
    "name": "n",
    "source": "s",
    "dsl": {"graph": ["node"]},
    "version_title": "v",
    "metadata": {"label": "l"},
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
}
RECORD = CONVERSATION | {
    "id": "record",
    "messages": [MESSAGE | {"seq": 1, "thumb": 1, "created_at": datetime(2026, 1, 2, tzinfo=UTC)}],
    "errors": "none",
    "round": 1,
    "tokens": 7,
    "duration": 0.5,
    "last_seq": 1,
    "updated_at": datetime(2026, 1, 3, tzinfo=UTC),
}
CONVERSATION_PATCH = {
    "name": "n",
    "source": "s",
    "version_title": "v",
    "metadata": {"label": "l"},
    "dsl": {"graph": ["node"]},
    "errors": "none",
    "user_id": "u",
    "exp_user_id": "e",
    "dialog_id": "d",
}
MESSAGE_PATCH = {"content": "c", "payload": {"id": "m"}, "reference": {"chunks": ["c"]}}
TOKEN_PATCH = {
    "name": "n",
    "scopes": ["read"],
    "dialog_id": "d",
    "source": "s",
    "metadata": {"label": "l"},
    "expires_at": None,
}
TOKEN_RECORD = {
    "secret": new_secret("asv"),
    "kind": "api",
    "name": "n",
    "scopes": ["read"],
    "dialog_id": "d",
    "source": "s",
    "metadata": {"label": "l"},
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "expires_at": None,
}

GOOD = {
    API4ConversationService: {
        "create": CONVERSATION,
        "create_many": {"conversations": [CONVERSATION]},
        "get_list": {
            "dialog_id": "d",
            "page_number": 1,
            "items_per_page": 10,
            "orderby": "created_at",
            "desc": True,
            "id": "a",
            "user_id": "u",
            "include_dsl": True,
            "keywords": "k",
            "from_date": "2026-01-01",
            "to_date": "2026-12-31",
            "exp_user_id": "e",
            "after": None,
            "total": "exact",
            "include_messages": False,
            "tz": "UTC",
        },
        "search": {
            "keywords": "hello",
            "dialog_id": "d",
            "user_id": "u",
            "after": None,
            "limit": 5,
            "total": "exact",
        },
        "get_by_id": {"id": "a", "include_dsl": True, "include_messages": True},
        "get_by_ids": {"ids": ["a"], "include_dsl": True, "include_messages": True},
        "get_names": {"dialog_id": "d", "exp_user_id": "e", "limit": 5},
        "messages": {"id": "a", "after_seq": 1, "before_seq": 9, "last": None, "limit": 5},
        "append_message": {
            "id": "a",
            "turn": TURN,
            "idempotency_key": "k",
            "expected_seq": None,
        },
        "update_by_id": {"id": "a", "patch": CONVERSATION_PATCH},
        "update_many_by_id": {"patches": {"a": CONVERSATION_PATCH}},
        "set_feedback": {"id": "a", "seq": 1, "thumb": 1},
        "update_message": {"id": "a", "seq": 1, "patch": MESSAGE_PATCH},
        "delete_message": {"id": "a", "seq": 1},
        "pop_message": {"id": "a"},
        "clear_messages": {"id": "a"},
        "delete_by_id": {"id": "a"},
        "delete_by_ids": {"ids": ["a"]},
        "delete_by_dialog_ids": {"dialog_ids": ["d"]},
        "erase_user": {"user_id": "u", "on_batch": None},
        "delete_tenant": {"on_batch": None},
        "purge": {
            "older_than": timedelta(days=1),
            "dialog_id": "d",
            "by": "created_at",
            "dry_run": False,
            "tz": "UTC",
            "on_batch": None,
        },
        "export": {"dialog_id": "d", "user_id": "u"},
        "import_": {"records": [RECORD], "on_rejected": None},
        "stats": {
            "from_date": "2026-01-01",
            "to_date": "2026-12-31",
            "source": None,
            "basis": "activity",
            "interval": "day",
            "dialog_id": "d",
            "token_id": "k",
            "tz": "UTC",
            "fill": True,
        },
        "declare_zone": {"tz": "Asia/Kathmandu"},
        "recount_usage": {},
    },
    APITokenService: {
        "create": {
            "name": "n",
            "scopes": ["read"],
            "dialog_id": "d",
            "source": "s",
            "kind": "api",
            "metadata": {"label": "l"},
            "expires_at": None,
            "actor": "me",
        },
        "import_": {"records": [TOKEN_RECORD], "actor": None, "on_rejected": None},
        "verify": {
            "secret": new_secret("asv"),
            "kind": "api",
            "scopes": ["read"],
            "record_use": True,
        },
        "used": {"secret": new_secret("asv")},
        "get_list": {"kind": "api", "dialog_id": "d", "after": None, "limit": 5},
        "get_by_id": {"id": "a"},
        "update_by_id": {"id": "a", "patch": TOKEN_PATCH, "actor": "me"},
        "rotate": {"id": "a", "overlap": timedelta(days=1), "expires_at": None, "actor": "me"},
        "revoke": {"id": "a", "reason": "leaked", "actor": "me"},
        "revoke_family": {"id": "a", "reason": "leaked", "actor": "me"},
        "revoke_all": {
            "kind": "api",
            "dialog_id": "d",
            "unused_since": None,
            "keep": ["a"],
            "reason": "leaked",
            "actor": "me",
        },
        "delete_by_tenant_id": {"actor": "me"},
        "audit": {"token_id": "a", "after": None, "limit": 5},
    },
}


def public_methods(service: type) -> dict[str, inspect.Signature]:
    """Return the asynchronous public methods of a service, with their signatures."""
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(service, is_asynchronous)
        if not name.startswith("_")
    }


def is_asynchronous(member: object) -> bool:
    return inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)


METHODS = [(service, method) for service in ATTRIBUTE for method in public_methods(service)]


def method_name(value: object) -> str:
    """Return a part of a pytest id, for example of `conversations-create`."""
    return ATTRIBUTE[value] if isinstance(value, type) else str(value)


def arguments(
    service: type,
    method: str,
    tenant_id: str = "acme",
    furnished: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return valid arguments of a method by name; values of `furnish` replace the table's."""
    values = dict(GOOD[service][method])
    values |= {name: value for name, value in (furnished or {}).items() if name in values}
    if "tenant_id" in public_methods(service)[method].parameters:
        values["tenant_id"] = tenant_id
    return values


async def call(svc: Services, service: type, method: str, **values: object) -> object:
    """Call a method; return the items of an asynchronous generator as a list."""
    outcome = getattr(getattr(svc, ATTRIBUTE[service]), method)(**values)
    if inspect.isasyncgen(outcome):
        return [item async for item in outcome]
    return await outcome


async def furnish(svc: Services, tenant_id: str) -> dict[type, dict[str, object]]:
    """Store the conversation and the token that the calls of the table need.

    Returns, by service, the arguments that the library chooses: the token's id and its secret.
    """
    await svc.conversations.create(tenant_id=tenant_id, **CONVERSATION | {"id": "a"})
    for key in ("first", "second"):
        await svc.conversations.append_message("a", TURN, tenant_id=tenant_id, idempotency_key=key)
    await svc.conversations.set_feedback("a", 2, -1, tenant_id=tenant_id)
    issued = await svc.tokens.create(tenant_id=tenant_id, name="n", dialog_id="d", scopes=["read"])
    return {
        API4ConversationService: {},
        APITokenService: {
            "id": issued.token.id,
            "token_id": issued.token.id,
            "secret": issued.secret.get_secret_value(),
        },
    }
