"""Sessions and events of ADK as conversations and messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from google.adk.events import Event
from google.adk.sessions import Session, State
from google.genai import types

from asyncsvc.integrations.message_log import searchable
from asyncsvc.integrations.packing import unwrap_values
from asyncsvc.metering import usage_from_gemini

if TYPE_CHECKING:
    from asyncsvc import Conversation, Settings, StoredMessage

_MAX_ID_LENGTH: Final = 128


def turn_of(event: Event, state: Mapping[str, object], settings: Settings) -> dict[str, Any]:
    """Return the fields of the turn that stores an event and the changes of its session's state."""
    usage = event.usage_metadata
    known = usage_from_gemini({"usage_metadata": usage, "model_version": event.model_version})
    total = (usage and usage.total_token_count) or 0
    payload = event.model_dump(mode="json", exclude_none=True)
    changes = payload["actions"]["state_delta"]
    for key in [each for each in changes if each.startswith(State.TEMP_PREFIX)]:
        del changes[key]
    message = {
        "id": event.id if event.id and len(event.id) <= _MAX_ID_LENGTH else None,
        "role": _role(event),
        "content": searchable("\n".join(_texts(event)), settings.max_message_bytes),
        "payload": payload,
        "created_at": datetime.fromtimestamp(event.timestamp, UTC),
    }
    return {
        "messages": [message],
        "round": int(event.author == "user"),
        **({"usage": known} if known and known.tokens else {"tokens": total}),
        "merge_dsl": {"state": state, "updated_at": event.timestamp},
    }


def _role(event: Event) -> str:
    if event.author == "user":
        return "user"
    return "tool" if event.get_function_responses() else "assistant"


def _texts(event: Event) -> Iterator[str]:
    """Yield the texts of an event, without the thoughts of a model."""
    for part in (event.content and event.content.parts) or ():
        if part.text and not part.thought:
            yield part.text
    for transcription in (event.input_transcription, event.output_transcription):
        if transcription and transcription.text:
            yield transcription.text


def item_of(message: StoredMessage) -> dict[str, Any]:
    """Return a message as the JSON of an event."""
    if is_event(message.payload):
        return message.payload
    role = "user" if message.role == "user" else "model"
    event = Event(
        id=message.id or str(message.seq),
        author=message.role,
        content=types.Content(role=role, parts=[types.Part(text=message.content)]),
        timestamp=message.created_at.timestamp(),
    )
    return dict(event.model_dump(mode="json", exclude_none=True))


def is_event(payload: Mapping[str, object]) -> bool:
    """Return whether a payload is an event, and not another program's."""
    return isinstance(payload.get("author"), str) and isinstance(payload.get("actions"), dict)


def is_session(stored: Conversation) -> bool:
    """Return whether a conversation is a session, and not another program's."""
    return isinstance(stored.dsl, dict) and "session_id" in stored.dsl


def updated_at(stored: Conversation) -> float:
    """Return the time of the last event of a session, or of its creation."""
    dsl: Any = stored.dsl
    return float(dsl.get("updated_at", stored.created_at.timestamp()))


def session_of(
    stored: Conversation, shared: dict[str, Any], events: Iterable[Mapping[str, Any]] = ()
) -> Session:
    """Return a session from its conversation, the state of its user and its events."""
    dsl: Any = stored.dsl
    session = Session(
        id=dsl["session_id"],
        app_name=stored.dialog_id,
        user_id=stored.user_id,
        state=unwrap_values(dsl["state"]) | shared,
        events=[Event.model_validate(each) for each in events],
        last_update_time=updated_at(stored),
    )
    session._storage_update_marker = str(stored.last_seq)  # noqa: SLF001 - as ADK's own stores do
    return session
