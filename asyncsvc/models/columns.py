"""Types of columns whose values have more than one form in Python.

A codec of the caller's connection can return another form than asyncpg.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

from pydantic import BeforeValidator, GetCoreSchemaHandler, Strict
from pydantic_core import CoreSchema, core_schema

_ISO_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d(?P<minutes>:?\d\d)?)"
)


class _AwareTime:
    """Accepts an aware datetime and its text, but no number, since its unit would be unknown."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Try the datetime first, in strict mode: almost every value is one."""
        aware = core_schema.datetime_schema(strict=True, tz_constraint="aware")
        text = core_schema.chain_schema(
            [
                core_schema.no_info_plain_validator_function(_iso_time),
                core_schema.datetime_schema(tz_constraint="aware"),
            ]
        )
        return core_schema.json_or_python_schema(
            json_schema=aware,
            python_schema=core_schema.union_schema([aware, text], mode="left_to_right"),
        )


def _iso_time(value: object) -> str:
    """Return the text of a time as ISO 8601. PostgreSQL omits the minutes of whole offsets."""
    match = _ISO_TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be an aware datetime")
    return match[0] if match["minutes"] or match[0].endswith("Z") else f"{match[0]}:00"


def _bytes_of_text(value: object) -> object:
    """Return the bytes of PostgreSQL's text for bytes."""
    return bytes.fromhex(value[2:]) if isinstance(value, str) and value[:2] == "\\x" else value


Timestamp = Annotated[datetime, _AwareTime()]
"""A column of the type timestamptz."""
Bytes = Annotated[bytes, Strict(), BeforeValidator(_bytes_of_text)]
"""A column of the type bytea."""
