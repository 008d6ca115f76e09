"""Validation of the records of an import, one by one, with a report of the rejected ones."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from pydantic import ValidationError

from asyncsvc.errors import AsyncSvcError, InvalidInput
from asyncsvc.threads import run_apart
from asyncsvc.validation.inputs import Input, invalid_input

if TYPE_CHECKING:
    from asyncsvc.settings import Settings

Record = TypeVar("Record", bound=Input)
OnRejected: TypeAlias = Callable[[int, AsyncSvcError], None]
"""Called with the index of a rejected record, from 0, and the reason."""


class RecordReader(Generic[Record]):
    """Reads the records of one import. Without `on_rejected` a rejected record raises its error."""

    def __init__(
        self, model: type[Record], settings: Settings, on_rejected: OnRejected | None
    ) -> None:
        """Validate each record as a `model`, within the limits of the settings."""
        self._model = model
        self._replaced = 0
        self._limits = settings.counting_replacements(self._count_replaced)
        self._on_rejected = on_rejected
        self.rejected = 0
        """The number of records rejected so far."""
        self.replaced_characters = 0
        """The number of characters that were replaced in valid records so far."""

    async def read(
        self, records: Iterable[object] | AsyncIterable[object]
    ) -> AsyncIterator[tuple[int, Record]]:
        """Yield each valid record with its index."""
        source, index = iterate(records), -1
        del records  # a frame of a traceback must not show the secrets of records
        async for fields in source:
            index += 1
            self._replaced = 0
            record, reason = await run_apart(partial(self._validate, fields), fields)
            del fields
            if record is not None:
                self.replaced_characters += self._replaced
                yield index, record
            elif reason is not None:
                self.reject(index, reason)

    def _validate(self, fields: object) -> tuple[Record | None, InvalidInput | None]:
        """Return the record, or the reason why it is invalid.

        The reason is not raised here: pydantic's error, which holds the values, would be its
        context.
        """
        try:
            return self._model.model_validate(fields, context=self._limits), None
        except ValidationError as error:
            return None, invalid_input(error)

    def _count_replaced(self, count: int) -> None:
        self._replaced += count

    def reject(self, index: int, error: AsyncSvcError) -> None:
        """Report the error of a record to `on_rejected`, or raise it if there is none."""
        if self._on_rejected is None:
            if isinstance(error, InvalidInput):
                raise InvalidInput(f"records.{index}.{error.field}", error.reason)
            raise error
        self.rejected += 1
        self._on_rejected(index, error)


async def iterate(records: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[object]:
    """Iterate over records of either kind."""
    if isinstance(records, AsyncIterable):
        async for record in records:
            yield record
            del record
    else:
        for record in records:
            yield record
            del record
