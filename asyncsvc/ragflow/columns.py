"""The columns of RAGFlow's conversations, the settable ones, and the checks of their values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from asyncsvc.errors import InvalidInput
from asyncsvc.models import Conversation
from asyncsvc.ragflow.conditions import Column
from asyncsvc.ragflow.messages import MessageFields, split
from asyncsvc.ragflow.shapes import Record, kept_reference, short_user_id
from asyncsvc.validation.types import OrderBy

SETTABLE: Final = frozenset(
    {"name", "source", "version_title", "dsl", "errors", "user_id", "exp_user_id", "dialog_id"}
)
COUNTERS: Final = frozenset({"tokens", "duration", "round", "thumb_up"})
SET_BY_APPEND: Final = frozenset({"dsl", "errors"})
LISTS: Final = frozenset({"message", "reference"})
USERS: Final = frozenset({"user_id", "exp_user_id"})
TIME_ORDERS: Final[Mapping[str, OrderBy]] = {
    "create_time": "created_at",
    "create_date": "created_at",
    "update_time": "updated_at",
    "update_date": "updated_at",
}
_ORDERS: Final[Mapping[str, OrderBy]] = {
    **TIME_ORDERS,
    "name": "name",
    "round": "round",
    "tokens": "tokens",
    "duration": "duration",
    "thumb_up": "thumb_up",
}
"""The order of the service for each column of RAGFlow."""
COLUMNS: Final = frozenset({"id"}) | SETTABLE | COUNTERS | TIME_ORDERS.keys() | LISTS
_MAX_COUNTER: Final = 10**18


def check_columns(row: Any, known: Collection[str], name: str = "update_data") -> None:  # noqa: ANN401 - it is checked
    """Raise InvalidInput if the argument is not a dict of known columns."""
    if not isinstance(row, Mapping):
        raise InvalidInput(name, "must be a dict of columns")
    if unknown := row.keys() - set(known):
        raise InvalidInput(str(min(unknown, key=str)), "is not a settable column")


def order(column: str) -> OrderBy:
    """Return the service's order for a column of RAGFlow."""
    if not isinstance(column, str) or column not in _ORDERS:
        raise InvalidInput("orderby", f"must be one of {', '.join(_ORDERS)}")
    return _ORDERS[column]


def short(user_id: Any) -> Any:  # noqa: ANN401 - the service rejects other types than text
    """Return the stored form of a user id."""
    return short_user_id(user_id) if isinstance(user_id, str) else user_id


def with_short_users(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns with the stored form of user ids."""
    return {name: short(value) if name in USERS else value for name, value in columns.items()}


def split_messages(row: Mapping[str, Any]) -> list[MessageFields]:
    """Return the messages of a row, without their references."""
    items = row.get("message") or []
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise InvalidInput("message", "must be a list of objects")
    return [split(item) for item in items]


def references_of(row: Mapping[str, Any], stored: Conversation | None = None) -> list[Any]:
    """Return the references of a row.

    References that are not a list are rejected, unless the stored conversation has the same.
    """
    references = row.get("reference") or []
    if isinstance(references, list):
        return references
    if stored is None or references != kept_reference(stored):
        raise InvalidInput("reference", "must be a list with one item for each answer")
    return []


def counter(row: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - int or float
    """Return a counter of a row. Raises InvalidInput for NaN and for values that are too large."""
    value = row.get(name) or 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < _MAX_COUNTER:
        raise InvalidInput(name, "must be a number that can be counted")
    return value


def creation_time(row: Mapping[str, Any], local: tzinfo) -> datetime | None:
    """Return the creation time of a row: its milliseconds, else its local date."""
    if (milliseconds := row.get("create_time")) is not None:
        try:
            return datetime.fromtimestamp(milliseconds / 1_000, UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            raise InvalidInput("create_time", "must be milliseconds since 1970") from None
    if row.get("create_date") is None:
        return None
    try:
        date = datetime.fromisoformat(str(row["create_date"]))
    except ValueError:
        raise InvalidInput("create_date", "must be a date with a time") from None
    return date if date.tzinfo else date.replace(tzinfo=local)


def select(record: Record, cols: Sequence[str | Column] | None) -> Record:
    """Return the record with only these columns, or the whole record without `cols`."""
    if not cols:
        return record
    names = [column_name(each) for each in cols]
    if unknown := set(names) - vars(record).keys():
        raise InvalidInput("cols", f"{min(unknown)} is not a column")
    return Record(**{name: vars(record)[name] for name in names})


def column_name(column: str | Column) -> str:
    """Return the name of a column."""
    return column.name if isinstance(column, Column) else column
