"""Times as users type and read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from typing import Final

from pydantic import TypeAdapter, ValidationError

_DURATION: Final = re.compile(r"(?P<count>\d{1,6})(?P<unit>[hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str) -> timedelta | None:
    """Return the duration of `12h`, `90d`, `52w` or ISO 8601 (`P90D`); None for other text."""
    if match := _DURATION.fullmatch(text):
        return timedelta(**{_UNITS[match["unit"]]: int(match["count"])})
    if not text.startswith("P"):
        return None
    try:
        return TypeAdapter(timedelta).validate_python(text)
    except ValidationError:
        return None


def format_time(moment: datetime | None, local: tzinfo) -> str:
    """Return a time in a zone, to the minute; a dash for None."""
    return "-" if moment is None else f"{moment.astimezone(local):%Y-%m-%d %H:%M}"
