"""The time from which a watcher must read appends, so that it misses none.

An append has the time of its statement, and becomes visible at the end of its transaction, which
may be hours later. So a read covers the time since the previous read, and for each transaction that
ended since then, the time since it began.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from asyncsvc.repositories.watch import RunningTransactions

_MARGIN: Final = timedelta(seconds=1)
"""The maximum difference of the clocks of the servers that set the time of an append."""
_MIN_SETBACK: Final = 0.5
"""The seconds from which a clock counts as set back. The margin covers less."""
_KEPT: Final = timedelta(minutes=1)
"""The time before the watermark whose appends are remembered, for a clock that is set back."""
_PREPARED: Final = "prepared"


class Watermark(NamedTuple):
    """The state of the server at a read."""

    read_at: datetime
    """Each append of a transaction that ended before the read, or is later than this, is known."""
    running: Mapping[str, datetime]
    """The other transactions, each with a time before its first append."""
    offset: float
    """The upper bound of the server's clock minus the monotonic clock of this process."""

    @property
    def earliest(self) -> datetime:
        """A time before each append that is not known yet."""
        return min((self.read_at, *self.running.values())) - _MARGIN

    @property
    def kept_since(self) -> datetime:
        """The time before which no later read goes back, unless a clock is set back by a minute."""
        return self.earliest - _KEPT


class Read(NamedTuple):
    """A read of appends."""

    since: datetime
    """The time from which to read."""
    watermark: Watermark
    """The state after the read."""


def next_read(
    previous: Watermark | None, running: RunningTransactions, sent: float, received: float
) -> Read:
    """Return the read that follows `previous`. The transactions must be read before the appends.

    The first read covers the appends of the running transactions, so that a later read can
    distinguish them from new ones.

    Args:
        previous: The state at the last read. None: this is the first read.
        running: The running transactions.
        sent: The monotonic clock of this process before they were read.
        received: That clock afterwards.
    """
    clock = running.read_at.timestamp()
    if previous is None:
        first = Watermark(running.read_at, running.transactions, clock - sent)
        return Read(first.kept_since, first)
    # After a failover or a change of the clock, appends can be as much earlier.
    offset, setback = clock - sent, previous.offset - (clock - received)
    if setback < _MIN_SETBACK:
        offset, setback = max(offset, previous.offset), 0.0
    shift = timedelta(seconds=setback)
    ended = previous.running.keys() - running.transactions.keys()
    since = min((previous.read_at, *(previous.running[key] for key in ended))) - shift - _MARGIN
    bounds = {
        # A transaction that is prepared meanwhile gets another key.
        key: previous.earliest if key.startswith(_PREPARED) else previous.read_at
        for key in running.transactions
    } | {key: previous.running[key] for key in previous.running.keys() - ended}
    bounds = {key: bound - shift for key, bound in bounds.items()}
    return Read(since, Watermark(running.read_at, bounds, offset))
