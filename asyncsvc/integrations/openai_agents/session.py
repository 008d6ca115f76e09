"""The session of the OpenAI Agents SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from asyncsvc.integrations.extras import needs_extra

with needs_extra("openai-agents"):
    from agents.memory.session_settings import coerce_session_settings

from asyncsvc.integrations.message_log import MessageLog
from asyncsvc.integrations.openai_agents.compaction import CompactionHooks
from asyncsvc.integrations.openai_agents.items import is_item, item_of, message_of

if TYPE_CHECKING:
    from agents import RunContextWrapper, SessionSettings, TResponseInputItem

    from asyncsvc import Services


class Session(CompactionHooks):
    """A session that `Runner.run` reads and extends.

    It implements the protocol `agents.Session`. Any number of instances, in any number of tasks and
    processes, can use one session at a time: each call is atomic, and no item is lost.

    An item is stored whole in the payload of its message, which has the role and the text of the
    item too. Items whose messages another program has appended have role and content.

    A call of the runner with an item of the user counts 1 round. The tokens of a run count with the
    items that follow them: the runner passes its usage.
    """

    def __init__(
        self,
        session_id: str,
        svc: Services,
        *,
        tenant_id: str,
        dialog_id: str,
        user_id: str = "",
        token_id: str | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        """Open a session. `MessageLog` explains the arguments that both have.

        Args:
            session_settings: The default `limit` of `get_items`.

        Raises:
            TypeError: `session_settings` has an unknown option.
        """
        self.session_id = session_id
        self.session_settings: SessionSettings | None = coerce_session_settings(
            {} if session_settings is None else session_settings
        )
        owner = {"tenant_id": tenant_id, "dialog_id": dialog_id, "user_id": user_id}
        self._log = MessageLog(session_id, svc, token_id=token_id, **owner)
        self._counted: WeakKeyDictionary[RunContextWrapper[Any], int] = WeakKeyDictionary()

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """Return the items, oldest first.

        Args:
            limit: Only the newest items; 0 or less for none. None: `session_settings.limit`, or
                all.
            wrapper: The run that reads. Its tokens count from here on.
        """
        if wrapper is not None:
            self._counted.setdefault(wrapper, wrapper.usage.total_tokens)
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit <= 0:
            return []
        return await self._log.read(limit, is_item=is_item, item=item_of)

    async def add_items(
        self,
        items: Sequence[TResponseInputItem],
        *,
        wrapper: RunContextWrapper[Any] | None = None,
    ) -> None:
        """Append items, all of them or none.

        Args:
            items: Any number of items.
            wrapper: The run that adds them, whose new tokens are counted.
        """
        if not items:
            return
        messages = [message_of(item, self._log) for item in items]
        total = 0 if wrapper is None else wrapper.usage.total_tokens
        tokens = total - (total if wrapper is None else self._counted.get(wrapper, total))
        rounds = int(any(each["role"] == "user" for each in messages))
        await self._log.append(messages, tokens=max(tokens, 0), rounds=rounds)
        if wrapper is not None:
            self._counted[wrapper] = total

    async def pop_item(
        self,
        *,
        wrapper: RunContextWrapper[Any] | None = None,  # noqa: ARG002 - see get_items
    ) -> TResponseInputItem | None:
        """Delete and return the newest item; None if there is none."""
        message = await self._log.pop()
        return None if message is None else item_of(message)

    async def clear_session(
        self,
        *,
        wrapper: RunContextWrapper[Any] | None = None,  # noqa: ARG002 - see get_items
    ) -> None:
        """Delete all items. The conversation and its usage stay."""
        await self._log.clear()
