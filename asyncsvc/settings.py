"""The limits and time-outs that a caller may change, in one frozen place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from asyncsvc.inputs import Input

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

QueryHook = Callable[[str, float, int, BaseException | None], None]
"""`on_query(name, seconds, rows, error)`, called after each statement, `name` as its file's."""


class Settings(Input):
    """Limits, time-outs and formats. The defaults suit a web application.

    A hook must be quick and must not raise: it runs within the call that it watches.
    """

    page_items: Positive = 1_000
    """The most items that a caller may ask for in one page or read; defaults are not bound."""
    page_window: Positive = 10**9
    """The highest page number times items per page; beyond it, use a cursor."""
    message_bytes: Positive = 2**20
    """The most UTF-8 bytes of a message's content, and of `errors`."""
    json_bytes: Positive = 2**20
    """The most bytes of one JSON value."""
    json_depth: Annotated[int, Field(gt=0, le=200)] = 64
    """The most levels of one JSON value."""
    batch_items: Positive = 1_000
    """The most messages of a turn, or ids, scopes, conversations or patches of one call."""
    batch_bytes: Positive = 2**24
    """The most bytes of one turn or bulk call."""
    buckets: Positive = 10_000
    """The most buckets of one usage statistic."""
    acquire_timeout: Seconds = 5.0
    """Seconds to wait for a connection of the pool."""
    statement_timeout: Seconds = 30.0
    """Seconds to wait for a statement."""
    token_prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{1,9}$")] = "asv"  # noqa: S105 - public
    """What new API tokens begin with, before an underscore."""
    touch_interval: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 60.0
    """Seconds between two stamps of a token's `last_used_at`: 0 stamps each use, None none."""
    on_query: QueryHook | None = None
    """Watches every statement of a SQL file; not BEGIN, COMMIT or a migration's commands."""
