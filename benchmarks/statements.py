"""The benchmarks' own SQL, one statement or script a file of `benchmarks/sql`."""

from __future__ import annotations

import functools
import re
from pathlib import Path

_PLACE = Path(__file__).parent / "sql"


@functools.cache
def sql(name: str) -> str:
    """Return the text of a file, without its header of prose."""
    text = (_PLACE / f"{name}.sql").read_text(encoding="utf-8")
    return re.sub(r"\A(--.*\n)+", "", text).strip()
