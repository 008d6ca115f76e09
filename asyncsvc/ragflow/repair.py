"""Converts rows of RAGFlow's database to records for an import, and repairs invalid cells.

Each kind of repair has a name. Values without a field in a record are kept in
`metadata["ragflow"]`, for example a reference without an answer or a cell that is not JSON. Only
values that exceed the limits of the metadata, too, are dropped, as `Repair.LOST`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypedDict

from pydantic_core import PydanticCustomError

from asyncsvc.ragflow.drivers import Cells
from asyncsvc.ragflow.json_repair import InvalidJSONError, read_json, storable_text
from asyncsvc.ragflow.messages import ANSWER, MessageFields, attach_references, split
from asyncsvc.ragflow.reports import Repair
from asyncsvc.ragflow.shapes import METADATA_KEY, short_user_id
from asyncsvc.settings import Settings
from asyncsvc.validation.json_values import check_json
from asyncsvc.validation.types import MAX_INT

_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
_MAX_TOKENS: Final = 2**63 - 1
_MAX_SECONDS: Final = 9 * 10**12
_MIN_MILLISECONDS: Final = 10**11
"""Smaller numbers are seconds. As seconds, this number is in the year 5138."""
_MAX_MILLISECONDS: Final = 10**16
_MIN_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MAX_TIME: Final = datetime(2100, 1, 1, tzinfo=UTC)
_MAX_BEFORE_CREATION: Final = timedelta(minutes=1)
_MAX_AFTER_UPDATE: Final = timedelta(days=1)


class UnusableRowError(Exception):
    """A row cannot be converted. The text gives the reason."""


class ConversationFields(TypedDict):
    """The fields of a `ConversationRecord`."""

    id: str
    dialog_id: str
    user_id: str
    exp_user_id: str | None
    name: str | None
    source: str | None
    version_title: str | None
    dsl: object
    errors: str | None
    round: int | None
    tokens: int
    duration: float
    messages: list[MessageFields]
    created_at: datetime | None
    updated_at: datetime | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RepairedConversation:
    """A record, and the place of the first repair of each kind."""

    fields: ConversationFields
    repairs: Mapping[Repair, str]


def repair_conversation(cells: Cells, tz: tzinfo, settings: Settings) -> RepairedConversation:
    """Convert a row of api_4_conversation. `tz` is the zone of its local times.

    Raises UnusableRowError if its messages are unreadable and too long to be kept as text.
    """
    row = _Row(cells, tz, settings)
    return RepairedConversation(row.conversation(), row.repairs)


def token_fields(cells: Cells, tz: tzinfo) -> dict[str, object]:
    """Return the fields that the tokens of a row of api_token share."""
    row = _Row(cells, tz, Settings())
    return {
        "name": row.text("name") or "",
        "dialog_id": row.text("dialog_id") or None,
        "source": row.text("source") or None,
        "created_at": row.time("create"),
    }


class _Row:
    """The conversion of one row."""

    def __init__(self, cells: Cells, tz: tzinfo, settings: Settings) -> None:
        self._cells = cells
        self._tz = tz
        self._settings = settings
        self._kept: dict[str, Any] = {}
        self.repairs: dict[Repair, str] = {}

    def conversation(self) -> ConversationFields:
        messages = self._messages()
        self._attach_references(messages)
        self._assign_thumbs(messages)
        created_at, updated_at = self._times()
        self._set_message_times(messages, created_at, updated_at)
        return {
            # The two ids are not repaired: a different id would be a different conversation.
            "id": cell_text(self._cells["id"]) or "",
            "dialog_id": cell_text(self._cells["dialog_id"]) or "",
            "user_id": self._user_id("user_id") or "",
            "exp_user_id": self._user_id("exp_user_id") or None,
            "name": self.text("name"),
            "source": self.text("source") or None,
            "version_title": self.text("version_title"),
            "dsl": self._dsl(),
            "errors": self._errors(),
            "round": self._counter("round", MAX_INT),
            "tokens": self._counter("tokens", _MAX_TOKENS) or 0,
            "duration": self._counter("duration", _MAX_SECONDS) or 0.0,
            "messages": messages,
            "created_at": created_at,
            "updated_at": updated_at,
            "metadata": {METADATA_KEY: self._kept} if self._kept else None,
        }

    def text(self, column: str) -> str | None:
        """Return a text cell without unstorable characters."""
        text = cell_text(self._cells.get(column))
        if text is None or (storable := storable_text(text)) == text:
            return text
        self._repaired(Repair.CHARACTERS, column)
        return storable

    def time(self, which: str) -> datetime | None:
        """Return the time of `create` or `update`: its milliseconds, else its date."""
        column = f"{which}_time"
        number = self._cells.get(column)
        moment = _moment(number)
        if moment is not None and number is not None and number >= _MIN_MILLISECONDS:
            return moment
        self._repaired(Repair.TIMES, column)
        return moment or _parse_date(self._cells.get(f"{which}_date"), self._tz)

    def _repaired(self, kind: Repair, place: str) -> None:
        self.repairs.setdefault(kind, place)

    def _keep(self, name: str, value: object, *, group: str | None = None) -> bool:
        """Keep a value in the metadata. Return False if it exceeds the limits."""
        addition = {name: value}
        if group is not None:
            addition = {group: {**self._kept.get(group, {}), name: value}}
        kept = self._kept | addition
        if not self._is_within_limits({METADATA_KEY: kept}):
            self._repaired(Repair.LOST, name)
            return False
        self._kept = kept
        return True

    def _is_within_limits(self, value: object) -> bool:
        try:
            check_json(value, self._settings)
        except PydanticCustomError:
            return False
        return True

    def _json(self, column: str, max_depth: int) -> object:
        """Return the value of a JSON cell; None if it is NULL, empty or not JSON."""
        text = cell_text(self._cells.get(column))
        if not text:
            return None
        try:
            value, repairs = read_json(text, max_depth)
        except InvalidJSONError:
            self._repaired(Repair.NOT_JSON, column)
            self._keep_cell(column, storable_text(text), group="not_json")
            return None
        for kind in repairs:
            self._repaired(kind, column)
        return value

    def _list(self, column: str) -> list[Any]:
        """Return the list of a cell; keep any other value in the metadata, 2 levels deeper."""
        value = self._json(column, self._settings.max_json_depth - 2)
        if value in _EMPTY:
            return []
        if isinstance(value, list):
            return value
        self._repaired(Repair.SHAPE, column)
        self._keep_cell(column, value)
        return []

    def _keep_cell(self, column: str, value: object, *, group: str | None = None) -> None:
        if not self._keep(column, value, group=group) and column == "message":
            raise UnusableRowError("message: is not a list of messages and is too long to be kept")

    def _messages(self) -> list[MessageFields]:
        messages, others = list[MessageFields](), dict[str, object]()
        for index, item in enumerate(self._list("message")):
            if isinstance(item, dict):
                messages.append(self._message(f"message.{index}", item))
            else:
                others[str(index)] = item
        if others:
            self._repaired(Repair.SHAPE, f"message.{min(others, key=int)}")
            self._keep("items", others)
        return messages

    def _message(self, place: str, item: dict[str, Any]) -> MessageFields:
        if not isinstance(item.get("content"), str):
            self._repaired(Repair.CONTENT, place)
        message = split(item)
        if message["role"] != item.get("role"):
            self._repaired(Repair.ROLE, place)
        return message

    def _attach_references(self, messages: Sequence[MessageFields]) -> None:
        rest = attach_references(messages, self._list("reference"))
        if any(each not in _EMPTY for each in rest):
            self._repaired(Repair.REFERENCES, "reference")
            self._keep("reference", rest)

    def _assign_thumbs(self, messages: Sequence[MessageFields]) -> None:
        """Assign thumbs without a message to the last answers, but not to a prologue."""
        counted = self._counter("thumb_up", MAX_INT) or 0
        missing = counted - sum(message["thumb"] == 1 for message in messages)
        if missing <= 0:
            return
        self._repaired(Repair.THUMBS, "thumb_up")
        for message in reversed(messages[1:]):
            if missing and message["role"] == ANSWER and message["thumb"] is None:
                message["thumb"] = 1
                missing -= 1
        if missing:
            self._keep("thumb_up", missing)

    def _counter(self, column: str, maximum: int) -> Any:  # noqa: ANN401 - int, or a duration
        value = self._cells.get(column)
        if value is None:
            return None
        try:
            number = float(value) if column == "duration" else int(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if 0 <= number <= maximum:  # false for NaN
            return number
        self._repaired(Repair.COUNTERS, column)
        self._keep(column, number if math.isfinite(number) else str(value), group="counters")
        return None

    def _times(self) -> tuple[datetime | None, datetime | None]:
        created_at, updated_at = self.time("create"), self.time("update")
        if created_at and updated_at and updated_at < created_at:
            self._repaired(Repair.TIMES, "update_time")
            updated_at = created_at
        return created_at, updated_at

    def _set_message_times(
        self,
        messages: Sequence[MessageFields],
        created_at: datetime | None,
        updated_at: datetime | None,
    ) -> None:
        """Set the valid times of messages that are not far outside the times of the row."""
        for index, message in enumerate(messages):
            if (value := message["payload"].get("created_at")) is None:
                continue
            moment = _moment(value)
            if (
                moment is None
                or (created_at and moment < created_at - _MAX_BEFORE_CREATION)
                or (updated_at and moment > updated_at + _MAX_AFTER_UPDATE)
            ):
                self._repaired(Repair.TIMES, f"message.{index}.created_at")
            else:
                message["created_at"] = max(moment, created_at or moment)

    def _user_id(self, column: str) -> str | None:
        text = self.text(column)
        if text is None or (short := short_user_id(text)) == text:
            return text
        self._repaired(Repair.USERS, column)
        self._keep(column, text)
        return short

    def _dsl(self) -> object:
        value = self._json("dsl", self._settings.max_json_depth)
        if value is None or self._is_within_limits(value):
            return value
        self._repaired(Repair.LOST, "dsl")
        return None

    def _errors(self) -> str | None:
        text = self.text("errors")
        if text is None or len(text.encode()) <= self._settings.max_message_bytes:
            return text
        self._repaired(Repair.LOST, "errors")
        return text.encode()[: self._settings.max_message_bytes].decode(errors="ignore")


def cell_text(cell: object) -> str | None:
    """Return a cell as text, even if its column does not have RAGFlow's type."""
    if cell is None or isinstance(cell, str):
        return cell
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)


def _moment(number: object) -> datetime | None:
    """Return the time of seconds or milliseconds since 1970; None outside of 2000 to 2099."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if not 0 < number < _MAX_MILLISECONDS:
        return None
    seconds = number / 1_000 if number >= _MIN_MILLISECONDS else number
    if not _MIN_TIME.timestamp() <= seconds < _MAX_TIME.timestamp():
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _parse_date(cell: object, tz: tzinfo) -> datetime | None:
    """Return the time of a date of 2000 to 2099; a naive date is local to `tz`."""
    try:
        date = datetime.fromisoformat(cell_text(cell) or "")
    except ValueError:
        return None
    if not _MIN_TIME.year <= date.year < _MAX_TIME.year:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=tz)).astimezone(UTC)
