"""The statements of `sql/session`: whole conversations for `asyncsvc.ragflow`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncsvc.database import build_model, build_model_of_json, build_values, json_arrays
from asyncsvc.models import Conversation
from asyncsvc.repositories.base import Repository
from asyncsvc.threads import in_turns

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
        return build_model(Conversation, rows[0]) if rows else None


async def _session(parts: Sequence[Row]) -> Session:
    """Build a conversation from its parts."""
    conversation = build_model_of_json(Conversation, parts[0], "conversation")
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
        await _parsed(chain.from_iterable(build_values(list[str], parts, "payloads"))),
        await _parsed(
            chain.from_iterable(
                part or ["null"] * count for part, count in zip(references, counts, strict=True)
            )
        ),
        list(
            chain.from_iterable(
                part or [None] * count for part, count in zip(thumbs, counts, strict=True)
            )
        ),
    )


async def _parsed(values: Iterable[str]) -> list[Any]:
    """Parse JSON values, in turns with the event loop."""
    parsed = list[Any]()
    async for array in in_turns(json_arrays(values)):
        parsed += json.loads(array)
    return parsed
