"""Makes records of RAGFlow's rows, whatever their cells hold.

What cannot be stored as it is is mended, and each mending has a kind that names it. What has no
place in a record stays in `metadata["ragflow"]`: a reference that belongs to no answer, a cell that
is not JSON. Only what does not fit there either is lost, and that is named too.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any, Final

from pydantic_core import PydanticCustomError

from asyncsvc.ragflow import shapes
from asyncsvc.ragflow.drivers import Cells
from asyncsvc.settings import Settings
from asyncsvc.validation.checks import check_json
from asyncsvc.validation.types import MAX_INT

_ANSWER: Final = "assistant"
_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})
_MOST_TOKENS: Final = 2**63 - 1
_MOST_SECONDS: Final = 9 * 10**12
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
_ESCAPED: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""What may stand for what cannot be stored: pairs of surrogates look like lone ones from here."""
_LONGEST_NUMBER: Final = 4_300
_MILLISECONDS: Final = 10**11
"""From here on a number is no time in seconds, which it would be in the year 5138."""
_MOST_MILLISECONDS: Final = 10**16
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)


class Mending(enum.StrEnum):
    """What was done to a row, so that it could go in."""

    UNWRAPPED = "json_in_json"
    """JSON that was text within JSON is what that text says."""
    CHARACTERS = "characters"
    """NUL and lone surrogates, which PostgreSQL cannot hold, are U+FFFD."""
    NUMBERS = "numbers"
    """NaN and infinity are null, and integers of over 4,300 digits are text."""
    DUPLICATE_KEYS = "duplicate_keys"
    """Of keys that an object has twice the last one holds, as it did for RAGFlow."""
    DEPTH = "depth"
    """What is nested deeper than `Settings.max_json_depth` is its JSON as text."""
    NOT_JSON = "not_json"
    """A cell that is not JSON, or so deep that Python cannot read it, is kept as text."""
    SHAPE = "shape"
    """A cell that is not the list it should be, or a message that is no object, is kept apart."""
    ROLE = "role"
    """A message without a usable role has the role "unknown"; what it had is in its payload."""
    CONTENT = "content"
    """The content of a message is text; what was none is in its payload too."""
    REFERENCES = "references"
    """References beyond the last answer are kept apart."""
    THUMBS = "thumbs"
    """Thumbs that only the row counted went to the last answers."""
    COUNTERS = "counters"
    """A counter that cannot be is 0, and kept apart."""
    TIMES = "times"
    """A time that is not there, or cannot be, is one that is known nearby."""
    USERS = "users"
    """A user's id of over 128 characters is its beginning and a hash, and kept apart whole."""
    LOST = "lost"
    """What does not fit anywhere is gone: raise the limits of the settings to keep it."""


class UnusableError(Exception):
    """Nothing worth having can be made of a row; the text says why."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """The fields of a record, and what was mended, each with the first place where it was."""

    fields: dict[str, Any]
    mendings: Mapping[Mending, str]


def conversation(cells: Cells, tz: tzinfo, settings: Settings) -> Repaired:
    """Make a conversation's record; a naive time is a local one of `tz`.

    Raises UnusableError where its messages cannot be read and do not fit as text either.
    """
    repair = _Repair(cells, tz, settings)
    return Repaired(repair.record(), repair.mendings)


def token(cells: Cells, tz: tzinfo) -> dict[str, Any]:
    """Return what the tokens of a row have in common, beside its secrets."""
    repair = _Repair(cells, tz, Settings())
    return {
        **{column: _text(cells.get(column)) for column in shapes.SECRETS},
        "name": repair.text("name") or "",
        "dialog_id": repair.text("dialog_id") or None,
        "source": repair.text("source") or None,
        "created_at": repair.time("create"),
    }


class _Repair:
    """Makes one row good."""

    def __init__(self, cells: Cells, tz: tzinfo, settings: Settings) -> None:
        self._cells = cells
        self._tz = tz
        self._settings = settings
        self._kept: dict[str, Any] = {}
        self.mendings: dict[Mending, str] = {}

    def record(self) -> dict[str, Any]:
        messages = self._messages()
        self._attach(messages)
        self._judge(messages)
        created_at, updated_at = self._times()
        self._date(messages, created_at, updated_at)
        return {
            "id": _text(self._cells["id"]),  # as it is, or it would be another conversation's
            "dialog_id": _text(self._cells["dialog_id"]),
            "user_id": self._user("user_id") or "",
            "exp_user_id": self._user("exp_user_id") or None,
            "name": self.text("name"),
            "source": self.text("source") or None,
            "version_title": self.text("version_title"),
            "dsl": self._dsl(),
            "errors": self._errors(),
            "round": self._counter("round", MAX_INT),
            "tokens": self._counter("tokens", _MOST_TOKENS) or 0,
            "duration": self._counter("duration", _MOST_SECONDS) or 0.0,
            "messages": messages,
            "created_at": created_at,
            "updated_at": updated_at,
            "metadata": {shapes.KEPT: self._kept} if self._kept else None,
        }

    def note(self, kind: Mending, place: str) -> None:
        self.mendings.setdefault(kind, place)

    def text(self, column: str) -> str | None:
        """Return a text cell that can be stored."""
        text = _text(self._cells.get(column))
        if text is None or not _UNSTORABLE.search(text):
            return text
        self.note(Mending.CHARACTERS, column)
        return _UNSTORABLE.sub(_REPLACED, text)

    def time(self, which: str) -> datetime | None:
        """Return the moment of `create` or `update`, by the milliseconds or else by the date."""
        number = self._cells.get(f"{which}_time")
        moment = _moment(number)
        if moment is not None:
            if number is not None and number < _MILLISECONDS:
                self.note(Mending.TIMES, f"{which}_time")
            return moment
        self.note(Mending.TIMES, f"{which}_time")
        return _dated(self._cells.get(f"{which}_date"), self._tz)

    def _keep(self, name: str, value: object, *, under: str | None = None) -> bool:
        """Keep what has no place in a record, where it fits; say whether it did."""
        kept = self._kept | (
            {name: value} if under is None else {under: {**self._kept.get(under, {}), name: value}}
        )
        if not self._fits({shapes.KEPT: kept}):
            self.note(Mending.LOST, name)
            return False
        self._kept = kept
        return True

    def _fits(self, value: object) -> bool:
        try:
            check_json(value, self._settings)
        except PydanticCustomError:
            return False
        return True

    def _json(self, column: str, depth: int) -> object:
        """Read a cell; NULL, an empty one and one that is not JSON are None."""
        text = _text(self._cells.get(column))
        if not text:
            return None
        try:
            value, mended = read_json(text, depth)
        except UnusableError:
            self.note(Mending.NOT_JSON, column)
            self._set_aside(column, _UNSTORABLE.sub(_REPLACED, text), under="not_json")
            return None
        for kind in mended:
            self.note(kind, column)
        return value

    def _list(self, column: str) -> list[Any]:
        """Read a cell that should hold a list."""
        # It has to fit into the metadata, two levels deeper.
        value = self._json(column, self._settings.max_json_depth - 2)
        if value in _NOTHING:
            return []
        if isinstance(value, list):
            return value
        self.note(Mending.SHAPE, column)
        self._set_aside(column, value)
        return []

    def _set_aside(self, column: str, value: object, *, under: str | None = None) -> None:
        if not self._keep(column, value, under=under) and column == "message":
            raise UnusableError("message: is no list of messages, and too long to be kept as it is")

    def _messages(self) -> list[dict[str, Any]]:
        messages, others = list[dict[str, Any]](), dict[str, object]()
        for at, item in enumerate(self._list("message")):
            if isinstance(item, dict):
                messages.append(self._message(f"message.{at}", item))
            else:
                others[str(at)] = item
        if others:
            self.note(Mending.SHAPE, f"message.{min(others, key=int)}")
            self._keep("items", others)
        return messages

    def _message(self, place: str, item: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(item.get("content"), str):
            self.note(Mending.CONTENT, place)
        message = shapes.split(item)
        if message["role"] != item.get("role"):
            self.note(Mending.ROLE, place)
        return message

    def _attach(self, messages: Sequence[dict[str, Any]]) -> None:
        left = shapes.attach(list(messages), self._list("reference"))
        if any(each not in _NOTHING for each in left):
            self.note(Mending.REFERENCES, "reference")
            self._keep("reference", left)

    def _judge(self, messages: Sequence[dict[str, Any]]) -> None:
        """Have as many thumbs up as the row counts: its feedback may not say of which answer."""
        counted = self._counter("thumb_up", MAX_INT) or 0
        missing = counted - sum(message.get("thumb") == 1 for message in messages)
        if missing <= 0:
            return
        self.note(Mending.THUMBS, "thumb_up")
        for message in reversed(messages[1:]):  # nobody judges a prologue
            if missing and message["role"] == _ANSWER and message.get("thumb") is None:
                message["thumb"] = 1
                missing -= 1
        if missing:
            self._keep("thumb_up", missing)

    def _counter(self, column: str, most: int) -> Any:  # noqa: ANN401 - int, or a duration
        value = self._cells.get(column)
        if value is None:
            return None
        try:
            number = float(value) if column == "duration" else int(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if 0 <= number <= most:
            return number
        self.note(Mending.COUNTERS, column)  # NaN is neither
        self._keep(column, number if math.isfinite(number) else str(value), under="counters")
        return None

    def _times(self) -> tuple[datetime | None, datetime | None]:
        created_at, updated_at = self.time("create"), self.time("update")
        if created_at and updated_at and updated_at < created_at:
            self.note(Mending.TIMES, "update_time")
            updated_at = created_at
        return created_at, updated_at

    def _date(
        self,
        messages: Sequence[dict[str, Any]],
        created_at: datetime | None,
        updated_at: datetime | None,
    ) -> None:
        """Give messages the times that they have, where these can be."""
        for at, message in enumerate(messages):
            if (told := message["payload"].get("created_at")) is None:
                continue
            moment = _moment(told)
            if (
                moment is None
                or (created_at and moment < created_at - _MINUTE)
                or (updated_at and moment > updated_at + _DAY)
            ):
                self.note(Mending.TIMES, f"message.{at}.created_at")
            else:
                message["created_at"] = max(moment, created_at or moment)

    def _user(self, column: str) -> str | None:
        text = self.text(column)
        if text is None or (short := shapes.shortened(text)) == text:
            return text
        self.note(Mending.USERS, column)
        self._keep(column, text)
        return short

    def _dsl(self) -> object:
        value = self._json("dsl", self._settings.max_json_depth)
        if value is None or self._fits(value):
            return value
        self.note(Mending.LOST, "dsl")
        return None

    def _errors(self) -> str | None:
        text = self.text("errors")
        if text is None or len(text.encode()) <= self._settings.max_message_bytes:
            return text
        self.note(Mending.LOST, "errors")
        return text.encode()[: self._settings.max_message_bytes].decode(errors="ignore")


def read_json(text: str, depth: int) -> tuple[Any, set[Mending]]:
    """Read JSON as PostgreSQL can hold it, at most so deep; return it, and what was mended.

    Raises UnusableError for what is not JSON.
    """
    mended = set[Mending]()
    value = _decoded(text, mended)
    # Most text is plain, and looking at each value takes longer than reading it all.
    if _is_suspicious(text) or text.count("[") + text.count("{") > depth:
        value = _cleaned(value, depth, mended)
    if isinstance(value, str) and value.lstrip().startswith(("{", "[", '"')):
        return _unwrapped(value, depth, mended)
    return value, mended


def _unwrapped(text: str, depth: int, mended: set[Mending]) -> tuple[Any, set[Mending]]:
    """Read what is text within JSON; it stays text where that leads to no list or object."""
    try:
        value, more = read_json(text, depth)
    except UnusableError:
        return text, mended
    if not isinstance(value, dict | list):
        return text, mended
    return value, {*mended, *more, Mending.UNWRAPPED}


def _is_suspicious(text: str) -> bool:
    """Say whether JSON may hold a NUL or a lone surrogate, escaped or not."""
    return "\x00" in text or ("\\u" in text and _ESCAPED.search(text) is not None) or _is_lone(text)


def _is_lone(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _decoded(text: str, mended: set[Mending]) -> Any:  # noqa: ANN401 - whatever JSON holds
    def integer(digits: str) -> int | str:
        if len(digits) <= _LONGEST_NUMBER:
            return int(digits)
        mended.add(Mending.NUMBERS)
        return digits

    def number(digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        mended.add(Mending.NUMBERS)
        return None

    decoder = json.JSONDecoder(
        object_pairs_hook=partial(_paired, mended=mended),
        parse_int=integer,
        parse_float=number,
        parse_constant=number,  # NaN and infinity, which are no JSON
        strict=False,
    )
    try:
        return decoder.decode(text)
    except json.JSONDecodeError:
        raise UnusableError("is not JSON") from None
    except RecursionError:
        raise UnusableError("is JSON of thousands of levels") from None


def _cleaned(value: Any, depth: int, mended: set[Mending]) -> Any:  # noqa: ANN401 - as JSON is
    """Return a value with what PostgreSQL cannot hold replaced, and lists and objects that deep."""
    match value:
        case str() if _UNSTORABLE.search(value):
            mended.add(Mending.CHARACTERS)
            return _UNSTORABLE.sub(_REPLACED, value)
        case list() | dict() if depth == 0:
            mended.add(Mending.DEPTH)
            return _cleaned(_flat(value), 0, mended)
        case list():
            return [_cleaned(item, depth - 1, mended) for item in value]
        case dict():
            items = [
                (_cleaned(name, 0, mended), _cleaned(item, depth - 1, mended))
                for name, item in value.items()
            ]
            return _paired(items, mended)
    return value


def _paired(pairs: list[tuple[str, Any]], mended: set[Mending]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        mended.add(Mending.DUPLICATE_KEYS)
    return made


def _flat(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise UnusableError("is JSON of thousands of levels") from None


def _text(cell: object) -> str | None:
    """Return a cell as text, also where a column is of another type than RAGFlow's."""
    if cell is None or isinstance(cell, str):
        return cell
    return cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)


def _moment(number: object) -> datetime | None:
    """Return the moment of a number of seconds or milliseconds since 1970, where it can be one."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if not 0 < number < _MOST_MILLISECONDS:
        return None
    seconds = number / 1_000 if number >= _MILLISECONDS else number
    if not _FIRST.timestamp() <= seconds < _LAST.timestamp():
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _dated(cell: object, tz: tzinfo) -> datetime | None:
    """Return the moment that a date names, a naive one in this zone, where it can be one."""
    try:
        date = datetime.fromisoformat(_text(cell) or "")
    except ValueError:
        return None
    if not _FIRST.year <= date.year < _LAST.year:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=tz)).astimezone(UTC)
