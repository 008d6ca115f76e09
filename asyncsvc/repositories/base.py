"""What all repositories do: load a file of their folder, bind it, run it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from asyncsvc.database import sql_files
from asyncsvc.validation.checks import json_text
from asyncsvc.validation.inputs import Input
from asyncsvc.validation.types import UNSET

if TYPE_CHECKING:
    from asyncsvc.database import Executor, Row


M = TypeVar("M", bound=BaseModel)

_EXPONENT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<number>-?\d+(?:\.\d+)?e\+\d+)')
_SPECIAL: Final = re.compile(r"[\\\n\r\t]")
_BACKSLASHED: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Repository:
    """The statements of one folder of `sql/`."""

    folder: ClassVar[str]

    def __init__(self, executor: Executor) -> None:
        """Run on this executor."""
        self._executor = executor

    async def _rows(self, name: str, /, *flags: str, **parameters: object) -> list[Row]:
        statement = sql_files.load(f"{self.folder}/{name}")
        return await self._executor.fetch(statement.bind(flags, parameters))

    async def _count(self, name: str, /, **parameters: object) -> int:
        """Run a statement that returns how many rows it deleted."""
        (row,) = await self._rows(name, **parameters)
        return int(row["deleted"])


def to_json(value: object) -> str | None:
    """Write a value as JSON text, None as NULL. `:x::text::jsonb` reads it.

    Text, because the connection may be the caller's and have a codec for jsonb of its own.
    """
    if value is None:
        return None
    text = json_text(value)
    return _EXPONENT.sub(_written_out, text) if "e+" in text else text


def columns_to_set(values: Input) -> dict[str, object]:
    """Return the fields of an input that are not UNSET, by column, for `to_json`."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values
        if value is not UNSET
    }


def _written_out(match: re.Match[str]) -> str:
    """Write 1e+23 with all its digits and a fraction, for jsonb would keep it as an integer."""
    return match[0] if match["number"] is None else f"{Decimal(match[0]):f}.0"


def escape_copy_text(text: str) -> str:
    """Write a text as COPY reads it in its text format.

    https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
    """
    return _SPECIAL.sub(_backslashed, text) if _SPECIAL.search(text) else text


def _backslashed(match: re.Match[str]) -> str:
    return _BACKSLASHED[match[0]]


def build_model(model: type[M], row: Row) -> M:
    """Make a model of a row; columns that are none of its fields are left out.

    A dict of the row's items, checked as it is: keyword arguments cost a quarter as much again.
    """
    return model.model_validate(dict(row.items()))


def build_models(model: type[M], rows: Iterable[Row]) -> list[M]:
    """Make a model of each row, in one call of the validator: a call each takes a quarter more."""
    return validate_models(model, [dict(row.items()) for row in rows])


def validate_models(model: type[M], values: list[dict[str, Any]]) -> list[M]:
    """Make a model of the values of each row."""
    return _list_of(model).validate_python(values)


@cache
def _list_of(model: type[M]) -> TypeAdapter[list[M]]:
    # What the validator caches is told to its outermost part, and not by the model inside.
    config = ConfigDict(cache_strings=model.model_config.get("cache_strings", True))
    return TypeAdapter(list[model], config=config)  # type: ignore[valid-type]
