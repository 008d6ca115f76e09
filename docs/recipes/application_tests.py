"""Test an application with the fixtures of the pytest plugin: no test sees the rows of another."""

import pytest

import asyncsvc
from asyncsvc import Message, Turn


async def greet(svc: asyncsvc.Services) -> str:
    """Stand in for a function of the application."""
    chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
    turn = Turn(messages=[Message(role="assistant", content="Hello")])
    await svc.conversations.append_message(chat.id, turn, tenant_id="acme")
    return chat.id


@pytest.mark.asyncio
async def test_a_greeting_is_stored(asyncsvc_services: asyncsvc.AsyncSvc) -> None:
    id = await greet(asyncsvc_services)
    (message,) = await asyncsvc_services.conversations.messages(id, tenant_id="acme")
    assert message.content == "Hello"


@pytest.mark.asyncio
async def test_the_store_is_empty_again(asyncsvc_services: asyncsvc.AsyncSvc) -> None:
    assert (await asyncsvc_services.conversations.get_list(tenant_id="acme")).total == 0
