"""`asyncsvc stats`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from rich.text import Text
from typer import Option

from asyncsvc import InvalidInput, UsageBucket
from asyncsvc.cli.charts import check_plot_path, write_usage_chart
from asyncsvc.cli.options import (
    AsJson,
    Dialog,
    Dsn,
    FromDate,
    Tenant,
    TimeZone,
    ToDate,
    User,
    or_any,
)
from asyncsvc.cli.output import counted, plain, print_csv, print_json
from asyncsvc.cli.plots import bar_plot
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import asynchronous, connected
from asyncsvc.cli.terminal import Column, console, say, side_by_side, table_in_blocks
from asyncsvc.validation.dates import first_instant

Interval: TypeAlias = Literal["hour", "day", "week", "month", "total"]
_Dimension: TypeAlias = Literal["model", "token_id", "user_id", "dialog_id", "source"]

_DAYS: Final = 30
_TOP: Final = 20
_DATE: Final = "%Y-%m-%d"
_FORMATS: Final = {"hour": "%m-%d %H:%M", "month": "%Y-%m"}
_PLOT_FORMATS: Final = {"hour": "%d, %H:%M", "day": "%m-%d", "week": "%m-%d", "month": "%Y-%m"}
_SERIES: Final[Sequence[tuple[str, Callable[[UsageBucket], int], str]]] = (
    ("conversations", lambda bucket: bucket.conversations, "cyan"),
    ("users", lambda bucket: bucket.users or 0, "green"),
    ("tokens", lambda bucket: bucket.tokens, "magenta"),
    ("rounds", lambda bucket: bucket.rounds, "blue"),
    ("thumbs up", lambda bucket: bucket.thumb_up, "bright_green"),
    ("thumbs down", lambda bucket: bucket.thumb_down, "red"),
)
_COUNTERS: Final[Sequence[tuple[str, str, int]]] = (
    ("conversations", "conversations", 2),
    ("users", "users", 3),
    ("rounds", "rounds", 1),
    ("requests", "requests", 7),
    ("input", "input_tokens", 6),
    ("cached", "cached_input_tokens", 6),
    ("written", "cache_write_tokens", 8),
    ("output", "output_tokens", 6),
    ("reasoning", "reasoning_tokens", 8),
    ("tokens", "tokens", 0),
    ("cost", "cost", 0),
    ("unpriced", "unpriced", 5),
    ("unmetered", "unmetered", 5),
    ("up", "thumb_up", 4),
    ("down", "thumb_down", 4),
)
"""The title of a column, the counter, and the rank of the column."""
_ALWAYS_SHOWN: Final = {"conversations", "users", "rounds", "tokens"}
_SUMS: Final = (*(name for _, name, _ in _COUNTERS if name != "users"), "duration")

Source = Annotated[str | None, Option(metavar="TEXT", help="Only this source.")]
NoSource = Annotated[bool, Option("--no-source", help="Only usage without a source.")]
BucketLength = Annotated[
    Interval,
    Option(help="The length of a bucket; a week begins on Monday. total: one bucket of the range."),
]
Basis = Annotated[
    Literal["activity", "creation"],
    Option(
        help="activity: count each change at its own time, in deleted conversations too. creation:"
        " count each existing conversation at its creation."
    ),
]
Token = Annotated[
    str | None, Option("--token", metavar="ID", help="Only this API token and its rotations.")
]
Model = Annotated[str | None, Option(metavar="TEXT", help="Only this model.")]
GroupBy = Annotated[
    Literal["model", "token", "user", "dialog", "source"] | None,
    Option(help="Count the usage of each one."),
]
Top = Annotated[
    int | None,
    Option(
        min=1,
        max=1_000,
        help="Groups with the highest cost; the others are one group. Needs --group-by."
        f" [default: {_TOP}]",
    ),
]
Plot = Annotated[
    Path | None, Option(readable=False, metavar="FILE", help="Also write a chart, as .svg or .png.")
]
AsCsv = Annotated[bool, Option("--csv", help="Print CSV instead of tables.")]


@asynchronous
async def stats(
    *,
    dsn: Dsn,
    tenant_id: Tenant,
    from_date: FromDate = None,
    to_date: ToDate = None,
    interval: BucketLength = "day",
    group_by: GroupBy = None,
    top: Top = None,
    dialog_id: Dialog = None,
    source: Source = None,
    no_source: NoSource = False,
    user_id: User = None,
    model: Model = None,
    token_id: Token = None,
    basis: Basis = "activity",
    tz: TimeZone = UTC,
    plot: Plot = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Show the usage of a tenant; by default of the last 30 days, by day."""
    _check_options(source, plot, interval, no_source=no_source, both=as_csv and as_json)
    if top is not None and group_by is None:
        raise InvalidInput("top", "needs --group-by")
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
                user_id=or_any(user_id),
                model=or_any(model),
                group_by=_dimension(group_by),
                top=_TOP if top is None else top,
                tz=str(tz),
            )
    if plot is not None:
        by = f"by {interval}" if group_by is None else f"by {interval} and {group_by}"
        title = f"Usage of {tenant_id} {by}, {first} to {last}"
        is_grouped = group_by is not None
        write_usage_chart(plot, title, buckets, interval=interval, local=tz, is_grouped=is_grouped)
    if as_json:
        print_json({"buckets": buckets, "total": _totals(buckets)})
    elif as_csv:
        print_csv(list(UsageBucket.model_fields), buckets)
    else:
        print_usage(interval, buckets, group_by=group_by, with_average=basis == "creation")
        if plot is not None:
            say(f"The chart is in {plot}.")


def _dimension(group_by: str | None) -> _Dimension | None:
    dimensions: dict[str | None, _Dimension] = {
        "model": "model", "token": "token_id", "user": "user_id", "dialog": "dialog_id",
        "source": "source",
    }  # fmt: skip
    return dimensions.get(group_by)


def _check_options(
    source: str | None, plot: Path | None, interval: Interval, *, no_source: bool, both: bool
) -> None:
    if source is not None and no_source:
        raise InvalidInput("no_source", "cannot be combined with --source")
    if both:
        raise InvalidInput("as_csv", "cannot be combined with --json")
    if plot is not None:
        check_plot_path(plot)
        if interval == "total":
            raise InvalidInput("plot", "needs an interval shorter than total")


def _range(from_date: str | None, to_date: str | None, local: tzinfo) -> tuple[str, str]:
    """Return the first and the last day or instant; by default, of the last 30 days."""
    last = to_date or f"{datetime.now(local):%Y-%m-%d}"
    if from_date is not None:
        return from_date, last
    last_day = first_instant("to_date", last, str(local)).astimezone(local).date()
    return f"{last_day - timedelta(days=_DAYS - 1)}", last


def _totals(buckets: Sequence[UsageBucket]) -> dict[str, Decimal | float]:
    """Return the sums of all buckets, without users: a user may occur in several buckets.

    Counters that are None in all buckets are missing.
    """
    values = {name: [getattr(bucket, name) for bucket in buckets] for name in _SUMS}
    return {
        name: sum(known)
        for name in _SUMS
        if (known := [value for value in values[name] if value is not None])
    }


def print_usage(
    interval: Interval,
    buckets: Sequence[UsageBucket],
    *,
    group_by: str | None = None,
    with_average: bool,
) -> None:
    """Print usage as a table, and without groups as plots; `with_average` adds the mean duration.

    A counter without a value has no column, and an empty bucket of a group has no row.
    """
    totals = _totals(buckets)
    if not any(totals.values()):
        say("no usage in this range")
        return
    counters = [
        each
        for each in _COUNTERS
        if each[1] in _ALWAYS_SHOWN or any(getattr(bucket, each[1]) for bucket in buckets)
    ]
    names = [name for _, name, _ in counters]
    titles = ["from" if interval == "total" else interval, *([group_by] if group_by else [])]
    columns = [Column(title, itemgetter(at)) for at, title in enumerate(titles)]
    columns += [
        Column(title, itemgetter(at), right=True, rank=rank)
        for at, (title, _, rank) in enumerate(counters, start=len(titles))
    ]
    rows = [
        (*_labels(interval, bucket)[: len(titles)], *(_cell(getattr(bucket, it)) for it in names))
        for bucket in buckets
        if group_by is None or any(getattr(bucket, name) for name in names)
    ]
    sums = ("total", "")[: len(titles)] + tuple(
        "" if name == "users" else _cell(totals[name]) for name in names
    )
    console().print(table_in_blocks(columns, [*rows, sums]))
    if group_by is None and interval != "total":
        console().print(side_by_side(_plots(interval, buckets)))
    if with_average:
        average = float(totals["duration"]) / float(totals["conversations"])
        conversations = counted(int(totals["conversations"]), "conversation")
        say(f"{conversations}, {average:,.1f} s each on average")


def _labels(interval: Interval, bucket: UsageBucket) -> tuple[str, str]:
    """Return the labels of a bucket: its time and its group."""
    group = "(other)" if bucket.is_other else bucket.group or "(none)"
    return f"{bucket.dt:{_FORMATS.get(interval, _DATE)}}", group


def _cell(value: Decimal | float | None) -> str:
    return "-" if value is None else plain(value)


def _plots(interval: Interval, buckets: Sequence[UsageBucket]) -> list[Text]:
    """Return a plot of each series with a value above 0."""
    labels = [f"{bucket.dt:{_PLOT_FORMATS.get(interval, _DATE)}}" for bucket in buckets]
    series = [
        (title, [value_of(bucket) for bucket in buckets], style)
        for title, value_of, style in _SERIES
    ]
    return [
        bar_plot(f"{title} by {interval}", labels, values, style=style)
        for title, values, style in series
        if any(values)
    ]
