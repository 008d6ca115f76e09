"""Usage statistics."""

from __future__ import annotations

from datetime import datetime

from asyncsvc.models.base import Row


class UsageBucket(Row):
    """The usage of one hour, day, week or month.

    `dt` is the bucket's first instant, with the offset that its zone has then. (An hour in which
    a clock shifts by half an hour is two buckets; the second is named by the hour that its own
    offset makes of it, which began before.) `pv` counts conversations and `uv` their distinct
    users that are not empty; `duration` is in seconds; `rounds` is a sum and `round` the mean a
    conversation.
    """

    dt: datetime
    pv: int
    uv: int
    tokens: int
    duration: float
    rounds: int
    round: float
    thumb_up: int
    thumb_down: int
