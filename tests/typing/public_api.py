"""A program of a user that the type checkers must accept. It never runs.

Only the parts of an unpacked page are `Any`.
"""

import asyncio
from datetime import date
from typing import Literal, assert_type

from pydantic import SecretStr

import asyncsvc
from asyncsvc import (
    ANY,
    APIToken,
    Appended,
    Conversation,
    ConversationPatch,
    DatabaseError,
    IssuedToken,
    Message,
    Migration,
    NewConversation,
    NotFound,
    Page,
    Settings,
    StoredMessage,
    Turn,
    UsageBucket,
)


async def use(dsn: str) -> None:
    async with asyncsvc.connect(dsn, settings=Settings(max_page_size=50)) as svc:
        assert_type(await svc.migrate(), list[Migration])
        issued = await svc.tokens.create(tenant_id="acme", name="n", scopes=["a"])
        assert_type(issued, IssuedToken)
        assert_type(issued.secret, SecretStr)
        assert_type(await svc.tokens.verify("secret", scopes=("a",)), APIToken)

        chat = await svc.conversations.create(tenant_id="acme", dialog_id="d", dsl={"a": [1]})
        assert_type(chat, Conversation)
        task = asyncio.create_task(
            svc.conversations.append_message(
                chat.id, Turn(messages=[Message(role="user", content="x")]), tenant_id="acme"
            )
        )
        assert_type(await task, Appended)

        page = await svc.conversations.get_list(
            dialog_id="d", tenant_id="acme", orderby="name", total="capped"
        )
        assert_type(page, Page[Conversation])
        _total, _items = page
        assert_type(page.total, int | None)
        assert_type(page.items, list[Conversation])
        assert_type(page.items[0].messages, tuple[StoredMessage, ...] | None)
        assert_type(page.next, str | None)

        await svc.conversations.append_message(
            chat.id, {"messages": [{"role": "user", "content": "x"}]}, tenant_id="acme"
        )
        await svc.conversations.create_many(
            [{"dialog_id": "d"}, NewConversation(dialog_id="d")], tenant_id="acme"
        )
        metadata: dict[str, int] = {"a": 1}
        await svc.conversations.update_by_id("a", {"metadata": metadata}, tenant_id="acme")

        patch = ConversationPatch(name=None, source="s")
        assert_type(
            await svc.conversations.update_by_id("a", patch, tenant_id="acme"), Conversation
        )
        stats = await svc.conversations.stats(
            tenant_id="acme", from_date="2026-01-01", to_date=date(2026, 2, 1), source=ANY
        )
        assert_type(stats, list[UsageBucket])

        async with svc.transaction() as tx:
            assert_type(await tx.conversations.delete_by_ids(["a"], tenant_id="acme"), int)


def problem(error: NotFound | DatabaseError) -> str:
    if isinstance(error, DatabaseError):
        return assert_type(error.sqlstate, str)
    return assert_type(
        error.resource, Literal["conversation", "message", "token", "record", "budget"]
    )
