"""Checks of text, JSON and batches, used by the parameter types and the input models.

Pydantic runs a check while it validates a value. The limits of a check come from the settings of
the service, which pydantic passes as its context. An input model that the caller builds has no
context: its checks run later, in the method that receives the model.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from typing import Final, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    JsonValue,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from asyncsvc.validation.limits import Limits
from asyncsvc.validation.unstorable import replace_in_json, replace_in_text

T = TypeVar("T")
CollectionT = TypeVar("CollectionT", bound=Collection[object])

_JSON: Final = TypeAdapter[JsonValue](JsonValue, config=ConfigDict(defer_build=True))
_JSON_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_JSON_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKET: Final = re.compile(r"[][{}]")
_ESCAPED_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_MAX_UTF8_BYTES_PER_CHARACTER: Final = 4


def invalid_value(reason: str) -> PydanticCustomError:
    """Return the error that a check raises. The reason must not quote the value."""
    return PydanticCustomError("invalid_value", "{reason}", {"reason": reason})


def with_limits(check: Callable[[T, Limits], T]) -> AfterValidator:
    """Return a validator that runs `check` if there are limits, and accepts any value otherwise."""

    def validate(value: T, info: ValidationInfo) -> T:
        return value if info.context is None else check(value, info.context)

    return AfterValidator(validate)


def text_length(
    minimum: int, maximum: int, *, nfc: bool = False, replaceable: bool = False
) -> AfterValidator:
    """Return a validator for text of `minimum` to `maximum` characters that PostgreSQL can store.

    With `nfc`, the text is normalized to NFC. With `replaceable`, the limits decide about
    unstorable characters; otherwise they are rejected, as in ids.
    """

    def check(text: str, limits: Limits) -> str:
        if not minimum <= len(text) <= maximum:
            raise invalid_value(f"must be {minimum} to {maximum} characters")
        text = _storable_text(text, limits if replaceable else None, nfc=nfc)
        if len(text) > maximum:  # NFC decomposes the characters that have no composed form
            raise invalid_value(f"must be {minimum} to {maximum} characters in Unicode's form NFC")
        return text

    return with_limits(check)


def message_text(*, nfc: bool) -> AfterValidator:
    """Return a validator for text of up to `max_message_bytes` that PostgreSQL can store.

    With `nfc`, the text is normalized to NFC.
    """

    def check(text: str, limits: Limits) -> str:
        # The number of characters is known at no cost; to normalize 100 MB takes seconds.
        if len(text) > limits.max_message_bytes:
            raise invalid_value(f"must be at most {limits.max_message_bytes} bytes")
        text = _storable_text(text, limits, nfc=nfc)
        if len(text.encode()) > limits.max_message_bytes:
            raise invalid_value(f"must be at most {limits.max_message_bytes} bytes")
        return text

    return with_limits(check)


def _storable_text(text: str, limits: Limits | None, *, nfc: bool) -> str:
    """Check that PostgreSQL can store the text, and normalize it to NFC if requested.

    Unstorable characters are replaced if the limits say so.
    """
    if limits is not None and limits.unstorable_text == "replace":
        text, count = replace_in_text(text)
        limits.count_replacements(count)
    if "\x00" in text:
        raise invalid_value("must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid_value("must not hold a lone surrogate") from None
    return unicodedata.normalize("NFC", text) if nfc else text


def json_text(value: object) -> str:
    """Return the value as JSON text, in the form that is measured and sent.

    Raises ValueError for NaN and infinity.
    """
    return "null" if value is None else "{}" if value == {} else _JSON_ENCODER.encode(value)


def check_json(value: object, limits: Limits) -> int:
    """Check that PostgreSQL can store the JSON and Python can read it; return its size in bytes."""
    try:
        _JSON.validate_python(value, strict=True)
        text = json_text(value)
        size = len(text.encode())
    except ValidationError as error:
        if any(part["type"] == "recursion_loop" for part in error.errors(include_input=False)):
            raise _too_deep(limits) from None
        raise invalid_value(
            "must be JSON: text, numbers, booleans, null, lists and objects"
        ) from None
    except RecursionError:
        raise _too_deep(limits) from None
    except UnicodeEncodeError:
        raise invalid_value("must not hold a lone surrogate") from None
    except ValueError:
        raise invalid_value(
            "must not hold NaN, infinity or integers of over 4,300 digits"
        ) from None
    if size > limits.max_json_bytes:
        raise invalid_value(f"must be at most {limits.max_json_bytes} bytes of JSON")
    # The plain searches are hundreds of times faster than the exact ones and almost always enough.
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise invalid_value("must not hold a NUL character")
    brackets = text.count("[") + text.count("{")
    if brackets > limits.max_json_depth and _json_depth(text) > limits.max_json_depth:
        raise _too_deep(limits)
    return size


def _too_deep(limits: Limits) -> PydanticCustomError:
    return invalid_value(f"must be at most {limits.max_json_depth} levels deep")


def _json_depth(text: str) -> int:
    """Return the number of nested lists and objects of JSON text."""
    depth = max_depth = 0
    for bracket in _BRACKET.findall(_JSON_STRING.sub("", text)):
        if bracket in "[{":
            depth += 1
            max_depth = max(max_depth, depth)
        else:
            depth -= 1
    return max_depth


def check_json_value(value: object, info: ValidationInfo) -> object:
    """Check a JSON value against the limits, if there are any, and replace unstorable text."""
    limits: Limits | None = info.context
    if limits is None:
        return value
    if limits.unstorable_text == "replace":
        try:
            replaced, count = replace_in_json(value)
        except RecursionError:
            raise _too_deep(limits) from None
        if count:
            value = replaced
            limits.count_replacements(count)
    check_json(value, limits)
    return value


def check_json_object(value: object, info: ValidationInfo) -> object:
    """Check that the value is a dict, and check it as JSON."""
    if not isinstance(value, dict):
        raise invalid_value("must be a JSON object")
    return check_json_value(value, info)


def check_batch_size(values: CollectionT, limits: Limits) -> CollectionT:
    """Check the number of items of one call."""
    if len(values) > limits.max_batch_size:
        raise invalid_value(f"must be at most {limits.max_batch_size}")
    return values


def check_batch_bytes(values: Collection[object], limits: Limits) -> None:
    """Check the total size of the text and JSON values of one call, each of which is valid."""
    # The upper bound needs no encoding and is almost always within the limit.
    upper_bound = sum(_max_bytes(value, limits) for value in values)
    if upper_bound > limits.max_batch_bytes and sum(map(_bytes, values)) > limits.max_batch_bytes:
        raise invalid_value(f"must be at most {limits.max_batch_bytes} bytes in all")


def _max_bytes(value: object, limits: Limits) -> int:
    if isinstance(value, str):
        return _MAX_UTF8_BYTES_PER_CHARACTER * len(value)
    return limits.max_json_bytes if value and isinstance(value, dict | list | tuple) else 0


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(json_text(value).encode()) if isinstance(value, dict | list | tuple) else 0


def check_iterable(value: T) -> T:
    """Check that the value is iterable. Its items are checked one by one during the import."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable | AsyncIterable):
        raise invalid_value("must be an iterable or an async iterable")
    return value
