"""The SQL files of the benchmarks, one statement or script per file of `benchmarks/sql`."""

from __future__ import annotations

import functools
import re
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "sql"


@functools.cache
def sql(name: str) -> str:
    """Return the text of a file without its header."""
    text = (_DIRECTORY / f"{name}.sql").read_text(encoding="utf-8")
    return re.sub(r"\A(--.*\n)+", "", text).strip()
