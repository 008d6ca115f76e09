"""A finding of the doctor, from an observation and rules."""

from __future__ import annotations

from typing import TypeAlias

from asyncsvc.models import Finding, Level

Rule: TypeAlias = tuple[bool, Level, str]
"""Whether the rule holds, its level and its advice."""


def finding(check: str, observed: str, *rules: Rule) -> Finding:
    """Return the finding of the first rule that holds, or "ok"."""
    for holds, level, advice in rules:
        if holds:
            return Finding(check=check, level=level, observed=observed, advice=advice)
    return Finding(check=check, level="ok", observed=observed)
