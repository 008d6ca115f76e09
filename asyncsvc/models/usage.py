"""Usage statistics."""

from __future__ import annotations

from datetime import datetime

from asyncsvc.models.base import Model


class UsageBucket(Model):
    """The usage of one hour, day, week or month."""

    dt: datetime
    """The first instant of the bucket, with the offset that its zone has then.

    An hour in which a clock shifts by half an hour is two buckets. The label of the second is the
    start of the hour in the new offset, which is before the shift.
    """
    pv: int
    """The number of conversations."""
    uv: int
    """The number of distinct users of these conversations, without the empty user id."""
    tokens: int
    """The sum of language model tokens."""
    duration: float
    """The sum of the durations of turns, in seconds."""
    rounds: int
    """The sum of rounds."""
    round: float
    """The mean number of rounds per conversation; 0 without conversations."""
    thumb_up: int
    """The number of messages with positive feedback."""
    thumb_down: int
    """The number of messages with negative feedback."""
