"""The base of all repositories: bind a SQL file, run it, and build models from its rows."""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel

from asyncsvc.database import build_value, sql_files
from asyncsvc.threads import run_apart
from asyncsvc.validation.inputs import Input
from asyncsvc.validation.json_values import stored_json
from asyncsvc.validation.types import UNSET, UnsetType

if TYPE_CHECKING:
    from asyncsvc.database import Executor, Row


Stored = TypeVar("Stored", bound=BaseModel)
Patch = TypeVar("Patch", bound=Input)

_COPY_SPECIAL: Final = re.compile(r"[\\\n\r\t]")
_COPY_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Repository:
    """The statements of one folder of `sql/`. Each method runs the file of its name."""

    folder: ClassVar[str]

    def __init__(self, executor: Executor) -> None:
        """Run the statements on this executor."""
        self._executor = executor

    async def _rows(self, name: str, /, *flags: str, **parameters: object) -> list[Row]:
        """Run a file of the folder. A parameter that is UNSET is not passed."""
        statement = sql_files.load(f"{self.folder}/{name}")
        return await self._executor.fetch(statement.bind(flags, parameters))

    async def _append(
        self, name: str, /, *flags: str, tenant_id: str, **parameters: object
    ) -> list[Row]:
        """Run a file that appends messages, and notify the processes that watch the tenant."""
        notifier = self._executor.notifier
        own = ["notify"] if notifier is None else []
        rows = await self._rows(name, *flags, *own, tenant_id=tenant_id, **parameters)
        if notifier is not None and rows and build_value(bool, rows[0], "is_watched"):
            notifier.notify(tenant_id)
        return rows

    async def _count(self, name: str, /, **parameters: object) -> int:
        """Run a file that returns one row with the column `deleted`."""
        (row,) = await self._rows(name, **parameters)
        return build_value(int, row, "deleted")


class KeyedRepository(Repository, abc.ABC, Generic[Stored, Patch]):
    """The repository of rows that are read and updated by id."""

    @abc.abstractmethod
    async def get_by_ids(self, *, tenant_id: str, ids: Sequence[str]) -> list[Stored]:
        """Return the rows that exist, in the order of the ids."""

    @abc.abstractmethod
    async def update_many_by_id(
        self, *, tenant_id: str, patches: Mapping[str, Patch]
    ) -> list[Stored]:
        """Set columns of rows, by id; return the changed rows."""


async def to_json_apart(value: object) -> str | None:
    """Return what `to_json` returns, for a value that may be large."""
    return await run_apart(partial(to_json, value), value)


async def json_unless_unset(value: object) -> str | UnsetType | None:
    """Return what `to_json_apart` returns; UNSET stays UNSET."""
    return UNSET if value is UNSET else await to_json_apart(value)


def to_json(value: object) -> str | None:
    """Return a value as JSON text for `:x::text::jsonb`; None stays None.

    A connection of the caller may have its own codec for jsonb, so JSON is sent as text.
    """
    return None if value is None else stored_json(value)


def columns_to_set(values: Input) -> dict[str, object]:
    """Return the fields of an input that are not UNSET, by column, for `to_json`."""
    return {name: _json_value(value) for name, value in values if value is not UNSET}


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def escape_copy_text(text: str) -> str:
    """Escape a value for COPY in text format.

    https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
    """
    if not _COPY_SPECIAL.search(text):
        return text
    return _COPY_SPECIAL.sub(lambda match: _COPY_ESCAPES[match[0]], text)
