"""The chat message history of LangChain, each a conversation with 1 message for each message.

The extra `langchain` installs langchain-core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncsvc.integrations.extras import needs_extra

with needs_extra("langchain"):
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import (
        AIMessage,
        BaseMessage,
        ChatMessage,
        HumanMessage,
        SystemMessage,
        message_to_dict,
        messages_from_dict,
    )

from asyncsvc.integrations.message_log import MessageLog
from asyncsvc.metering import usage_from_openai

if TYPE_CHECKING:
    from asyncsvc import Services, StoredMessage, Usage

_ROLES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_CLASSES: Final = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}
_MAX_ID_LENGTH: Final = 128
_ASYNC_ONLY: Final = (
    "this history is asynchronous: await aget_messages, aadd_messages, aclear, or ainvoke a chain"
)


class ChatMessageHistory(BaseChatMessageHistory):
    """A history for `RunnableWithMessageHistory`, and for chains that load and store by themselves.

    Any number of instances, in any number of tasks and processes, can use one conversation at a
    time: each call is atomic, and no message is lost. The methods without `a` raise
    NotImplementedError, because a pool of connections belongs to one event loop.

    A message is stored whole in the payload. Role and text are stored too, and the id of LangChain
    becomes the id of the message, so `set_feedback` finds it. A call with a message of the user
    counts 1 round, and the usage is that of `usage_metadata`.
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
        limit: int | None = None,
    ) -> None:
        """Open a history. `MessageLog` explains the arguments that both have.

        Args:
            limit: `aget_messages` returns only the newest messages. None: all.
        """
        super().__init__()
        self.session_id = session_id
        self.limit = limit
        owner = {"tenant_id": tenant_id, "dialog_id": dialog_id, "user_id": user_id}
        self._log = MessageLog(session_id, svc, token_id=token_id, **owner)

    async def aget_messages(self) -> list[BaseMessage]:
        """Return all or the newest messages, oldest first. 1 round trip."""
        items = await self._log.read(self.limit, is_item=_is_item, item=_item)
        return messages_from_dict(items)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages, all of them or none. 1 round trip.

        A message whose id the conversation has is appended without its id, in 3 round trips.
        """
        if not messages:
            return
        ids = _ids(messages)
        await self._log.append(
            [_message(each, next(ids), self._log) for each in messages],
            usage=[usage for usage in map(_usage, messages) if usage is not None],
            rounds=int(any(each.type == "human" for each in messages)),
        )

    async def aclear(self) -> None:
        """Delete all messages. The conversation and its usage stay. 1 round trip."""
        await self._log.clear()

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain's own example too
        """Raise NotImplementedError: await `aget_messages`."""
        raise NotImplementedError(_ASYNC_ONLY)

    def add_messages(self, messages: Sequence[BaseMessage]) -> NoReturn:
        """Raise NotImplementedError: await `aadd_messages`."""
        raise NotImplementedError(_ASYNC_ONLY)

    def clear(self) -> NoReturn:
        """Raise NotImplementedError: await `aclear`."""
        raise NotImplementedError(_ASYNC_ONLY)

    def __str__(self) -> str:
        """Return the name: the messages need a statement."""
        return f"{type(self).__name__}({self.session_id!r})"


def _message(message: BaseMessage, id: str | None, log: MessageLog) -> dict[str, object]:
    """Return the fields of the stored message."""
    kind = message.type.removesuffix("MessageChunk").lower()
    role = message.role if isinstance(message, ChatMessage) else _ROLES.get(kind, kind)
    return {
        "id": id,
        "role": role,
        "content": log.searchable(str(message.text)),
        "payload": message_to_dict(message),
    }


def _ids(messages: Sequence[BaseMessage]) -> Iterator[str | None]:
    """Yield the id of each message; None for an id that another one has, or that is too long."""
    seen = set[str]()
    for message in messages:
        id = message.id
        yield id if id and len(id) <= _MAX_ID_LENGTH and id not in seen else None
        seen.add(id or "")


def _usage(message: BaseMessage) -> Usage | None:
    """Return the usage of an answer, whose counts LangChain has made those of OpenAI's format."""
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    if not usage:
        return None
    cached = usage.get("input_token_details", {})
    counts = {
        **usage,
        "input_tokens_details": {
            "cached_tokens": cached.get("cache_read"),
            "cache_write_tokens": cached.get("cache_creation"),
        },
        "output_tokens_details": {
            "reasoning_tokens": usage.get("output_token_details", {}).get("reasoning")
        },
    }
    return usage_from_openai(
        {"usage": counts, "model": message.response_metadata.get("model_name")}
    )


def _item(message: StoredMessage) -> dict[str, Any]:
    """Return a message as LangChain's dict."""
    if _is_item(message.payload):
        return message.payload
    kind = _CLASSES.get(message.role, partial(ChatMessage, role=message.role))
    return message_to_dict(kind(content=message.content))


def _is_item(payload: Mapping[str, object]) -> bool:
    return isinstance(payload.get("type"), str) and isinstance(payload.get("data"), dict)
