"""Lines of `asyncsvc export`: the fields of a `ConversationRecord` as JSON.

A line has at least `{"id", "messages": [{"role", "content"}]}`. `user` may stand for `user_id`,
times are ISO 8601 or seconds since 1970. Content may be a list of parts or null, as in OpenAI's
APIs. A cost is a text. Other fields of a line are added to its `metadata`, also a `usage` without
the fields of `Usage`, other fields of a message to its `payload`. So are the ids of messages,
unless all are different texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Final

from asyncsvc.exports.model import JsonObject, UnreadableError
from asyncsvc.exports.openai import content_text, is_text
from asyncsvc.exports.values import moment
from asyncsvc.models import ConversationRecord, MessageRecord, Usage

_CONVERSATION_FIELDS: Final = frozenset(ConversationRecord.model_fields)
_MESSAGE_FIELDS: Final = frozenset(MessageRecord.model_fields)
_USAGE: Final = frozenset(Usage.model_fields)
_TOKENS: Final = frozenset({"input_tokens", "output_tokens"})
_MAX_COST_LENGTH: Final = 64
_MIN_YEAR: Final = 1900


def read_record(line: JsonObject, tz: tzinfo) -> dict[str, object]:
    """Return the fields of a record. A time without an offset is a local time of `tz`.

    The import checks their values. Raises UnreadableError.
    """
    line = dict(line)
    if "user" in line:
        if "user_id" in line:
            raise UnreadableError("user: stands for user_id, which is present too")
        line["user_id"] = line.pop("user")
    usage = _usage(line.get("usage"))
    known = _CONVERSATION_FIELDS if usage is not None else _CONVERSATION_FIELDS - {"usage"}
    fields = _with_others_in(line, known, "metadata")
    if usage is not None:
        fields["usage"] = usage
    messages = fields.get("messages")
    if isinstance(messages, list):
        of_message = _MESSAGE_FIELDS if _has_own_ids(messages) else _MESSAGE_FIELDS - {"id"}
        fields["messages"] = [
            _message(at, message, of_message, tz) if isinstance(message, dict) else message
            for at, message in enumerate(messages)
        ]
    for name in ("created_at", "updated_at"):
        fields |= _time(fields, name, name, tz)
    return fields


def _usage(value: object) -> list[dict[str, object]] | None:
    """Return the usage of a line, if it has the fields of `Usage`. A cost is a text."""
    items = value if isinstance(value, list) else [value]
    usages = [dict(item) for item in items if isinstance(item, dict)]
    if len(usages) < len(items) or not all(_TOKENS <= item.keys() <= _USAGE for item in usages):
        return None
    for item in usages:
        cost = item.get("cost")
        if isinstance(cost, str) and len(cost) <= _MAX_COST_LENGTH:
            with contextlib.suppress(InvalidOperation):
                item["cost"] = Decimal(cost)
    return usages


def _has_own_ids(messages: Sequence[object]) -> bool:
    """Return whether each id of the messages can be their own id. Elsewhere ids may repeat."""
    ids = [each["id"] for each in messages if isinstance(each, dict) and "id" in each]
    texts = [id for id in ids if id is not None]
    return all(isinstance(id, str) for id in texts) and len(set(texts)) == len(texts)


def _message(at: int, message: JsonObject, known: frozenset[str], tz: tzinfo) -> dict[str, object]:
    fields = dict(message)
    content = fields.get("content")
    if not isinstance(content, str) and (isinstance(content, list) or _has_calls(message)):
        fields["content"] = content_text(content)
        if not is_text(content):
            payload = fields.get("payload")
            fields["payload"] = (payload if isinstance(payload, dict) else {}) | {
                "content": content
            }
    fields = _with_others_in(fields, known, "payload")
    return fields | _time(fields, "created_at", f"messages.{at}.created_at", tz)


def _has_calls(message: JsonObject) -> bool:
    return any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio"))


def _time(fields: JsonObject, name: str, place: str, tz: tzinfo) -> dict[str, object]:
    """Return a time as a datetime, from text or a number."""
    value = fields.get(name)
    if isinstance(value, str):
        return {name: parse_instant(value, tz, place)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {name: moment(value)}
    return {}


def _with_others_in(fields: JsonObject, known: frozenset[str], container: str) -> dict[str, object]:
    """Move unknown fields into the field `container`."""
    if fields.keys() <= known:
        return dict(fields)
    others = {name: fields[name] for name in sorted(fields.keys() - known)}
    contained = fields.get(container)
    contained = {} if contained is None else contained
    if not isinstance(contained, dict) or contained.keys() & others.keys():
        raise UnreadableError(f"{container}: cannot take {', '.join(others)} too")
    kept = {name: value for name, value in fields.items() if name in known}
    return kept | {container: contained | others}


def parse_instant(text: str, tz: tzinfo, name: str) -> datetime:
    """Parse a time in ISO 8601, of `tz` if it has no offset.

    Raises:
        UnreadableError: The text is not a time, or before 1900. `name` is its field.
    """
    try:
        time = datetime.fromisoformat(text)
        time = (time if time.tzinfo else time.replace(tzinfo=tz)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableError(f"{name}: must be ISO 8601, for example 2026-11-22T10:00Z") from None
    if time.year < _MIN_YEAR:
        raise UnreadableError(f"{name}: must not be before {_MIN_YEAR}")
    return time
