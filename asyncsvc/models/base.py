"""The base of stored rows, and the marker of arguments that a mapping may stand for."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
)
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class ModelOrMapping:
    """Says what `validated` makes of an argument for which an equal mapping does as well."""

    form: object

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check by the form alone; the union is for the type checker's sake."""
        return handler.generate_schema(self.form)


class Row(BaseModel):
    """The base of all rows and results: frozen, made of what the database returned.

    What is no field is left out: looking for such costs a fifth of the time, and the tests hold
    the columns of each statement against the model's fields.

    Of JSON pydantic caches short texts, up to 16,384 in a process, for ever. Keys repeat, and it is
    right for them; what people wrote does not, and is not to stay when the caller lets it go.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", cache_strings="keys", defer_build=True)
