"""The pauses between the attempts of a retried call."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from typing import Final

_MAX_DOUBLINGS: Final = 64
"""Keeps 2**attempt within the range of a float. Each cap is far lower."""


def full_jitter(attempt: int, *, base: float, cap: float) -> float:
    """Return a random pause in seconds before the next attempt.

    Its upper bound is `base * 2**attempt`, at most `cap`. Random pauses keep callers that failed
    together from retrying together.
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, "Full Jitter".
    """
    bound = min(cap, base * 2 ** min(attempt, _MAX_DOUBLINGS))
    return random.uniform(0, bound)  # noqa: S311 - not a secret


def backoff(timeout: float, *, base: float, cap: float) -> Iterator[float]:
    """Yield the pause before each retry, until the next retry would begin after `timeout` seconds.

    The time counts from the first call of `next`.
    """
    end = time.monotonic() + timeout
    for attempt in itertools.count(1):
        pause = full_jitter(attempt, base=base, cap=cap)
        if time.monotonic() + pause > end:
            return
        yield pause
