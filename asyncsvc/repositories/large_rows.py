"""Rows with much JSON, built in turns with the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from pydantic import Json as JsonText
from pydantic import JsonValue

from asyncsvc.database import build_models, build_models_of_json, build_value, build_values
from asyncsvc.models import Conversation, Record, StoredMessage
from asyncsvc.threads import in_turns

if TYPE_CHECKING:
    from asyncsvc.database import Row

T = TypeVar("T")

_LARGE: Final = 2**18
"""The number of characters of JSON from which on a few milliseconds are not enough."""
_STEP: Final = 2**16
_CONVERSATION_JSON: Final = ("metadata", "dsl")
_Payload: TypeAlias = JsonText[Any]  # validating a dict of JsonValue takes half as long again


async def build_messages(rows: Sequence[Row]) -> list[StoredMessage]:
    """Build messages from their rows."""
    return await _build(partial(build_models, StoredMessage), rows, "payload", "reference")


async def build_records(rows: Sequence[Row]) -> list[Record]:
    """Build records from their rows."""
    return await _build(partial(build_models, Record), rows, "data")


async def build_payloads(rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
    """Build the payloads of messages from their rows."""
    return await _build(partial(build_values, _Payload, column="payload"), rows, "payload")


async def build_conversations(rows: Sequence[Row]) -> list[Conversation]:
    """Build conversations from their rows, with the messages that the rows contain as JSON."""
    if _characters(rows, "messages") <= _LARGE:
        return await _build(partial(build_models, Conversation), rows, *_CONVERSATION_JSON)
    conversations = await _build(_build_without_messages, rows, *_CONVERSATION_JSON)
    for index, row in enumerate(rows):
        messages = list[StoredMessage]()
        async for array in in_turns(_arrays(build_value(str, row, "messages"))):
            messages += build_models_of_json(StoredMessage, array, "messages")
        conversations[index] = conversations[index].model_copy(update={"messages": tuple(messages)})
    return conversations


def _build_without_messages(rows: Sequence[Row]) -> list[Conversation]:
    return build_models(Conversation, rows, messages=[None] * len(rows))


async def _build(
    build: Callable[[Sequence[Row]], list[T]], rows: Sequence[Row], *columns: str
) -> list[T]:
    """Build values from rows, in parts if the JSON in these columns is large."""
    if sum(_characters(rows, column) for column in columns) <= _LARGE:
        return build(rows)
    values = list[T]()
    async for part in in_turns(_parts(rows, *columns)):
        values += build(part)
    return values


def _characters(rows: Sequence[Row], column: str) -> int:
    try:
        return sum(map(len, filter(None, map(itemgetter(column), rows))))
    except TypeError:  # of a codec of the connection, which the models reject
        return 0


def _parts(rows: Sequence[Row], *columns: str) -> Iterator[Sequence[Row]]:
    """Yield the rows in parts whose JSON is parsed in about a millisecond."""
    sizes = [0] * len(rows)
    for column in columns:
        values = map(itemgetter(column), rows)
        sizes = [size + len(value or "") for size, value in zip(sizes, values, strict=True)]
    start, characters = 0, 0
    for index, size in enumerate(sizes, 1):
        characters += size
        if characters > _STEP:
            yield rows[start:index]
            start, characters = index, 0
    if start < len(rows):
        yield rows[start:]


def _arrays(text: str) -> Iterator[str]:
    """Split a JSON array of rows into arrays that are parsed in about a millisecond.

    json_agg separates rows by a comma, spaces and a line break. There is no line break in a row.
    """
    start, end = 1, len(text) - 1
    while start < end:
        next_row = text.find("\n", start + _STEP, end)
        items = text[start : end if next_row < 0 else next_row]
        yield f"[{items.rstrip(' ,')}]"
        start += len(items)
