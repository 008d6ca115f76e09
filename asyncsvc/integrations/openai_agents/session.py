"""The session of the OpenAI Agents SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from asyncsvc.integrations.extras import needs_extra

with needs_extra("openai-agents"):
    from agents.memory.session_settings import coerce_session_settings

from asyncsvc.integrations.message_log import MessageLog
from asyncsvc.integrations.openai_agents.compaction import CompactionHooks
from asyncsvc.integrations.openai_agents.items import is_item, item_of, message_of, model_of
from asyncsvc.metering import usage_from_openai

if TYPE_CHECKING:
    from agents import RunContextWrapper, SessionSettings, TResponseInputItem

    from asyncsvc import Services, Usage


class _Counted(NamedTuple):
    """How much of the usage of a run is counted."""

    tokens: int
    requests: int

    @classmethod
    def of(cls, wrapper: RunContextWrapper[Any]) -> _Counted:
        """Return all the usage of a run so far."""
        return cls(wrapper.usage.total_tokens, len(wrapper.usage.request_usage_entries))


class Session(CompactionHooks):
    """A session that `Runner.run` reads and extends.

    It implements the protocol `agents.Session`. Any number of instances, in any number of tasks and
    processes, can use one session at a time: each call is atomic, and no item is lost.

    An item is stored whole in the payload of its message, which has the role and the text of the
    item too. Items whose messages another program has appended have role and content.

    A call of the runner with an item of the user counts 1 round. The usage of a run counts with the
    items that follow it, each request to a model by itself: the runner passes it. Its model is
    known if the items name one, as those of the SDK's models of LiteLLM and any-llm do.
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
        self._counted: WeakKeyDictionary[RunContextWrapper[Any], _Counted] = WeakKeyDictionary()

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """Return the items, oldest first.

        Args:
            limit: Only the newest items; 0 or less for none. None: `session_settings.limit`, or
                all.
            wrapper: The run that reads. Its usage counts from here on.
        """
        if wrapper is not None:
            self._counted.setdefault(wrapper, _Counted.of(wrapper))
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
            wrapper: The run that adds them, whose new usage is counted.
        """
        if not items:
            return
        messages = [message_of(item, self._log) for item in items]
        rounds = int(any(each["role"] == "user" for each in messages))
        if wrapper is None:
            await self._log.append(messages, rounds=rounds)
            return
        counted = _Counted.of(wrapper)
        tokens, usage = _new_usage(wrapper, self._counted.get(wrapper, counted), model_of(items))
        await self._log.append(messages, tokens=tokens, usage=usage, rounds=rounds)
        self._counted[wrapper] = counted

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


def _new_usage(
    wrapper: RunContextWrapper[Any], counted: _Counted, model: str | None
) -> tuple[int, list[Usage]]:
    """Return the tokens of a run that are not counted, or the usage of each request.

    Only the tokens are known of usage that a tool has added without its requests.
    """
    entries = wrapper.usage.request_usage_entries[counted.requests :]
    tokens = wrapper.usage.total_tokens - counted.tokens
    if sum(entry.total_tokens for entry in entries) != tokens:
        return max(tokens, 0), []
    usages = [usage_from_openai({"usage": entry, "model": model}) for entry in entries]
    return 0, [usage for usage in usages if usage is not None]
