"""Ages and terms as people type them: `12h`, `90d`, `52w`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_AGE: Final = re.compile(r"(?P<count>\d{1,6})(?P<unit>[hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


def age(text: str) -> timedelta | None:
    """Return the length of time that the text names; None where it is something else, as a date."""
    match = _AGE.fullmatch(text)
    return timedelta(**{_UNITS[match["unit"]]: int(match["count"])}) if match else None
