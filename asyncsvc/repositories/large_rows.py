"""Rows with much JSON, built in turns with the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, JsonValue
from pydantic import Json as JsonText

from asyncsvc.database import (
    build_model,
    build_models,
    build_models_of_columns,
    build_value,
    build_values,
    json_arrays,
    parse_value,
)
from asyncsvc.models import APIToken, Conversation, Record, StoredMessage, TokenEvent
from asyncsvc.threads import in_turns
from asyncsvc.validation.json_pieces import LONG_JSON

if TYPE_CHECKING:
    from asyncsvc.database import Row

M = TypeVar("M", bound=BaseModel)

_LARGE: Final = 2**18
"""The number of characters of JSON from which on a few milliseconds are not enough."""
_STEP: Final = 2**16
_JSON_COLUMNS: Final[Mapping[type[BaseModel], Sequence[str]]] = {
    APIToken: ("metadata",),
    Conversation: ("metadata", "dsl"),
    Record: ("data",),
    StoredMessage: ("payload", "reference"),
    TokenEvent: ("detail",),
}
_EMPTY: Final = {"{": "{}", "[": "[]", '"': '""'}
"""An empty value of the same type, by the first character of JSON."""
_MESSAGE_ARRAYS: Final = {
    "seq": "seqs",
    "id": "ids",
    "role": "roles",
    "content": "contents",
    "payload": "payloads",
    "reference": "message_references",
    "thumb": "thumbs",
    "created_at": "created_ats",
}
"""The array with the values of each column of messages."""
_Payload: TypeAlias = JsonText[Any]  # validating a dict of JsonValue takes half as long again


async def build_row(model: type[M], row: Row) -> M:
    """Build a model from its row."""
    if _characters(model, [row]) <= _LARGE:
        return build_model(model, row)
    (built,) = await build_rows(model, [row])
    return built


async def build_rows(model: type[M], rows: Sequence[Row]) -> list[M]:
    """Build models from their rows."""
    if _characters(model, rows) <= _LARGE:
        return build_models(model, rows)
    models = list[M]()
    async for part in in_turns(_parts(rows, _JSON_COLUMNS[model])):
        models += await _build_part(model, part)
    return models


async def _build_part(model: type[M], rows: Sequence[Row]) -> list[M]:
    """Build models from rows, whose JSON is parsed in pieces if it is long."""
    columns = {name: [row[name] for row in rows] for name in _JSON_COLUMNS[model]}
    short = {
        name: [_EMPTY[text[0]] if _is_long(text) else text for text in texts]
        for name, texts in columns.items()
    }
    models = build_models(model, rows, **short)
    for name, texts in columns.items():
        for index, text in enumerate(texts):
            if _is_long(text):
                value = await parse_value(text, name)
                models[index] = models[index].model_copy(update={name: value})
    return models


def _is_long(text: object) -> bool:
    return isinstance(text, str) and len(text) > LONG_JSON and text[0] in _EMPTY


async def build_conversation(rows: Sequence[Row]) -> Conversation:
    """Build a conversation with its messages from its rows."""
    messages = list[StoredMessage]()
    async for row in in_turns(rows if rows[0]["seqs"] is not None else ()):
        messages += await _build_messages(row)
    conversation = await build_row(Conversation, rows[0])
    return conversation.model_copy(update={"messages": tuple(messages)})


async def _build_messages(row: Row) -> list[StoredMessage]:
    """Build messages from the arrays of their columns."""
    seqs = array_of(row, "seqs")
    columns = {
        name: array_of(row, array) or [None] * len(seqs) for name, array in _MESSAGE_ARRAYS.items()
    }
    if sum(len(text or "") for text in (*columns["payload"], *columns["reference"])) > LONG_JSON:
        values = zip(*columns.values(), strict=True)
        return await build_rows(
            StoredMessage, [dict(zip(columns, each, strict=True)) for each in values]
        )
    return build_models_of_columns(StoredMessage, columns, len(seqs))


def array_of(row: Row, column: str) -> list[Any]:
    """Return the array in a column."""
    return build_value(list[Any], row, column)


async def build_payloads(rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
    """Build the payloads of messages from their rows."""
    if _characters_of(rows, "payload") <= _LARGE:
        return build_values(_Payload, rows, "payload")
    return await parse_values(build_values(str, rows, "payload"), "payload")


async def parse_values(texts: Iterable[str], column: str) -> list[Any]:
    """Return the values of JSON texts, parts of a column."""
    values = list[Any]()
    async for array in in_turns(json_arrays(texts)):
        values += await parse_value(array, column)
    return values


def _characters(model: type[BaseModel], rows: Sequence[Row]) -> int:
    return sum([_characters_of(rows, column) for column in _JSON_COLUMNS.get(model, ())])


def _characters_of(rows: Sequence[Row], column: str) -> int:
    try:
        return sum(map(len, filter(None, map(itemgetter(column), rows))))
    except TypeError:  # of a codec of the connection, which the models reject
        return 0


def _parts(rows: Sequence[Row], columns: Iterable[str]) -> Iterator[Sequence[Row]]:
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
