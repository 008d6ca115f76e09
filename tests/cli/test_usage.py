"""The commands for usage by group, and for budgets."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from rich.cells import cell_len

import asyncsvc
from asyncsvc import Message, Turn, Usage, UsageBucket
from asyncsvc.cli import charts
from tests.cli.test_cli import HOSTILE, Run, document, environment, run
from tests.support.command_line import failed
from tests.support.terminal import in_terminal

__all__ = ["run"]

TODAY = datetime.now(UTC).date()
MODELS = {"openai/gpt-5": "0.25", "openai/gpt-5-mini": "0.00000035", HOSTILE: "0.1"}


@pytest.fixture
async def metered(svc: asyncsvc.AsyncSvc) -> asyncsvc.AsyncSvc:
    """The library, with usage of 3 models, and usage without a model and a cost, of tenant `t`."""
    usages = [
        Usage(input_tokens=1_000 * (place + 1), output_tokens=100, cost=Decimal(cost), model=model)
        for place, (model, cost) in enumerate(MODELS.items())
    ]
    for place, usage in enumerate([*usages, Usage(input_tokens=5, output_tokens=5)]):
        await svc.conversations.append_message(
            f"c{place}",
            Turn(messages=[Message(role="user", content="hello")], usage=usage),
            tenant_id="t",
            create={"dialog_id": "d", "user_id": "" if usage.model is None else f"u{place}"},
        )
    return svc


# --- stats


def test_groups_are_rows_and_add_up_to_the_total(metered, run: Run):
    whole = document(run("stats", "--tenant=t", "--json"))
    grouped = document(run("stats", "--tenant=t", "--group-by=model", "--json"))
    assert grouped["total"] == whole["total"]
    assert whole["total"]["cost"] == "0.350000350"
    assert (whole["total"]["unpriced"], whole["total"]["requests"]) == (1, 4)
    by_model = {
        bucket["group"]: bucket["cost"] for bucket in grouped["buckets"] if bucket["tokens"]
    }
    assert by_model["openai/gpt-5-mini"] == "0.000000350"
    assert by_model[None] == "0.000000000"

    table = run("stats", "--tenant=t", "--group-by=model", COLUMNS="200").stdout
    rows = [line.split() for line in table.splitlines() if line.startswith(f" {TODAY}")]
    lines = {row[1]: row for row in rows}
    assert "0.00000035" in lines["openai/gpt-5-mini"]
    assert "0.25" in lines["openai/gpt-5"]
    assert "(none)" in lines
    assert "unpriced" in table
    assert "reasoning" not in table  # no value
    assert "\x1b" not in table
    assert len(lines) == 4  # no rows for empty buckets


def test_a_total_without_costs_is_written_as_a_decimal(metered, run: Run):
    total = document(run("stats", "--tenant=t", "--model=other", "--json"))["total"]
    assert (total["cost"], total["tokens"]) == ("0.000000000", 0)


@pytest.mark.parametrize("group", ["model", "token", "user", "dialog", "source"])
def test_each_dimension_is_a_group(metered, run: Run, group):
    table = run("stats", "--tenant=t", "--group-by", group, "--interval=total")
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.split()[:2] == ["from", group]


def test_the_others_are_one_group_and_filters_combine(metered, run: Run):
    command = ("stats", "--tenant=t", "--group-by=model", "--interval=total")
    top = document(run(*command, "--top=1", "--json"))["buckets"]
    assert [(each["group"], each["is_other"]) for each in top] == [
        ("openai/gpt-5", False), (None, True),
    ]  # fmt: skip
    assert "(other)" in run(*command, "--top=1").stdout
    without_groups = failed(run("stats", "--tenant=t", "--top=1"), 2)
    assert "--top: needs --group-by" in without_groups
    filtered = document(run(*command, "--user=u1", "--json"))["buckets"]
    assert {each["group"]: each["tokens"] for each in filtered} == {
        "openai/gpt-5-mini": 2_100, None: 0,
    }  # fmt: skip
    (total,) = document(
        run("stats", "--tenant=t", "--model=openai/gpt-5", "--interval=total", "--json")
    )["buckets"]
    assert (total["cost"], total["users"]) == ("0.250000000", 1)


def test_csv_has_all_columns_and_plain_numbers(metered, run: Run):
    finished = run("stats", "--tenant=t", "--group-by=model", "--interval=total", "--csv")
    rows = list(csv.DictReader(io.StringIO(finished.stdout)))
    assert list(rows[0]) == list(UsageBucket.model_fields)
    assert {row["group"]: row["cost"] for row in rows} == {
        "openai/gpt-5": "0.250000000",
        HOSTILE: "0.100000000",
        "openai/gpt-5-mini": "0.000000350",
        "": "0.000000000",
    }
    assert "--csv: cannot be combined" in failed(run("stats", "--tenant=t", "--csv", "--json"), 2)


@pytest.mark.parametrize("columns", [50, 80, 140])
async def test_groups_fit_a_terminal(metered, dsn, columns):
    command = ["stats", "--tenant", "t", "--group-by", "user"]
    shown = await asyncio.to_thread(in_terminal, command, environment(ASYNCSVC_DSN=dsn), columns)
    assert shown.code == 0
    assert max(map(cell_len, shown.lines)) <= columns
    assert "0.00000035" in shown.screen
    csv_command = ["stats", "--tenant", "t", "--group-by", "model", "--csv"]
    shown = await asyncio.to_thread(
        in_terminal, csv_command, environment(ASYNCSVC_DSN=dsn), columns
    )
    assert "\x1b]0;" not in shown.written


def test_a_chart_of_groups_is_written_and_reproducible(metered, run: Run, tmp_path):
    svg = tmp_path / "a.svg"
    command = ("stats", "--tenant=t", "--group-by=model", "--plot", svg)
    assert f"The chart is in {svg}" in run(*command).stdout
    first = svg.read_bytes()
    run(*command)
    assert svg.read_bytes() == first
    line = failed(run(*command, "--interval=total"), 2)
    assert "--plot: needs an interval shorter than total" in line


def bucket(day: int, group: str | None, cost: str, **more: object) -> UsageBucket:
    values = {"conversations": 0, "users": 0, "rounds": 1, "tokens": 10, "duration": 0.0}
    return UsageBucket(
        dt=datetime(2026, 11, day, tzinfo=UTC), group=group, cost=Decimal(cost), round=0.0,
        thumb_up=0, thumb_down=0, **values | more,
    )  # fmt: skip


def test_bars_of_groups_are_stacked_in_the_order_of_their_rank():
    names = ["_a", "b", None, *(f"group {n}" * 20 for n in range(7))]
    buckets = [bucket(day, name, str(day)) for day in (1, 2, 3) for name in names] + [
        bucket(day, None, "0.5", is_other=True, users=None) for day in (1, 2, 3)
    ]
    figure = charts.usage_figure("title", buckets, interval="day", local=UTC, is_grouped=True)
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Cost", "Tokens", "Rounds"]
    of_day_2 = figure.axes[0].patches[1::3]
    assert [bar.get_y() + bar.get_height() for bar in of_day_2] == [2, 4, 6, 8, 10, 12, 14, 20.5]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:3] == ["_a", "b", "none"]
    assert labels[-1] == "other"
    assert max(map(len, labels)) == 40
    small = charts.usage_figure(
        "title", [bucket(1, "a", "0.000002")], interval="day", local=UTC, is_grouped=True
    )
    small.canvas.draw()
    ticks = [label.get_text() for label in small.axes[0].get_yticklabels()]
    assert len(set(ticks)) == len(ticks) > 1


# --- budgets


def test_a_budget_is_set_shown_raised_and_deleted(metered, run: Run):
    created = run("budgets", "set", "--tenant=t", "--scope=tenant", "--limit=0.5", "--actor=ann")
    assert created.stdout.endswith(": the tenant: 0.50 cost a month\n")
    arguments = ("--scope=user", "--metric=uncached_tokens", "--limit=1500", "--window=day")
    user = document(run("budgets", "set", "--tenant=t", *arguments, "--json"))
    assert (user["limit"], user["subject"], user["tz"]) == (1500, None, "UTC")
    total = ("--scope=user", "--subject=u1", "--limit=1", "--window=total", "--since=2026-01-01")
    since = document(run("budgets", "set", "--tenant=t", *total, "--json"))["since"]
    assert since.startswith("2026-01-01T00:00:00")

    page = document(run("budgets", "list", "--tenant=t", "--json"))
    (tenant, *_) = page["items"]
    assert [(each["scope"], each["limit"]) for each in page["items"]] == [
        ("tenant", "0.5"), ("user", 1500), ("user", "1"),
    ]  # fmt: skip
    table = run("budgets", "list", "--tenant=t", COLUMNS="120").stdout
    for part in ("each user", "user u1", "uncached tokens a day", "cost in total", "1,500"):
        assert part in table
    one = document(run("budgets", "list", "--tenant=t", "--subject=u1", "--json"))["items"]
    assert [each["subject"] for each in one] == ["u1"]

    good = run("budgets", "status", "--tenant=t", "--user=u0", COLUMNS="120")
    assert good.returncode == 0
    assert "0.35000035" in good.stdout
    assert " 70 " in good.stdout
    spent = run("budgets", "status", "--tenant=t", "--user=u1", "--json")
    assert spent.returncode == 3
    first, *_ = json.loads(spent.stdout)
    assert (first["scope"], first["used"], first["limit"]) == ("user", 2100, 1500)
    assert "no budget applies" in run("budgets", "status", "--tenant=other").stdout

    raised = run("budgets", "raise-limit", tenant["id"], "--tenant=t", "--by=0.000000001")
    assert "0.500000001 cost a month" in raised.stdout
    whole = failed(run("budgets", "raise-limit", user["id"], "--tenant=t", "--by=0.5"), 2)
    assert "--by: must be whole" in whole
    assert run("budgets", "delete", tenant["id"], "--tenant=t").stdout == "deleted 1 budget\n"
    assert "no such budget" in failed(run("budgets", "delete", tenant["id"], "--tenant=t"))

    events = document(run("budgets", "audit", "--tenant=t", "--json"))["items"]
    assert [event["action"] for event in events][:2] == ["delete_budget", "raise_limit"]
    of_one = run("budgets", "audit", "--tenant=t", "--budget", tenant["id"], COLUMNS="200")
    assert "set_budget" in of_one.stdout
    assert "ann" in of_one.stdout


def test_the_status_of_a_budget_is_in_its_zone(metered, run: Run):
    day = ("--scope=tenant", "--limit=5", "--window=day", "--actor=ann")
    for metric, tz in (("cost", "Pacific/Kiritimati"), ("rounds", "Asia/Kathmandu")):
        run("budgets", "set", "--tenant=t", f"--metric={metric}", f"--tz={tz}", *day)
    table = run("budgets", "status", "--tenant=t", COLUMNS="120").stdout
    lines = [line.split() for line in table.splitlines() if line.startswith(" the tenant")]
    assert {(line[-2], line[-1]) for line in lines} == {
        ("00:00", "Pacific/Kiritimati"), ("00:00", "Asia/Kathmandu"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("window", "period"), [("hour", "an hour"), ("day", "a day"), ("total", "in total")]
)
def test_the_period_of_a_budget_is_words(metered, run: Run, window, period):
    limit = ("--scope=tenant", "--metric=rounds", "--limit=2", f"--window={window}")
    assert run("budgets", "set", "--tenant=t", *limit).stdout.endswith(f": 2 rounds {period}\n")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--limit=much", "must be a number"),
        ("--limit=NaN", "must be 0 to"),
        ("--limit=-1", "must be 0 to"),
        ("--limit=1e999999", "must be 0 to"),
        ("--limit=0.0000000001", "must have at most 9 decimal places"),
        ("--subject=t", "must be None for the scope tenant"),
        ("--since=2026-01-01", "applies to the window total only"),
        ("--metric=money", "is not one of"),
    ],
)
def test_a_wrong_budget_is_one_line(run: Run, option, reason):
    finished = run("budgets", "set", "--tenant=t", "--scope=tenant", "--limit=5", option)
    line = failed(finished, 2)
    assert option.partition("=")[0] in line
    assert reason in line
