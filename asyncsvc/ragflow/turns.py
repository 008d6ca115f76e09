"""Appends RAGFlow's messages, which may be judged already."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asyncsvc.client import Services
from asyncsvc.models import Appended

IN_TURN: Final = ("role", "content", "payload", "reference")
"""What an append takes of a message that was taken apart."""


async def append(
    svc: Services,
    id: str,
    turn: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    *,
    tenant_id: str,
    expected_seq: int,
) -> Appended:
    """Append messages that were taken apart, with their thumbs or not at all.

    One round trip; with thumbs one for each, in a transaction of two more.
    """
    thumbs = {place: each["thumb"] for place, each in enumerate(messages) if each["thumb"]}
    inputs = [{name: each[name] for name in IN_TURN if name in each} for each in messages]
    async with contextlib.AsyncExitStack() as stack:
        tx = await stack.enter_async_context(svc.transaction()) if thumbs else svc
        appended = await tx.conversations.append_message(
            id, {**turn, "messages": inputs}, tenant_id=tenant_id, expected_seq=expected_seq
        )
        for place, thumb in thumbs.items():
            await tx.conversations.set_feedback(
                id, appended.first_seq + place, thumb, tenant_id=tenant_id
            )
    return appended
