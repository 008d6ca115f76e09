"""The statements of `sql/session`: whole conversations for `asyncsvc.ragflow`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncsvc.database import build_model, build_model_of_json, build_value
from asyncsvc.models import Conversation
from asyncsvc.repositories.base import Repository
from asyncsvc.threads import in_turns

if TYPE_CHECKING:
    from asyncsvc.database import Row

_STEP: Final = 2**16
"""The characters of JSON that are parsed in about a millisecond."""


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
    session = Session(conversation, [], [], [], [], [])
    for part in parts if parts[0]["roles"] is not None else ():
        roles = build_value(list[str], part, "roles")
        without = [None] * len(roles)
        has_references, has_thumbs = (
            part[column] is not None for column in ("message_references", "thumbs")
        )
        session.roles.extend(roles)
        session.contents.extend(build_value(list[str], part, "contents"))
        session.payloads.extend(await _parsed(part, "payloads"))
        session.references.extend(
            await _parsed(part, "message_references") if has_references else without
        )
        session.thumbs.extend(
            build_value(list[int | None], part, "thumbs") if has_thumbs else without
        )
    return session


async def _parsed(part: Row, column: str) -> list[Any]:
    """Parse an array of JSON, in turns with the event loop."""
    values = list[Any]()
    async for array in in_turns(_arrays(build_value(list[str], part, column))):
        values += json.loads(array)
    return values


def _arrays(values: Sequence[str]) -> Iterator[str]:
    """Yield JSON arrays of these values, each as large as a step."""
    start, characters = 0, 0
    for index, value in enumerate(values):
        characters += len(value)
        if characters > _STEP:
            yield f"[{','.join(values[start : index + 1])}]"
            start, characters = index + 1, 0
    yield f"[{','.join(values[start:])}]"
