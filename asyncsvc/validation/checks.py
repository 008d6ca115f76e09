"""Checks of text, JSON and batches, used by the parameter types and the input models.

Pydantic runs a check while it validates a value. The limits of a check come from the settings of
the service, which pydantic passes as its context. An input model that the caller builds has no
context: its checks run later, in the method that receives the model.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sized
from typing import Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from asyncsvc.validation.inputs import invalid_value
from asyncsvc.validation.json_values import check_json, count_values, stored_size
from asyncsvc.validation.limits import Limits
from asyncsvc.validation.nfc import to_nfc
from asyncsvc.validation.unstorable import replace_in_json, replace_in_text

T = TypeVar("T")

_MAX_UTF8_BYTES_PER_CHARACTER: Final = 4
_MAX_MEMBERS: Final = 64
_MAX_MEMBER_BYTES: Final = 2**16


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
        text, _ = _storable_text(text, limits if replaceable else None, nfc=nfc)
        if len(text) > maximum:  # NFC decomposes the characters that have no composed form
            raise invalid_value(f"must be {minimum} to {maximum} characters in Unicode's form NFC")
        return text

    return with_limits(check)


def check_storable(text: str, maximum: int) -> str:
    """Check a text of 1 to `maximum` characters, as `text_length` does."""
    if not 1 <= len(text) <= maximum:
        raise invalid_value(f"must be 1 to {maximum} characters")
    _utf8_size(text)
    return text


def message_text(*, nfc: bool) -> AfterValidator:
    """Return a validator for text of up to `max_message_bytes` that PostgreSQL can store.

    With `nfc`, the text is normalized to NFC.
    """

    def check(text: str, limits: Limits) -> str:
        # The number of characters is known at no cost; to normalize 100 MB takes seconds.
        if len(text) > limits.max_message_bytes:
            raise invalid_value(f"must be at most {limits.max_message_bytes} bytes")
        stored, size = _storable_text(text, limits, nfc=nfc)
        if size > limits.max_message_bytes:
            raise invalid_value(f"must be at most {limits.max_message_bytes} bytes")
        return stored

    return with_limits(check)


def _storable_text(text: str, limits: Limits | None, *, nfc: bool) -> tuple[str, int]:
    """Return the text as PostgreSQL stores it, in NFC if requested, and its size in bytes.

    Unstorable characters are replaced if the limits say so, and rejected otherwise.
    """
    if limits is not None and limits.unstorable_text == "replace":
        text, count = replace_in_text(text)
        limits.count_replacements(count)
    size = _utf8_size(text)
    stored = to_nfc(text) if nfc else text
    return stored, size if stored == text else _utf8_size(stored)


def _utf8_size(text: str) -> int:
    if "\x00" in text:
        raise invalid_value("must not contain a NUL character")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise invalid_value("must not contain a lone surrogate") from None


def check_json_value(value: object, info: ValidationInfo) -> object:
    """Check a JSON value against the limits, if there are any, and replace unstorable text."""
    limits: Limits | None = info.context
    if limits is None or value is None or (type(value) is dict and not value):
        return value
    if limits.unstorable_text == "replace":
        count_values(value, limits)
        replaced, count = replace_in_json(value)
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


def check_members(value: object, info: ValidationInfo) -> object:
    """Check a filter: an object whose members are texts, numbers, booleans and null."""
    members = check_json_object(value, info)
    if isinstance(members, dict) and len(members) > _MAX_MEMBERS:
        raise invalid_value(f"must have at most {_MAX_MEMBERS} members")
    if isinstance(members, dict) and any(
        isinstance(each, dict | list) for each in members.values()
    ):
        raise invalid_value("each member must be a text, a number, a boolean or null")
    if stored_size(members) > _MAX_MEMBER_BYTES:
        raise invalid_value(f"must be at most {_MAX_MEMBER_BYTES} bytes of JSON")
    return members


def batch_size() -> BeforeValidator:
    """Return a validator for the number of items of one call. It runs before those of the items."""

    def check(values: T, info: ValidationInfo) -> T:
        limits: Limits | None = info.context
        if limits is not None and isinstance(values, Sized) and len(values) > limits.max_batch_size:
            raise invalid_value(f"must be at most {limits.max_batch_size}")
        return values

    return BeforeValidator(check)


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
    return stored_size(value) if isinstance(value, dict | list | tuple) else 0


def check_distinct_ids(ids: Iterable[str | None]) -> None:
    """Check that no id of the messages of a conversation occurs twice."""
    present = [id for id in ids if id is not None]
    if len(set(present)) < len(present):
        raise invalid_value("the id of each message must be unique")


def check_iterable(value: T) -> T:
    """Check that the value is iterable. Its items are checked one by one during the import."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable | AsyncIterable):
        raise invalid_value("must be an iterable or an async iterable")
    return value
