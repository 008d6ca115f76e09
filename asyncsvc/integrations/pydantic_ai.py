"""The message history of a pydantic-ai agent, each a conversation with 1 message for each message.

The extra `pydantic-ai` installs pydantic-ai-slim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from asyncsvc.integrations.extras import needs_extra

with needs_extra("pydantic-ai"):
    from pydantic_ai.messages import (
        ModelMessage,
        ModelMessagesTypeAdapter,
        ModelRequest,
        ModelResponse,
        SystemPromptPart,
        TextContent,
        TextPart,
        ToolReturnPart,
        UserPromptPart,
    )

from asyncsvc import Usage
from asyncsvc.integrations.message_log import MessageLog
from asyncsvc.metering import usage_from_openrouter

if TYPE_CHECKING:
    from pydantic_ai.usage import RunUsage

    from asyncsvc import Services, StoredMessage


class Result(Protocol):
    """A finished run: `AgentRunResult`, or the result of a stream after its end."""

    @property
    def usage(self) -> RunUsage:
        """The usage of the run."""

    def new_messages(self) -> list[ModelMessage]:
        """Return the messages of the run without those of its history."""


class MessageHistory:
    """The messages that `Agent.run` takes as `message_history`.

    Any number of instances, in any number of tasks and processes, can use one conversation at a
    time: each call is atomic, and no message is lost.

    A message is stored whole in the payload, in the JSON of `ModelMessagesTypeAdapter`. Role and
    text are stored too. A call with a prompt of the user counts 1 round.
    """

    def __init__(
        self,
        conversation_id: str,
        svc: Services,
        *,
        tenant_id: str,
        dialog_id: str,
        user_id: str = "",
        token_id: str | None = None,
    ) -> None:
        """Open a history. `MessageLog` explains the arguments."""
        owner = {"tenant_id": tenant_id, "dialog_id": dialog_id, "user_id": user_id}
        self.conversation_id = conversation_id
        self._log = MessageLog(conversation_id, svc, token_id=token_id, **owner)

    async def load(self, newest: int | None = None) -> list[ModelMessage]:
        """Return all or the newest messages, oldest first. 1 round trip."""
        items = await self._log.read(newest, is_item=_is_item, item=_item)
        return ModelMessagesTypeAdapter.validate_python(items)

    async def save(self, result: Result) -> None:
        """Append the new messages of a run and count its usage. 1 round trip.

        `result.usage` is that of the run if the run began with `message_history=`. A run that
        began with `usage=` or `conversation=` includes earlier usage: then call `add`.
        """
        messages, total = result.new_messages(), result.usage.total_tokens
        usage = [_usage(each) for each in messages if isinstance(each, ModelResponse)]
        is_complete = sum(each.tokens for each in usage) == total
        await self.add(
            messages, tokens=0 if is_complete else total, usage=usage if is_complete else ()
        )

    async def add(
        self, messages: Sequence[ModelMessage], *, tokens: int = 0, usage: Sequence[Usage] = ()
    ) -> None:
        """Append messages, all of them or none. 1 round trip.

        Args:
            messages: Any number of messages.
            tokens: The tokens to count, if only their number is known.
            usage: The usage to count.
        """
        if not messages:
            return
        payloads = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
        fields = [
            {
                "role": _role(message),
                "content": self._log.searchable("\n".join(_texts(message))),
                "payload": payload,
            }
            for message, payload in zip(messages, payloads, strict=True)
        ]
        rounds = int(any(each["role"] == "user" for each in fields))
        await self._log.append(fields, tokens=tokens, usage=usage, rounds=rounds)

    async def clear(self) -> None:
        """Delete all messages. The conversation and its usage stay. 1 round trip."""
        await self._log.clear()


def _usage(response: ModelResponse) -> Usage:
    """Return the usage of a response, whose counts pydantic-ai has made those of `Usage`."""
    counts = response.usage
    mapped = {
        "prompt_tokens": counts.input_tokens,
        "prompt_tokens_details": {
            "cached_tokens": counts.cache_read_tokens,
            "cache_write_tokens": counts.cache_write_tokens,
        },
        "completion_tokens": counts.output_tokens,
        "completion_tokens_details": {"reasoning_tokens": counts.details.get("reasoning_tokens")},
        "cost": getattr(counts, "cost", None),
    }
    usage = usage_from_openrouter({"usage": mapped, "model": response.model_name})
    return usage or Usage(input_tokens=0, output_tokens=0)


def _role(message: ModelMessage) -> str:
    """Return the role: a request is of the user, of a tool, or of the system."""
    if isinstance(message, ModelResponse):
        return "assistant"
    kinds = {part.part_kind for part in message.parts}
    if "user-prompt" in kinds:
        return "user"
    return "system" if kinds <= {"system-prompt"} else "tool"


def _texts(message: ModelMessage) -> Iterator[str]:
    """Return the texts of the user, of the model and of tools."""
    for part in message.parts:
        if isinstance(part, ToolReturnPart):
            content = part.content
            yield content if isinstance(content, str) else part.model_response_str()
        elif isinstance(part, TextPart):
            yield part.content
        elif isinstance(part, UserPromptPart):
            prompt = [part.content] if isinstance(part.content, str) else part.content
            for each in prompt:
                if isinstance(each, str | TextContent):
                    yield each if isinstance(each, str) else each.content


def _item(message: StoredMessage) -> dict[str, Any]:
    """Return a message as the JSON of pydantic-ai."""
    if _is_item(message.payload):
        return message.payload
    stored: ModelMessage
    if message.role == "assistant":
        stored = ModelResponse(parts=[TextPart(message.content)])
    else:
        part = SystemPromptPart if message.role == "system" else UserPromptPart
        stored = ModelRequest(parts=[part(message.content)])
    (payload,) = ModelMessagesTypeAdapter.dump_python([stored], mode="json")
    return dict(payload)


def _is_item(payload: Mapping[str, object]) -> bool:
    return payload.get("kind") in {"request", "response"} and isinstance(payload.get("parts"), list)
