"""The statements of `sql/session`: whole conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from asyncsvc.database import build_value, build_values
from asyncsvc.models import Conversation
from asyncsvc.repositories.base import Repository
from asyncsvc.repositories.large_rows import (
    array_of,
    build_conversation,
    build_row,
    parse_values,
)
from asyncsvc.validation.types import UNSET, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Row

T = TypeVar("T")


class Session(NamedTuple):
    """A whole conversation for `asyncsvc.ragflow`. All lists have one item for each message."""

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

    async def get_by_ids(
        self,
        build: Callable[[Sequence[Row]], Awaitable[T]],
        *,
        tenant_id: str,
        ids: Sequence[str],
        include_dsl: bool = True,
        user_id: str | UnsetType = UNSET,
    ) -> list[T]:
        """Return the conversations that exist, in the order of the ids.

        `build` is `build_session` or `build_conversation`.
        """
        rows = await self._rows(
            "get_by_ids",
            *(["one"] if len(ids) == 1 else []),
            *(["message_models"] if build is build_conversation else []),
            tenant_id=tenant_id,
            ids=ids,
            include_dsl=include_dsl,
            user_id=user_id,
        )
        starts = [index for index, row in enumerate(rows) if row["is_first"]]
        return [await build(rows[start:end]) for start, end in pairwise([*starts, len(rows)])]

    async def lock(self, *, tenant_id: str, id: str) -> Conversation | None:
        """Lock a conversation; return it without dsl and messages, or None if there is none."""
        rows = await self._rows("lock", tenant_id=tenant_id, id=id)
        return await build_row(Conversation, rows[0]) if rows else None


async def build_session(rows: Sequence[Row]) -> Session:
    """Build a conversation from its rows."""
    rows_with_messages = rows if rows[0]["roles"] is not None else ()
    roles = [array_of(row, "roles") for row in rows_with_messages]
    contents = [array_of(row, "contents") for row in rows_with_messages]
    counted_rows = [(row, len(each)) for row, each in zip(rows_with_messages, roles, strict=True)]
    thumbs = [array_of(row, "thumbs") or [None] * count for row, count in counted_rows]
    references = [
        build_value(str, row, "message_references") or ",".join(["null"] * count)
        for row, count in counted_rows
    ]
    return Session(
        await build_row(Conversation, rows[0]),
        list(chain.from_iterable(roles)),
        list(chain.from_iterable(contents)),
        await parse_values(build_values(str, rows_with_messages, "payloads"), "payloads"),
        await parse_values(references, "message_references"),
        list(chain.from_iterable(thumbs)),
    )
