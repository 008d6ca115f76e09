"""Threads, steps and elements of Chainlit, and the forms in which the library stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from chainlit.utils import utc_now

from asyncsvc.integrations.message_log import searchable
from asyncsvc.integrations.packing import unwrap_values, wrap_values

if TYPE_CHECKING:
    from chainlit.element import ElementDict
    from chainlit.step import StepDict
    from pydantic import JsonValue

    from asyncsvc import Conversation, Settings, StoredMessage

_ROLES: Final = {"user_message": "user", "assistant_message": "assistant"}
_TYPES: Final = {"user": "user_message", "assistant": "assistant_message"}
_EMPTY: Final = {"name": "", "type": "undefined", "parentId": None, "input": "", "output": ""}
_KEPT: Final = {"id", "createdAt", "feedback"}
"""The fields of a step that an update keeps. Feedback has methods of its own."""


def iso(at: datetime) -> str:
    """Return a time as Chainlit writes it."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def message_of(step: Mapping[str, Any], settings: Settings) -> dict[str, object]:
    """Return the fields of the message of a new step.

    The payload has each field that is an object or an array in an array, see `wrap_values`.
    """
    complete: dict[str, Any] = {**_EMPTY, "metadata": {}, "createdAt": utc_now(), **step}
    complete.pop("feedback", None)
    kind = str(complete["type"])
    return {
        "id": step["id"],
        "role": _ROLES.get(kind, "system" if kind == "system_message" else "tool"),
        "content": searchable(str(complete["output"] or ""), settings.max_message_bytes),
        "payload": complete | wrap_values({k: v for k, v in complete.items() if v is not None}),
        "created_at": _time(complete["createdAt"]),
    }


def patch_of(step: Mapping[str, Any], settings: Settings, *, is_new: bool) -> dict[str, object]:
    """Return the change of the message of a step that exists.

    Tasks that create and update a step run in any order, so an empty field changes nothing, and a
    False only if it comes from an update. The type "run" stands for an unknown one.
    """
    empty: list[object] = [None, "", {}]
    kept = [(key, value) for key, value in step.items() if key not in _KEPT]
    changes = {k: v for k, v in kept if v not in empty and not (is_new and v is False)}
    if changes.get("type") == "run":
        del changes["type"]
    patch: dict[str, object] = {"merge_payload": wrap_values(changes)}
    if "output" in changes:
        patch["content"] = searchable(str(changes["output"]), settings.max_message_bytes)
    return patch


def is_step(payload: Mapping[str, JsonValue]) -> bool:
    """Return whether the data layer has stored this payload, and not another program."""
    return isinstance(payload.get("metadata"), list) and "threadId" in payload


def step_of(payload: Mapping[str, Any]) -> StepDict:
    """Return the step that a payload contains."""
    return cast("StepDict", unwrap_values(payload))


def step_of_message(message: StoredMessage, thread_id: str) -> StepDict:
    """Return a message as a step, also one that another program has appended."""
    if is_step(message.payload):
        return step_of(message.payload)
    step = _EMPTY | {
        "id": message.id or f"{thread_id}:{message.seq}",
        "threadId": thread_id,
        "name": message.role,
        "type": _TYPES.get(message.role, "system_message"),
        "output": message.content,
        "metadata": {},
        "createdAt": iso(message.created_at),
    }
    return cast("StepDict", step)


def in_order(steps: list[StepDict]) -> list[StepDict]:
    """Return steps in the order of their times: tasks store them in any order."""
    return sorted(steps, key=lambda step: (step["createdAt"] or "").removesuffix("Z"))


def metadata_of(
    metadata: Mapping[str, Any] | None, tags: Sequence[str] | None, *, is_patch: bool
) -> dict[str, Any]:
    """Return the metadata of a conversation, or a merge patch of it, which also removes members."""
    stored: dict[str, Any] = {}
    if metadata is not None:
        stored["metadata"] = wrap_values({k: v for k, v in metadata.items() if v is not None})
        if is_patch:
            stored["metadata"] |= {k: None for k, v in metadata.items() if v is None}
    if tags is not None:
        stored["tags"] = list(tags)
    return stored


def elements_of(conversation: Conversation) -> dict[str, ElementDict]:
    """Return the elements of a thread by id. The library calls the column `dsl`."""
    dsl: Any = conversation.dsl
    stored = dsl.get("elements") if isinstance(dsl, dict) else None
    return unwrap_values(stored or {})


def _time(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
