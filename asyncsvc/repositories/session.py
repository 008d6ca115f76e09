"""The statements of `sql/session`: whole conversations for `asyncsvc.ragflow`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncsvc.database import build_models_of_json, build_value, build_values, parse_rows
from asyncsvc.models import Conversation
from asyncsvc.repositories.base import Repository
from asyncsvc.repositories.large_rows import build_row, parse_values
from asyncsvc.validation.json_pieces import LONG_JSON

if TYPE_CHECKING:
    from asyncsvc.database import Row


class Session(NamedTuple):
    """A whole conversation. All lists have one item for each message."""

    conversation: Conversation
    """Its columns, without messages."""
    roles: list[str]
    contents: list[str]
    payloads: list[dict[str, Any]]
    references: list[Any]
    thumbs: list[int | None]


class SessionRepository(Repository):
    """The statements on whole conversations."""

    folder = "session"

    async def get_by_ids(self, *, tenant_id: str, ids: Sequence[str]) -> list[Session]:
        """Return the conversations that exist with all messages, in the order of the ids."""
        flags = ["one"] if len(ids) == 1 else []
        rows = await self._rows("get_by_ids", *flags, tenant_id=tenant_id, ids=ids)
        starts = [index for index, row in enumerate(rows) if row["conversation"] is not None]
        return [await _session(rows[start:end]) for start, end in pairwise([*starts, len(rows)])]

    async def lock(self, *, tenant_id: str, id: str) -> Conversation | None:
        """Lock a conversation; return it without dsl and messages, or None if there is none."""
        rows = await self._rows("lock", tenant_id=tenant_id, id=id)
        return await build_row(Conversation, rows[0]) if rows else None


async def _session(parts: Sequence[Row]) -> Session:
    """Build a conversation from its parts."""
    conversation = await _conversation(parts[0])
    if parts[0]["roles"] is None:
        return Session(conversation, [], [], [], [], [])
    roles = build_values(list[str], parts, "roles")
    references = build_values(list[str], parts, "message_references")
    thumbs = build_values(list[int | None], parts, "thumbs")
    counts = [len(part) for part in roles]
    return Session(
        conversation,
        list(chain.from_iterable(roles)),
        list(chain.from_iterable(build_values(list[str], parts, "contents"))),
        await parse_values(
            chain.from_iterable(build_values(list[str], parts, "payloads")), "payloads"
        ),
        await parse_values(
            chain.from_iterable(
                part or ["null"] * count for part, count in zip(references, counts, strict=True)
            ),
            "message_references",
        ),
        list(
            chain.from_iterable(
                part or [None] * count for part, count in zip(thumbs, counts, strict=True)
            )
        ),
    )


async def _conversation(row: Row) -> Conversation:
    array = f"[{build_value(str, row, 'conversation')}]"
    if len(array) > LONG_JSON:
        (columns,) = await parse_rows(array, "conversation")
        return await build_row(Conversation, columns)
    (conversation,) = build_models_of_json(Conversation, array, "conversation")
    return conversation
