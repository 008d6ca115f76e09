"""`asyncsvc stats`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from rich.text import Text
from typer import Option

from asyncsvc import InvalidInput, UsageBucket
from asyncsvc.cli.charts import check_plot_path, write_usage_chart
from asyncsvc.cli.options import AsJson, Dialog, Dsn, FromDate, Tenant, TimeZone, ToDate, or_any
from asyncsvc.cli.output import counted, print_json
from asyncsvc.cli.plots import bar_plot
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import asynchronous, connected
from asyncsvc.cli.terminal import Column, console, say, side_by_side, table_in_blocks
from asyncsvc.validation.dates import first_instant

Interval: TypeAlias = Literal["hour", "day", "week", "month"]

_DAYS: Final = 30
_FORMATS: Final = {"hour": "%m-%d %H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m"}
_PLOT_FORMATS: Final = {"hour": "%d, %H:%M", "day": "%m-%d", "week": "%m-%d", "month": "%Y-%m"}
_SERIES: Final[Sequence[tuple[str, Callable[[UsageBucket], int], str]]] = (
    ("conversations", lambda bucket: bucket.conversations, "cyan"),
    ("users", lambda bucket: bucket.users or 0, "green"),
    ("tokens", lambda bucket: bucket.tokens, "magenta"),
    ("rounds", lambda bucket: bucket.rounds, "blue"),
    ("thumbs up", lambda bucket: bucket.thumb_up, "bright_green"),
    ("thumbs down", lambda bucket: bucket.thumb_down, "red"),
)

Source = Annotated[str | None, Option(metavar="TEXT", help="Only this source.")]
NoSource = Annotated[bool, Option("--no-source", help="Only conversations without a source.")]
BucketLength = Annotated[Interval, Option(help="The length of a bucket; a week begins on Monday.")]
Basis = Annotated[
    Literal["creation", "activity"],
    Option(
        help="creation: count each existing conversation at its creation. activity: count each"
        " change at its own time, in deleted conversations too, without users."
    ),
]
Token = Annotated[
    str | None, Option("--token", metavar="ID", help="Only this API token; needs --basis activity.")
]
Plot = Annotated[
    Path | None, Option(readable=False, metavar="FILE", help="Also write a chart, as .svg or .png.")
]


@asynchronous
async def stats(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    from_date: FromDate = None,
    to_date: ToDate = None,
    interval: BucketLength = "day",
    dialog_id: Dialog = None,
    source: Source = None,
    no_source: NoSource = False,
    basis: Basis = "creation",
    token_id: Token = None,
    tz: TimeZone = UTC,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Show the usage of a tenant; by default of the last 30 days, by day."""
    _check_options(source, plot, no_source=no_source)
    first, last = _range(from_date, to_date, tz)
    async with connected(dsn) as svc:
        with progress_bar("counting"):
            buckets = await svc.conversations.stats(
                tenant_id=tenant_id,
                from_date=first,
                to_date=last,
                source=None if no_source else or_any(source),
                interval=interval,
                basis=basis,
                dialog_id=or_any(dialog_id),
                token_id=or_any(token_id),
                tz=str(tz),
            )
    if plot is not None:
        title = f"Usage of {tenant_id} by {interval}, {first} to {last}"
        write_usage_chart(plot, title, buckets, interval=interval, local=tz)
    if as_json:
        print_json({"buckets": buckets, "total": _totals(buckets)})
        return
    print_usage(interval, buckets, with_average=basis == "creation")
    if plot is not None:
        say(f"The chart is in {plot}.")


def _check_options(source: str | None, plot: Path | None, *, no_source: bool) -> None:
    if source is not None and no_source:
        raise InvalidInput("no_source", "cannot be combined with --source")
    if plot is not None:
        check_plot_path(plot)


def _range(from_date: str | None, to_date: str | None, local: tzinfo) -> tuple[str, str]:
    """Return the first and the last day or instant; by default, of the last 30 days."""
    last = to_date or f"{datetime.now(local):%Y-%m-%d}"
    if from_date is not None:
        return from_date, last
    last_day = first_instant("to_date", last, str(local)).astimezone(local).date()
    return f"{last_day - timedelta(days=_DAYS - 1)}", last


def _totals(buckets: Sequence[UsageBucket]) -> dict[str, float]:
    """Return the sums of all buckets, without users: a user may occur in several buckets."""
    return {
        "conversations": sum(bucket.conversations for bucket in buckets),
        "tokens": sum(bucket.tokens for bucket in buckets),
        "duration": sum(bucket.duration for bucket in buckets),
        "rounds": sum(bucket.rounds for bucket in buckets),
        "thumb_up": sum(bucket.thumb_up for bucket in buckets),
        "thumb_down": sum(bucket.thumb_down for bucket in buckets),
    }


def print_usage(interval: Interval, buckets: Sequence[UsageBucket], *, with_average: bool) -> None:
    """Print usage as a table and as plots; `with_average` adds the mean duration."""
    totals = _totals(buckets)
    columns: list[Column[Sequence[str]]] = [Column(interval, itemgetter(0))]
    for at, name in enumerate(
        ("conversations", "users", "rounds", "tokens", "up", "down"), start=1
    ):
        columns.append(
            Column(name, itemgetter(at), right=True, rank=int(name in {"users", "up", "down"}))
        )
    rows = [
        (
            f"{bucket.dt:{_FORMATS[interval]}}",
            *_cells(bucket.conversations, bucket.users or 0, bucket.rounds, bucket.tokens),
            *_cells(bucket.thumb_up, bucket.thumb_down),
        )
        for bucket in buckets
    ]
    total = _cells(*(totals[name] for name in ("rounds", "tokens", "thumb_up", "thumb_down")))
    console().print(
        table_in_blocks(columns, [*rows, ("total", f"{totals['conversations']:,}", "", *total)])
    )
    if not any(totals.values()):
        say("no conversations in this range")
        return
    console().print(side_by_side(_plots(interval, buckets)))
    if with_average:
        average = totals["duration"] / totals["conversations"]
        conversations = counted(int(totals["conversations"]), "conversation")
        say(f"{conversations}, {average:,.1f} s each on average")


def _cells(*values: float) -> list[str]:
    return [f"{value:,}" for value in values]


def _plots(interval: Interval, buckets: Sequence[UsageBucket]) -> list[Text]:
    """Return a plot of each series with a value above 0."""
    labels = [f"{bucket.dt:{_PLOT_FORMATS[interval]}}" for bucket in buckets]
    series = [
        (title, [value_of(bucket) for bucket in buckets], style)
        for title, value_of, style in _SERIES
    ]
    return [
        bar_plot(f"{title} by {interval}", labels, values, style=style)
        for title, values, style in series
        if any(values)
    ]
