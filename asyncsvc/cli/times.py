"""Times as users type and read them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from typing import Final

from pydantic import TypeAdapter, ValidationError

AGE_FORMS: Final = "a number of s, m, h, d or w (36h, '90 days'), or ISO 8601 (P30D, PT12H)"
"""The accepted forms of an age, for help and errors."""
_AGE: Final = re.compile(r"(?P<count>\d{1,9}) ?(?P<unit>[smhdw]|(second|minute|hour|day|week)s?)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age_or_none(text: str) -> timedelta | None:
    """Parse an age in one of the `AGE_FORMS`, or return None."""
    try:
        if match := _AGE.fullmatch(text):
            return timedelta(**{_UNITS[match["unit"][0]]: int(match["count"])})
        return TypeAdapter(timedelta).validate_python(text) if text.startswith("P") else None
    except (ValidationError, OverflowError):
        return None


def parse_age(text: str) -> timedelta:
    """Parse an age in one of the `AGE_FORMS`, or raise ValueError."""
    age = age_or_none(text)
    if age is None:
        raise ValueError(f"must be {AGE_FORMS}")
    return age


def format_time(moment: datetime | None, local: tzinfo) -> str:
    """Return a time in a zone, to the minute; a dash for None."""
    return "-" if moment is None else f"{moment.astimezone(local):%Y-%m-%d %H:%M}"
