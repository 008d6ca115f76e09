"""Limits on the size of inputs."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from asyncsvc.validation.inputs import Input

MAX_SECONDS: Final = 10**9
"""About 30 years: the largest time span that is added to or taken from the server's clock."""

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Limits(Input):
    """Limits on the size of inputs and results. `Settings` adds time-outs, tokens and hooks."""

    max_page_size: Positive = 1_000
    """The most items that a caller may ask for in one page or read; defaults are not bound."""
    max_page_window: Positive = 10**9
    """The highest page number times items per page; beyond it, use a cursor."""
    max_message_bytes: Positive = 2**20
    """The most UTF-8 bytes of a message's content, and of `errors`."""
    max_json_bytes: Positive = 2**20
    """The most bytes of one JSON value."""
    max_json_depth: Annotated[int, Field(gt=0, le=200)] = 64
    """The most levels of one JSON value."""
    max_batch_size: Positive = 1_000
    """The most messages of a turn, or ids, scopes, conversations or patches of one call."""
    max_batch_bytes: Positive = 2**24
    """The most bytes of one turn or check_batch_size call."""
    max_buckets: Positive = 10_000
    """The most buckets of one usage statistic."""
    max_rotation_overlap: Annotated[Seconds, Field(le=MAX_SECONDS)] = 30 * 86_400.0
    """The most seconds that a rotated token may stay good beside its successor."""
