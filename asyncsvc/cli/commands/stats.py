"""`asyncsvc stats`: how much a tenant's conversations were used, as a table and as charts."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from asyncsvc.cli import charting
from asyncsvc.cli.drawing import Column, bars, console, in_blocks, in_rows
from asyncsvc.cli.options import AsJson, Dsn, From, Tenant, To, Tz
from asyncsvc.cli.printing import many, print_json
from asyncsvc.cli.progress import bar
from asyncsvc.cli.running import CommandError, Exit, connected, run
from asyncsvc.client import AsyncSvc
from asyncsvc.models import UsageBucket
from asyncsvc.validation.dates import first_instant, zone
from asyncsvc.validation.types import ANY, AnyType

_DAYS: Final = 30
_NARROW: Final = 64
_LABELS: Final = {"hour": "%m-%d %H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m"}
_SHORT: Final = {"hour": "%d, %H:%M", "day": "%m-%d", "week": "%m-%d", "month": "%Y-%m"}
_SERIES: Final[Sequence[tuple[str, Callable[[UsageBucket], int], str]]] = (
    ("pv: conversations", lambda bucket: bucket.pv, "cyan"),
    ("uv: users", lambda bucket: bucket.uv, "green"),
    ("tokens", lambda bucket: bucket.tokens, "magenta"),
    ("rounds", lambda bucket: bucket.rounds, "blue"),
    ("thumbs up", lambda bucket: bucket.thumb_up, "bright_green"),
    ("thumbs down", lambda bucket: bucket.thumb_down, "red"),
)


class Interval(enum.StrEnum):
    """How long a bucket is."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Basis(enum.StrEnum):
    """Whether usage counts at the creation or at the time of each activity."""

    CREATION = "creation"
    ACTIVITY = "activity"


@dataclass(frozen=True, slots=True)
class _Query:
    """Which usage is asked for."""

    tenant: str
    since: str | None
    until: str | None
    interval: Interval
    dialog: str | None
    source: str | AnyType | None
    tz: str
    basis: Basis
    token: str | None

    def range(self) -> tuple[str, str]:
        """Return the first and the last day or instant: without them, the last 30 days."""
        local = zone(self.tz)
        until = self.until or f"{datetime.now(local):%Y-%m-%d}"
        if self.since is not None:
            return self.since, until
        last = first_instant("to_date", until, self.tz).astimezone(local).date()
        return f"{last - timedelta(days=_DAYS - 1)}", until

    async def ask(self, svc: AsyncSvc) -> list[UsageBucket]:
        return await svc.conversations.stats(
            self.tenant,
            *self.range(),
            self.source,
            interval=self.interval.value,
            basis=self.basis.value,
            dialog_id=ANY if self.dialog is None else self.dialog,
            token_id=ANY if self.token is None else self.token,
            tz=self.tz,
        )

    @property
    def title(self) -> str:
        since, until = self.range()
        return f"Usage of {self.tenant} by {self.interval}, {since} to {until}"


def stats(
    *,
    dsn: Dsn = None,
    tenant: Tenant,
    since: From = None,
    until: To = None,
    interval: Annotated[
        Interval, typer.Option(help="How long a row is; a week begins on Monday.")
    ] = Interval.DAY,
    dialog: Annotated[str | None, typer.Option(metavar="ID", help="This dialog alone.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="TEXT", help="This source alone.")
    ] = None,
    no_source: Annotated[
        bool, typer.Option("--no-source", help="Only conversations without a source.")
    ] = False,
    basis: Annotated[
        Basis,
        typer.Option(
            help="creation: existing conversations, at their creation. activity: at the time of"
            " each activity, deletions included; without users."
        ),
    ] = Basis.CREATION,
    token: Annotated[
        str | None,
        typer.Option(metavar="ID", help="What this API token consumed; with --basis activity."),
    ] = None,
    tz: Tz = "UTC",
    plot: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="FILE",
            help="Write a chart, too: as SVG or PNG, by the ending of the name.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much conversations were used: by day, the last 30 days, unless told otherwise.

    pv counts the conversations that began, uv their distinct users.
    """
    if source is not None and no_source:
        raise typer.BadParameter("does not go with --source", param_hint="--no-source")
    wanted = None if no_source else ANY if source is None else source
    query = _Query(tenant, since, until, interval, dialog, wanted, tz, basis, token)
    run(_stats(dsn, query, plot, as_json=as_json))


async def _stats(dsn: str | None, query: _Query, plot: Path | None, *, as_json: bool) -> None:
    local = zone(query.tz)
    if plot is not None:
        charting.refuse_what_cannot_be_drawn(plot)
    async with connected(dsn, max_size=1) as svc:
        with bar("counting"):
            buckets = await query.ask(svc)
    if plot is not None:
        if not buckets:
            raise CommandError("there is nothing to draw in this range", Exit.ATTENTION)
        charting.write(charting.Chart(query.title, query.interval, local, buckets), plot)
    if as_json:
        print_json({"buckets": buckets, "total": _totals(buckets)})
        return
    _print_stats(query, buckets)
    if plot is not None:
        console().print(Text(f"The chart is in {plot}."), soft_wrap=True)


def _totals(buckets: Sequence[UsageBucket]) -> dict[str, float]:
    """Add up what can be: a user of two days is one user, so uv cannot."""
    return {
        "pv": sum(bucket.pv for bucket in buckets),
        "tokens": sum(bucket.tokens for bucket in buckets),
        "duration": sum(bucket.duration for bucket in buckets),
        "rounds": sum(bucket.rounds for bucket in buckets),
        "thumb_up": sum(bucket.thumb_up for bucket in buckets),
        "thumb_down": sum(bucket.thumb_down for bucket in buckets),
    }


def _print_stats(query: _Query, buckets: Sequence[UsageBucket]) -> None:
    labels = [f"{bucket.dt:{_LABELS[query.interval]}}" for bucket in buckets]
    totals = _totals(buckets)
    columns = (
        Column(query.interval.value),
        *(Column(name, right=True) for name in ("pv", "uv", "rounds", "tokens")),
        *(Column(name, right=True, least_width=_NARROW) for name in ("up", "down")),
    )
    rows = [
        (label, *_cells(b.pv, b.uv, b.rounds, b.tokens, b.thumb_up, b.thumb_down))
        for label, b in zip(labels, buckets, strict=True)
    ]
    total = _cells(*(totals[name] for name in ("rounds", "tokens", "thumb_up", "thumb_down")))
    console().print(in_blocks(columns, [*rows, ("total", f"{totals['pv']:,}", "", *total)]))
    if not any(totals.values()):
        console().print("no conversations in this range")
        return
    plots = _plots(query.interval, buckets)
    console().print(in_rows(plots))
    if query.basis is Basis.CREATION:
        average = totals["duration"] / totals["pv"]
        pv = many(int(totals["pv"]), "conversation")
        console().print(f"{pv}, {average:,.1f} s each on average")


def _cells(*values: float) -> list[str]:
    return [f"{value:,}" for value in values]


def _plots(interval: Interval, buckets: Sequence[UsageBucket]) -> list[Text]:
    """Return a plot of each series that is not all zero."""
    drawn, labels = list[Text](), [f"{bucket.dt:{_SHORT[interval]}}" for bucket in buckets]
    for title, value_of, style in _SERIES:
        values = [value_of(bucket) for bucket in buckets]
        if any(values):
            drawn.append(bars(f"{title} by {interval}", labels, values, style=style))
    return drawn
