"""The commands in a terminal and in a pipe."""

import asyncio
import gzip
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from xml.etree import ElementTree as ET

import asyncpg
import pytest
from rich.cells import cell_len

import asyncsvc
from asyncsvc import DatabaseError, InvalidInput, MigrationError, UsageBucket, embedded
from asyncsvc.cli import charts, runner
from asyncsvc.cli.times import age_or_none
from asyncsvc.database import sql_files
from tests.support.command_line import PROGRAM, failed, run_command, run_fork
from tests.support.forks import SECONDS
from tests.support.terminal import in_terminal

if sys.platform == "win32":
    pytest.skip("there are no terminals of this kind on Windows", allow_module_level=True)

SECRET = re.compile(r"asv_\w{49}")
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202e]")
HOSTILE = "\x1b]0;pwned\x07\x1b[31mred [bold]x[/bold] 你好世界\u202e🙂"
NOW = datetime.now(UTC)


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**more: str) -> dict[str, str]:
    unset = {"ASYNCSVC_DSN", "ASYNCSVC_TENANT", "COLUMNS", "FORCE_COLOR", "NO_COLOR"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return kept | {"PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"} | more


@pytest.fixture
def run(dsn: str) -> Run:
    """Return a function that runs a command on this test's database, with files as its streams."""

    def call(*arguments: object, stdin: str = "", **more: str):
        return run_command(arguments, environment(ASYNCSVC_DSN=dsn) | more, stdin=stdin)

    return call


@pytest.fixture
async def filled(svc: asyncsvc.AsyncSvc) -> asyncsvc.AsyncSvc:
    """The library, with conversations of tenant `t`: one has terminal escapes, one 30 messages."""
    await svc.conversations.import_(records(), tenant_id="t")
    return svc


def records() -> list[dict[str, object]]:
    plain = [
        record(f"c{at}", [("user", "hello"), ("assistant", "hi")], age=at, name=f"talk {at}")
        for at in range(5)
    ]
    code = "def f(x):\n\treturn [x]\n\n\n  # ok \x1b[2J\n" + "wide 你好 " * 20
    hostile = record("evil", [("user", code)], age=5, name=HOSTILE, user_id=HOSTILE)
    hostile["messages"][0]["payload"] = {"tool": "\x1b[31m", "n": 1}
    long = record("long", [("user", f"number {n}") for n in range(1, 31)], age=6)
    return [*plain, hostile | {"metadata": {"topic": "你好\x1b[0m"}}, long]


def record(id: str, messages: list[tuple[str, str]], *, age: int, **more: object):
    return {
        "id": id,
        "dialog_id": "d",
        "user_id": "u" + id[-1],
        "tokens": 100 * (age + 1),
        "created_at": NOW - timedelta(days=age),
        "messages": [{"role": role, "content": content} for role, content in messages],
    } | more


def document(finished: "subprocess.CompletedProcess[str]", code: int = 0):
    assert (finished.returncode, finished.stderr) == (code, "")
    return json.loads(finished.stdout)


# --- list and show


@pytest.mark.parametrize("columns", [50, 80, 140, 200])
async def test_a_list_fits_a_terminal(filled, dsn, columns):
    command = ["list", "--tenant", "t", "--dialog", "d"]
    shown = await asyncio.to_thread(in_terminal, command, environment(ASYNCSVC_DSN=dsn), columns)

    assert shown.code == 0
    assert max(map(cell_len, shown.lines)) <= columns
    assert "7 of 7 conversations" in shown.screen
    assert "searching" in shown.written  # during the query
    assert "searching" not in shown.screen
    for id in ("c0", "c4", "evil", "long"):
        assert re.search(rf"^ ?{id}\b", shown.screen, re.MULTILINE)
    assert "]0;pwned" in shown.screen  # printed, not executed
    assert "\x1b]0;" not in shown.written
    assert "\x1b[31m" not in shown.written
    assert "created" in shown.screen
    rows = shown.screen.split("\n")
    dates = {cell_len(row[: at.start()]) for row in rows if (at := re.search(r"20\d\d-", row))}
    assert len(dates) == 1  # all dates are in one column, also after wide characters


@pytest.mark.parametrize("columns", [50, 80, 140])
async def test_a_list_shows_whole_uuids(svc, dsn, columns):
    id = "0199c1f2-7a53-7cc4-9b1e-5b3c2f8d1a77"
    await svc.conversations.create(
        tenant_id="t", dialog_id="d", id=id, name="n" * 200, user_id=id[::-1]
    )
    command = ["list", "--tenant", "t", "--dialog", "d"]
    shown = await asyncio.to_thread(in_terminal, command, environment(ASYNCSVC_DSN=dsn), columns)
    assert id in shown.screen
    assert (id[::-1] in shown.screen) == ("user" in shown.screen) == (columns >= 140)
    assert "nnnn" in shown.screen
    assert max(map(cell_len, shown.lines)) <= columns


@pytest.mark.parametrize("columns", ["20", "80", "1000"])
def test_ids_are_never_cut(svc, dsn, run, columns):
    id = "i" * 128

    async def fill() -> None:
        async with asyncsvc.connect(dsn) as other:
            conversations = other.conversations
            await conversations.create(tenant_id="t", dialog_id="d", id=id, user_id=id[1:])
            turn = {"messages": [{"role": "user", "content": "hello"}]}
            await conversations.append_message(id, turn, tenant_id="t")
            await other.tokens.create(tenant_id="t", name="n" * 90)

    asyncio.run(fill())
    (token,) = document(run("tokens", "list", "--tenant=t", "--json"))["items"]
    for whole, command in (
        (id, ["list"]), (id, ["search", "hello"]), (id, ["show", id]), (id[1:], ["show", id]),
        (token["id"], ["tokens", "list"]), (token["id"], ["tokens", "audit"]),
    ):  # fmt: skip
        assert whole in run(*command, "--tenant=t", COLUMNS=columns).stdout.split()


def test_a_list_has_filters_and_a_next_page(filled, run):
    first = run("list", "--tenant", "t", "--dialog", "d", "--limit", 4)
    assert (first.returncode, first.stderr) == (0, "")
    assert "4 of 7 conversations" in first.stdout
    cursor = re.search(r"the same command with --after (\S+)\n", first.stdout)
    second = document(
        run("list", "--tenant=t", "--dialog=d", "--limit=4", "--after", cursor[1], "--json")
    )
    assert [item["id"] for item in second["items"]] == ["c4", "evil", "long"]
    assert (second["total"], second["next"]) == (7, None)
    assert second["items"][1]["name"] == HOSTILE

    by_tokens = run("list", "--tenant=t", "--dialog=d", "--order=tokens", "--asc", "--limit=2")
    assert by_tokens.stdout.index("c0") < by_tokens.stdout.index("c1")
    assert "with --page 2" in by_tokens.stdout
    day = f"{NOW - timedelta(days=2):%Y-%m-%d}"
    one = document(
        run("list", "--tenant=t", "--dialog=d", "--from", day, "--to", day, "--user=u2", "--json")
    )
    assert [item["id"] for item in one["items"]] == ["c2"]
    page = document(run("list", "--tenant=t", "--dialog=d", "--keywords=NUMBER 7", "--json"))
    assert [item["id"] for item in page["items"]] == ["long"]
    none = run("list", "--tenant", "other", "--dialog", "d")
    assert (none.returncode, none.stdout) == (0, "no conversations\n")


@pytest.mark.parametrize("columns", [50, 80, 140])
async def test_a_conversation_is_printed_without_terminal_escapes(filled, dsn, columns):
    command = ["show", "evil", "--tenant", "t"]
    shown = await asyncio.to_thread(in_terminal, command, environment(ASYNCSVC_DSN=dsn), columns)

    assert shown.code == 0
    assert max(map(cell_len, shown.lines)) <= columns
    assert "    def f(x):\n        return [x]\n\n\n      # ok" in shown.screen
    assert re.search(r'metadata +\{"topic": "你好', shown.screen)
    assert 'payload: {"n": 1, "tool": ' in shown.screen
    assert shown.screen.count("你好") >= 20
    assert "\x1b[2J" not in shown.written
    assert "\x1b[31m" not in shown.written


def test_a_part_of_a_long_conversation_is_shown(filled, run):
    last = run("show", "long", "--tenant", "t")
    assert "#10 " not in last.stdout
    assert "number 11\n" in re.sub(r" +\n", "\n", last.stdout)
    assert "messages 11 to 30, the newest is 30" in last.stdout
    assert not ESCAPES.search(last.stdout)

    def seqs(*options: str) -> list[int]:
        shown = document(run("show", "long", "--tenant", "t", "--json", *options))
        return [message["seq"] for message in shown["messages"]]

    assert seqs("--last", "2") == [29, 30]
    assert seqs("--after-seq", "0") == list(range(1, 21))
    assert seqs("--after-seq", "27") == [28, 29, 30]
    assert "with --after-seq 20" in run("show", "long", "--tenant=t", "--after-seq=0").stdout
    assert "no such messages" in run("show", "long", "--tenant=t", "--after-seq=99").stdout


# --- stats


@pytest.mark.parametrize("columns", [50, 80, 140])
async def test_usage_fits_a_terminal(filled, dsn, columns):
    command = ["stats", "--tenant", "t", "--basis", "creation"]
    shown = await asyncio.to_thread(in_terminal, command, environment(ASYNCSVC_DSN=dsn), columns)

    assert shown.code == 0
    assert max(map(cell_len, shown.lines)) <= columns
    assert re.search(r"total +7 +36 +2,800", shown.screen) or columns >= 64
    for series in ("conversations", "users", "tokens", "rounds"):
        assert f"{series} by day" in shown.screen
    titles = [line for line in shown.lines if " by day" in line]
    assert len(titles) == {50: 4, 80: 2, 140: 2}[columns]
    assert "7 conversations" in shown.screen
    assert "counting" in shown.written  # during the query
    assert "counting" not in shown.screen


async def test_a_plot_of_more_buckets_than_columns_is_drawn(filled, dsn, run):
    command = ["stats", "--tenant=t", "--interval=hour", "--tz=Asia/Shanghai"]
    shown = await asyncio.to_thread(in_terminal, command, environment(ASYNCSVC_DSN=dsn), 60)
    assert max(map(cell_len, shown.lines)) <= 60
    assert re.search(r"conversations by hour, highest of \d\d", shown.screen)
    assert shown.screen.count("█") > 5

    usage = document(run("stats", "--tenant=t", "--interval=month", "--no-source", "--json"))
    assert (
        usage["total"]["conversations"]
        == sum(bucket["conversations"] for bucket in usage["buckets"])
        == 7
    )
    assert "users" not in usage["total"]
    none = run("stats", "--tenant=t", "--source=web")
    assert "no usage in this range" in none.stdout


def test_a_chart_has_all_panels_and_is_reproducible(filled, run, dsn, tmp_path):
    svg, png = tmp_path / "a.svg", tmp_path / "a.PNG"
    chart = ("stats", "--tenant", "t", "--plot", svg)
    assert f"The chart is in {svg}" in run(*chart).stdout
    first = svg.read_bytes()
    other = run_command([*chart, "--json"], environment(ASYNCSVC_DSN=dsn), program=PROGRAM)
    assert "buckets" in document(other)
    assert svg.read_bytes() == first  # from another interpreter
    root = ET.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [node for node in root.iter() if node.tag.endswith(("text", "image", "script"))]
    links = re.findall(rb'(?:href|src)="([^"]*)"', first)
    assert all(link.startswith(b"#") for link in links)
    assert b"<!DOCTYPE" not in first

    record = json.dumps({"id": "a", "messages": []})
    run("import", "-", "--tenant", "$1$ 你好", "--dialog=d", stdin=record)
    odd = run("stats", "--tenant", "$1$ 你好", "--interval", "hour", "--plot", png)
    assert (odd.returncode, odd.stderr) == (0, "")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.PNG", "a.svg"]


def test_a_chart_ends_with_its_range_and_has_no_empty_panel():
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 31)]
    no_thumbs = {"duration": 1.0, "round": 1.0, "thumb_up": 0, "thumb_down": 0}
    buckets = [
        UsageBucket(dt=day, conversations=2, users=1, tokens=3, rounds=2, **no_thumbs)
        for day in days
    ]
    figure = charts.usage_figure("November", buckets, interval="day", local=UTC)
    figure.canvas.draw()
    assert len(figure.axes) == 4
    axis = figure.axes[-1].xaxis
    labels = [label.get_text() for label in axis.get_ticklabels()]
    assert labels[0] == "Nov"
    assert "Dec" not in " ".join([*labels, axis.get_offset_text().get_text()])


def test_a_chart_that_cannot_be_written_is_one_line(run, tmp_path):
    assert "--plot: must end in .svg or .png" in failed(
        run("stats", "--tenant=t", "--plot=a.pdf", ASYNCSVC_DSN="postgresql://127.0.0.1:1/x"), 2
    )
    missing = tmp_path / "missing" / "a.svg"
    assert f"{missing}: No such file" in failed(run("stats", "--tenant=t", "--plot", missing))
    (tmp_path / "folder.svg").mkdir()
    line = failed(run("stats", "--tenant=t", "--plot", tmp_path / "folder.svg"))
    assert "folder.svg: Is a directory" in line


def test_a_chart_needs_an_extra(dsn):
    without = (
        "import importlib.util, sys\n"
        "from asyncsvc.cli import main\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'matplotlib' else find(name)\n"
        "sys.argv[1:] = ['stats', '--tenant', 't', '--plot', 'a.svg']\n"
        "main()\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", without],
        env=environment(ASYNCSVC_DSN=dsn), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "pip install 'asyncsvc[plot]'" in failed(finished)


# --- tokens


def test_the_life_of_a_token(run, svc):
    issued = run(
        "tokens", "create", "--tenant=t", "--name", HOSTILE, "--scope=chat", "--expires=90d"
    )
    assert issued.returncode == 0
    assert SECRET.fullmatch(issued.stdout.removesuffix("\n"))
    assert not SECRET.search(issued.stderr)
    secret = issued.stdout

    good = run("tokens", "verify", "--scope", "chat", stdin=secret)
    assert (good.returncode, good.stdout.count("\n"), good.stderr) == (0, 1, "")
    assert good.stdout.startswith("valid: ")
    lacking = run("tokens", "verify", "--scope", "admin", stdin=secret)
    assert (lacking.returncode, lacking.stdout) == (3, "the token lacks admin\n")
    (token,) = document(run("tokens", "list", "--tenant", "t", "--json"))["items"]
    assert (token["name"], token["last_used_at"]) == (HOSTILE, None)

    ended = run("tokens", "revoke", token["id"], "--tenant", "t")
    assert "was revoked at" in ended.stdout
    bad = run("tokens", "verify", stdin=secret)
    assert (bad.returncode, bad.stdout) == (3, "the token is not valid\n")
    reason = document(run("tokens", "verify", "--json", stdin="asv_x"), 3)
    assert reason == {"valid": False, "reason": "the token is not valid", "token": None}
    listed = run("tokens", "list", "--tenant", "t")
    assert "revoked" in listed.stdout
    for finished in (good, lacking, ended, bad, listed):
        assert secret.strip() not in finished.stdout + finished.stderr
        assert not ESCAPES.search(finished.stdout)


async def test_a_token_as_json_is_one_document(run, svc):
    issued = document(
        run("tokens", "create", "--tenant=t", "--name=n", "--kind=beta", "--expires=2999-12-31",
            "--tz=Europe/Berlin", "--json")
    )  # fmt: skip
    token = await svc.tokens.verify(issued["secret"], kind="beta")
    assert token.id == issued["token"]["id"]
    assert issued["token"]["expires_at"] == "2999-12-31T23:00:00Z"  # the end of that day


@pytest.mark.parametrize("columns", [50, 80, 140])
async def test_tokens_in_a_terminal(dsn, svc, columns):
    issued = await svc.tokens.create(tenant_id="t", name=HOSTILE * 5, scopes=["a", "b"])
    env, secret = environment(ASYNCSVC_DSN=dsn), issued.secret.get_secret_value()
    listing = ["tokens", "list", "--tenant", "t"]
    listed = await asyncio.to_thread(in_terminal, listing, env, columns)
    assert (listed.code, max(map(cell_len, listed.lines)) <= columns) == (0, True)
    assert issued.token.id in listed.screen

    verify = ["tokens", "verify"]
    verified = await asyncio.to_thread(in_terminal, verify, env, columns, secret=f"{secret}\n")
    assert verified.code == 0, verified.screen
    assert "The token's secret" in verified.screen
    assert secret not in verified.written


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("lost", ["full", "closed", "left"])
def test_a_secret_that_was_not_written_is_reported(run, dsn, lost, form):
    command = shlex.join([*PROGRAM, "tokens", "create", "--tenant=t", "--name=n", *form])
    redirected = {"full": ">/dev/full", "closed": ">&-", "left": "| true; exit ${PIPESTATUS[0]}"}
    finished = subprocess.run(
        ["bash", "-c", f"{command} {redirected[lost]}"],
        env=environment(ASYNCSVC_DSN=dsn), capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    (token,) = document(run("tokens", "list", "--tenant=t", "--json"))["items"]
    assert finished.returncode == (141 if lost == "left" else 1)
    assert f"The secret of token {token['id']} could not be written" in finished.stderr
    assert not SECRET.search(finished.stdout + finished.stderr)


def test_a_token_is_rotated_and_its_family_revoked(run):
    old = run("tokens", "create", "--tenant=t", "--name=n", "--expires=90d", "--actor=ann").stdout
    (token,) = document(run("tokens", "list", "--tenant=t", "--json"))["items"]
    rotated = run("tokens", "rotate", token["id"], "--tenant=t", "--overlap=24h", "--actor=bob")
    assert SECRET.fullmatch(rotated.stdout.removesuffix("\n"))
    assert not SECRET.search(rotated.stderr)
    assert "The old secret stays valid until 20" in rotated.stderr
    for secret in (old, rotated.stdout):
        assert run("tokens", "verify", stdin=secret).returncode == 0
    assert "it is retiring" in failed(run("tokens", "rotate", token["id"], "--tenant=t"))
    listed = document(run("tokens", "list", "--tenant=t", "--json"))["items"]
    assert [each["status"] for each in listed] == ["active", "retiring"]
    assert listed[0]["expires_at"] == token["expires_at"]

    ended = run("tokens", "revoke", token["id"], "--tenant=t", "--family", "--reason=leaked")
    assert ended.stdout == "revoked 2 tokens\n"
    assert run("tokens", "verify", stdin=rotated.stdout).returncode == 3
    events = document(run("tokens", "audit", "--tenant=t", "--json"))["items"]
    assert [event["action"] for event in events] == [
        "revoke", "revoke", "create", "rotate", "create",
    ]  # fmt: skip
    assert [event["actor"] for event in events[2:]] == ["bob", "bob", "ann"]
    shown = run("tokens", "audit", "--tenant=t", "--token", token["id"], COLUMNS="120")
    assert "reason=leaked" in shown.stdout
    assert (shown.stdout.count(token["id"]), SECRET.search(shown.stdout)) == (3, None)


def test_all_tokens_are_revoked_only_after_confirmation(run):
    for _ in range(3):
        run("tokens", "create", "--tenant=t", "--name=n")
    assert "--yes: is required" in failed(run("tokens", "revoke", "--all", "--tenant=t"), 2)
    done = document(run("tokens", "revoke", "--all", "--tenant=t", "--yes", "--json"))
    assert done == {"revoked": 3}


ROW = {
    "create_time": 1_700_000_000_000, "create_date": "2023-11-14 22:13:20", "update_time": 1,
    "update_date": None, "tenant_id": "a", "token": "ragflow-" + "IzNDAxNTI2YTYwZDEx" * 2,
    "dialog_id": "d", "source": "agent", "beta": "abcdefghijklmnopqrstuvwxyz012345",
}  # fmt: skip


def test_tokens_of_another_system_are_imported(run, svc, tmp_path):
    taken, short = ROW | {"tenant_id": "b", "beta": None}, {"tenant_id": "a", "token": "short"}
    more = ROW | {"token": "x" * 30, "refresh_token": "y" * 30}
    swapped = {"tenant_id": "a", "token": "x" * 30, ROW["token"]: "d"}
    rows = [ROW, taken, short, {"tenant_id": "a"}, ROW | {"token": 5, "beta": ""}, more, swapped]
    file = tmp_path / "tokens.jsonl.gz"
    text = "\n".join([*map(json.dumps, rows), "nonsense", ""])
    file.write_bytes(gzip.compress(text.encode()))
    done = run("tokens", "import", file, "--actor=move")
    assert done.returncode == 3
    assert done.stdout.split() == ["tokens", "2", "present", "0", "rejected", "7"]
    reasons = sorted(line for line in done.stderr.splitlines() if line.startswith("line"))
    assert [line.split(":")[0] for line in reasons] == [f"line {number}" for number in range(2, 9)]
    assert reasons[0] == "line 2: token: another token has this secret"
    assert reasons[1].startswith("line 3: token: is so short")
    assert reasons[4] == "line 6: refresh_token: Extra inputs are not permitted"
    assert reasons[5] == "line 7: ?: Extra inputs are not permitted"
    assert reasons[6] == "line 8: is not JSON: Expecting value, column 1"
    for secret in (ROW["token"], ROW["beta"]):
        assert secret[12:] not in done.stdout + done.stderr

    again = run("tokens", "import", file, "--json")
    assert again.returncode == 3
    assert json.loads(again.stdout) == {"tokens": 0, "present": 2, "rejected": 7}
    token = document(run("tokens", "verify", "--json", stdin=ROW["token"]))["token"]
    assert (token["tenant_id"], token["dialog_id"], token["source"]) == ("a", "d", "agent")
    assert (token["created_at"], token["created_by"]) == ("2023-11-14T22:13:20Z", "move")
    beta = document(run("tokens", "verify", "--kind=beta", "--json", stdin=ROW["beta"]))["token"]
    assert (token["metadata"], beta["metadata"]) == ({}, {"ragflow": {"row": token["id"]}})
    assert run("tokens", "verify", stdin=ROW["beta"]).returncode == 3
    from_pipe = run("tokens", "import", "-", "--tenant=c", stdin=json.dumps(ROW))
    assert "line 1: tenant_id: differs from --tenant" in from_pipe.stderr
    missing = failed(run("tokens", "import", tmp_path / "none"))
    assert missing == f"asyncsvc: {tmp_path}/none: No such file or directory"


async def test_an_import_replaces_a_beta_that_was_replaced_in_the_source(run, svc):
    newer = ROW | {"beta": "N" + ROW["beta"][1:]}
    for row, counts in ((ROW, (2, 0)), (newer, (1, 1)), (newer, (0, 2))):
        report = json.loads(run("tokens", "import", "-", "--json", stdin=json.dumps(row)).stdout)
        assert (report["tokens"], report["present"]) == counts
    assert run("tokens", "verify", "--kind=beta", stdin=newer["beta"]).returncode == 0
    assert run("tokens", "verify", "--kind=beta", stdin=ROW["beta"]).returncode == 3
    token = document(run("tokens", "verify", "--json", stdin=ROW["token"]))["token"]
    await svc.tokens.revoke(token["id"], tenant_id="a")
    late = run("tokens", "import", "-", stdin=json.dumps(ROW | {"beta": "L" * 32}))
    assert late.returncode == 3
    assert late.stderr.startswith("line 1: beta: its token is not valid here any more\n")
    assert run("tokens", "verify", "--kind=beta", stdin="L" * 32).returncode == 3


def test_a_command_uses_the_settings_of_the_application(run, tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"token_prefix": "corp", "token_peppers": {"3": "pepper" * 8}}))
    issued = run("--settings", file, "tokens", "create", "--tenant=t", "--name=n")
    assert issued.stdout.startswith("corp_")
    (token,) = document(run("tokens", "list", "--tenant=t", "--json"))["items"]
    assert token["pepper_version"] == 3
    assert run("tokens", "verify", stdin=issued.stdout).returncode == 3
    assert run("tokens", "verify", stdin=issued.stdout, ASYNCSVC_SETTINGS=str(file)).returncode == 0
    assert run("tokens", "verify", "--settings", file, stdin=issued.stdout).returncode == 0
    other = tmp_path / "other.json"
    other.write_text("{}")
    for options in (
        ("--settings", file, "tokens", "verify"),
        ("tokens", "verify", "--settings", file),
    ):
        finished = run(*options, stdin=issued.stdout, ASYNCSVC_SETTINGS=str(other))
        assert finished.returncode == 0
    for text, reason in (
        ('{"token_peppers": {"1": "tooshort"}}', "token_peppers.1: must be at least 32 random"),
        ('{"page": 1}', "page: Extra inputs"),
        ("[", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (None, "No such file"),
    ):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        wrong = run("tokens", "list", "--tenant=t", ASYNCSVC_SETTINGS=str(file), COLUMNS="300")
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert reason in wrong.stderr
        assert "tooshort" not in wrong.stderr


def test_a_secret_is_not_an_argument(run):
    finished = run("tokens", "verify", "asv_secret")
    assert finished.returncode == 2
    assert "unexpected extra argument" in finished.stderr


@pytest.mark.parametrize("columns", [80, 140])
async def test_the_life_of_a_token_in_a_terminal(dsn, svc, tmp_path, columns):
    old = await svc.tokens.create(tenant_id="t", name="n", actor=HOSTILE)
    file = tmp_path / "tokens"
    file.write_text(json.dumps({"token": "x" * 40}) + "\n{}\n")
    env = environment(ASYNCSVC_DSN=dsn, ASYNCSVC_TENANT="t", ASYNCSVC_ACTOR=HOSTILE)

    async def screen(*command: str, code: int = 0, answer: str = "") -> str:
        whole = ["tokens", *command]
        shown = await asyncio.to_thread(in_terminal, whole, env, columns, answer=answer)
        assert (shown.code, max(map(cell_len, shown.lines)) <= columns) == (code, True)
        return " ".join(shown.screen.split())

    created = await screen("create", "--name", HOSTILE, "--expires", "90d")
    assert SECRET.search(created)
    assert "Its secret cannot be read again." in created
    rotated = await screen("rotate", old.token.id, "--overlap", "24h")
    assert SECRET.search(rotated)
    assert "The old secret stays valid until 20" in rotated
    imported = await screen("import", str(file), code=3)
    assert "line 2: token: is missing" in imported
    assert "tokens 1 present 0 rejected 1" in imported
    assert "was revoked at" in await screen("revoke", old.token.id, "--reason", HOSTILE)
    question = await screen("revoke", "--all", answer="n\n")
    assert "Revoke all tokens of t? [y/N]: n" in question
    assert "revoked 3 tokens" in await screen("revoke", "--all", answer="y\n")
    audit = await screen("audit")
    assert audit.count(" revoke ") == 4
    assert not SECRET.search(audit)


@pytest.mark.parametrize("columns", [80, 140])
async def test_schema_and_server_in_a_terminal(empty_dsn, columns):
    env = environment(ASYNCSVC_DSN=empty_dsn)
    for command, code, seen in (
        ("migrate --check", 3, "0001 initial pending"),
        ("status", 3, "The schema lacks 1 migration."),
        ("doctor", 3, "pending: 0001_initial"),
        ("migrate", 0, "0001 initial applied"),
        ("status", 0, "The schema is up to date."),
        ("doctor", None, "migrations all are applied"),
        (
            "maintain",
            0,
            (
                "0 idempotency keys deleted, 0 ledger rows rolled up, persons removed from 0"
                " months, 0 messages and 0 titles indexed."
            ),
        ),
        ("sql", 0, "conversation/get_list"),
        ("sql message/delete --explain", 0, "message_pkey"),
    ):
        shown = await asyncio.to_thread(in_terminal, command.split(), env, columns)
        assert code in {None, shown.code}, shown.screen
        assert seen in " ".join(shown.screen.split())
        if not command.startswith("sql "):  # the lines of a plan are not wrapped
            assert max(map(cell_len, shown.lines)) <= columns


async def test_maintenance_reports_what_it_did(filled, run, tmp_path):
    turn = {"messages": [{"role": "user", "content": "more"}]}
    for key in ("one", "two"):
        await filled.conversations.append_message("c0", turn, tenant_id="t", idempotency_key=key)
    first = run("maintain").stdout
    assert first.startswith("0 idempotency keys deleted, ")
    assert " 0 messages" not in first
    assert " 0 ledger rows" not in first
    (tmp_path / "settings.json").write_text('{"key_lifetime": 0.000001}')
    finished = run("--settings", tmp_path / "settings.json", "maintain", "--json")
    done = {"append_keys": 2, "ledger_rows": 0, "user_months": 0, "messages": 0, "titles": 0}
    assert json.loads(finished.stdout) == done | {"failures": []}


def test_a_declared_zone_does_not_change_statistics(filled, run):
    arguments = ("stats", "--tenant=t", "--interval=month", "--tz=Asia/Kathmandu", "--json")
    before = document(run(*arguments))
    for options in ((), (), ("--recount",)):
        finished = run("declare-zone", "Asia/Kathmandu", "--tenant=t", *options)
        assert "are stored in Asia/Kathmandu" in finished.stdout
        assert document(run(*arguments)) == before
    assert json.loads(run("maintain", "--json").stdout)["ledger_rows"] == 0
    refused = run("declare-zone", "Berlin", "--tenant=t")
    assert (refused.returncode, "ZONE: must be UTC or an area" in refused.stderr) == (2, True)


# --- postgres


@pytest.fixture
def data() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        place = pathlib.Path(name)
        place.chmod(0o755)
        yield place / "data"
        assert not asyncio.run(embedded.stop(place / "data"))


def test_an_embedded_server_in_a_pipe(data):
    def call(*arguments: object, **more: str):
        return run_fork(arguments, environment() | more)

    def pasted(command: str) -> str:
        return subprocess.run(
            ["sh", "-c", command], env=environment(), capture_output=True, text=True,
            timeout=SECONDS, check=False,
        ).stdout  # fmt: skip

    assert call("postgres", "status", "--data", data).returncode == 3
    started = call("postgres", "start", "--data", data)
    assert started.returncode == 0, started.stderr
    dsn = started.stdout.strip()
    assert re.fullmatch(r"postgresql://postgres:[\w-]+@127\.0\.0\.1:\d+/postgres", dsn)
    assert dsn not in started.stderr
    again = document(call("postgres", "start", "--data", data, "--json"))
    assert (again["dsn"], again["started"]) == (dsn, False)
    assert call("migrate", ASYNCSVC_DSN=dsn).returncode == 0

    status = document(call("postgres", "status", "--data", data, "--json"))
    assert (status["running"], status["port"]) == (True, int(dsn.split(":")[-1].split("/")[0]))
    shown = in_terminal(["postgres", "status", "--data", data], environment(), 50)
    assert (shown.code, max(map(cell_len, shown.lines)) <= 50) == (0, True)
    use, stop = re.findall(r"^.* postgres st.* --data .*$", started.stderr, re.MULTILINE)
    assert pasted(f"{use}; echo $ASYNCSVC_DSN") == f"{dsn}\n"
    assert pasted(stop).startswith("Stopped. The data remain in")
    assert document(call("postgres", "stop", "--data", data, "--json")) == {"stopped": False}
    assert "no such directory" in failed(call("postgres", "stop", "--data", data / "none"))


def test_only_a_server_in_its_own_directory_is_stopped(run, tmp_path):
    (tmp_path / "thesis.txt").touch()
    for directory in (tmp_path, tmp_path / "thesis.txt"):
        finished = run("postgres", "stop", "--data", directory)
        line = failed(finished)
        assert line == f"asyncsvc: {directory} is not the directory of an embedded server"
        assert "rm " not in finished.stdout


def test_an_embedded_server_in_a_terminal(data):
    for command, code, seen in (
        ("start", 0, "runs on port"),
        ("start", 0, "was running already"),
        ("status", 0, "version"),
        ("stop", 0, "Stopped. The data remain in"),
        ("stop", 0, "No server was running."),
        ("status", 3, "No server runs in this directory."),
    ):
        shown = in_terminal(["postgres", command, "--data", data], environment(), 100)
        assert (shown.code, seen in shown.screen) == (code, True), shown.screen


# --- sql


def test_every_statement_is_listed_and_can_be_read(run):
    listed = run("sql")
    for name in sql_files.names():
        assert name in listed.stdout
    assert {each["name"] for each in document(run("sql", "--json"))} == set(sql_files.names())
    present = [f"--with={name}" for name in ("after_seq", "last", "limit")]
    shown = run("sql", "message/get_list", *present, COLUMNS="50")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Read the first or the last :limit messages" in shown.stdout
    assert "AND m.seq > $3\n         ORDER BY m.seq DESC\n         LIMIT $4" in shown.stdout
    assert "--?" not in shown.stdout
    assert "$3 is after_seq" in shown.stdout
    statement = document(run("sql", "conversation/get_list", "--json"))
    assert "ORDER BY f.created_at DESC" in statement["text"]
    assert statement["text"].count("ORDER BY f.") == 1


async def test_a_plan_is_explained_and_nothing_is_executed(filled, run):
    plan = run(
        "sql", "conversation/delete", "--explain",
        "--set", "tenant_id=t", "--set", 'ids={c0,"\u001b[31m"}',
    )  # fmt: skip
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "Delete on conversation" in plan.stdout
    assert "sample" not in plan.stdout
    assert not ESCAPES.search(plan.stdout)
    listed = run("sql", "conversation/get_list", "--explain", "--with", "user_id")
    assert "cost=" in listed.stdout
    assert re.search(r"user_id +1 +sample", listed.stdout)
    explained = document(run("sql", "message/delete", "--explain", "--set=tenant_id=t", "--json"))
    assert explained["values"] == {"tenant_id": "t", "id": "1"}
    assert (await filled.conversations.get_list(dialog_id="d", tenant_id="t")).total == 7
    assert len(await filled.conversations.messages("c0", tenant_id="t")) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["message/getlist"], "NAME: there is no such statement: did you mean message/get_list"),
        (["get_names"], "did you mean conversation/get_names?"),
        (["nothing of the kind"], "there is no such statement"),
        (["message/get_list", "--with", "afterseq"], "--with: the statement has no afterseq"),
        (["message/get_list", "--with", "afterseq"], "did you mean after_seq"),
        (["message/get_list", "--with=first", "--with=last"], "one order at most"),
        (["message/get_list", "--set=limit=x", "--explain"], "invalid input syntax for type big"),
        (["message/get_list", "--set=first=1", "--explain"], "--set: the statement has no first"),
        (["conversation/get_by_ids", "--set=ids=a", "--explain"], "malformed array literal"),
        (["api_token/verify", "--set=token_hash=\\xzz", "--explain"], "invalid hexadecimal digit"),
        (["conversation/get_list", "--set=created_from=noon", "--explain"], "type timestamp"),
        (["migration/create_schema", "--explain"], "PostgreSQL has no plan for DO and DDL"),
        (["migration/enable_row_security", "--explain"], "no plan for DO and DDL"),
        (["--explain"], "NAME: is required"),
        (["message/delete", "--set", "tenant_id"], "--set: must be NAME=VALUE"),
    ],
)
def test_a_statement_that_cannot_be_explained_is_one_line(run, arguments, reason):
    assert reason in failed(run("sql", *arguments), 2)


async def test_every_variant_has_a_plan(svc):
    without_plan = ("migration/", "testing/empty", "usage/vacuum")
    of_citus = {
        "migration/get_shards",
        "migration/get_sizes",
        "server/cluster",
        "server/workers",
    }
    for name in sql_files.names():
        statement = sql_files.load(name)
        everything = (statement.flags | statement.optional) - statement.orders
        for order in [{order} for order in statement.orders] or [set()]:
            for present in (order, everything | order):
                try:
                    plan = await svc.explain(name, present=present)
                except InvalidInput as error:
                    assert name.startswith(without_plan), error  # noqa: PT017
                    assert "no plan" in str(error)  # noqa: PT017
                except (DatabaseError, MigrationError) as error:
                    assert name in of_citus, error  # noqa: PT017
                else:
                    assert "cost=" in plan.lines[0]


async def test_a_program_can_explain_a_statement(svc, empty_dsn):
    values = {"tenant_id": "t", "id": "i", "seq": "3", "thumb": None}
    plan = await svc.explain("message/set_feedback", values=values)
    assert plan.values == values
    for wrong in ({"thumb": "70000"}, {"tenant_id": "\x00"}):
        with pytest.raises(InvalidInput) as caught:
            await svc.explain("message/set_feedback", values=values | wrong)
        assert caught.value.field == "values"
    async with asyncsvc.connect(empty_dsn) as bare:
        with pytest.raises(MigrationError):
            await bare.explain("message/delete")


def test_a_statement_can_be_read_without_a_database():
    assert asyncsvc.sql_statement_names() == list(sql_files.names())
    statement = asyncsvc.sql_statement("message/get_list", {"after_seq", "last"})
    assert statement.parameters[2] == "after_seq"
    assert "m.seq > $3" in statement.text


def test_the_shell_completes_names():
    script = str(pathlib.Path(sys.executable).with_name("asyncsvc"))

    def call(*arguments: str, **more: str):
        return subprocess.run(
            [script, *arguments], env=environment() | more,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    assert "_ASYNCSVC_COMPLETE=complete_bash" in call("--show-completion", "bash").stdout
    completion = {"COMP_WORDS": "asyncsvc sql message/", "COMP_CWORD": "2"}
    completed = call(_ASYNCSVC_COMPLETE="complete_bash", **completion)
    assert completed.stdout.split() == [
        name for name in sql_files.names() if name.startswith("message/")
    ]


# --- all commands


def test_the_version_is_printed(run):
    assert run("--version").stdout == f"asyncsvc {metadata.version('asyncsvc')}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show", "nobody", "--tenant=t"], "no such conversation"),
        (["show", "c0", "--tenant=other"], "no such conversation"),
        (["tokens", "revoke", "x", "--tenant=t"], "no such token"),
    ],
)
def test_an_error_is_one_line(run, arguments, reason):
    assert reason in failed(run(*arguments))


LIST = ["list", "--tenant=t", "--dialog=d"]
CREATE = ["tokens", "create", "--tenant=t", "--name=n"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*LIST, "--tz=Mars/Olympus"], "--tz: is not a time zone"),
        ([*LIST, "--from=today"], "--from: must be ISO 8601"),
        ([*LIST, "--after=x"], "--after: is not a cursor"),
        ([*LIST, "--limit=1000", "--page=99999999"], "--page: "),
        (["stats", "--tenant=t", "--tz=CET"], "--tz: must be UTC or an area"),
        (["stats", "--tenant=t", "--to=x"], "--to: must be ISO 8601"),
        (["stats", "--tenant=t", "--from=0002-01-01", "--interval=hour"], "within 10000 buckets"),
        (["stats", "--tenant=t", "--source=x", "--no-source"], "--no-source: cannot be combined"),
        (["purge", "30x", "--tenant=t"], "AGE|DATE: must be an age"),
        (["purge", "30d", "--tenant=t", "--tz=Mars/Olympus"], "--tz: is not a time zone"),
        ([*CREATE, "--expires=soon"], "--expires: must be an age"),
        ([*CREATE, "--expires=2020-01-01"], "--expires: must be in the future"),
        ([*CREATE, "--expires=999999w"], "--expires: is too far in the future"),
        ([*CREATE, "--expires=1d", "--tz=Berlin"], "--tz: must be UTC or an area"),
        (["tokens", "rotate", "x", "--overlap=soon", "--tenant=t"], "--overlap: must be a num"),
        (["tokens", "rotate", "x", "--overlap=31d", "--tenant=t"], "--overlap: "),
        (["tokens", "revoke", "--tenant=t"], "ID: pass an ID"),
        (["tokens", "revoke", "x", "--all", "--tenant=t"], "ID: pass an ID"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_option(run, arguments, reason):
    assert reason in failed(run(*arguments), 2)


def test_a_command_without_the_schema_says_how_to_migrate(empty_dsn, run):
    for arguments in (["list", "--tenant=t"], ["tokens", "list", "--tenant=t"]):
        line = failed(run(*arguments, ASYNCSVC_DSN=empty_dsn))
        assert "run `asyncsvc migrate`" in line
        assert "svc.migrate" not in line


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        ("90s", 90), ("5m", 300), ("36h", 129_600), ("30d", 2_592_000), ("2w", 1_209_600),
        ("1 second", 1), ("90 days", 7_776_000), ("2hours", 7_200), ("1 week", 604_800),
        ("P30D", 2_592_000), ("PT12H", 43_200), ("P1DT12H", 129_600), ("P2W", 1_209_600),
        ("30", None), ("30x", None), ("-1d", None), ("1.5h", None), ("5 ss", None), ("P", None),
        ("", None), ("1d12h", None), ("9999999999d", None), ("999999999w", None),
    ],
)  # fmt: skip
def test_an_age_has_a_unit_or_is_iso_8601(age, seconds):
    assert age_or_none(age) == (None if seconds is None else timedelta(seconds=seconds))


def test_futures_of_lost_connections_are_not_logged(caplog):
    async def work():
        loop = asyncio.get_running_loop()
        for error in (asyncpg.ConnectionDoesNotExistError("lost"), ConnectionResetError()):
            loop.call_exception_handler({"message": "never retrieved", "exception": error})
        loop.call_exception_handler({"message": "a mistake", "exception": ValueError()})

    assert runner.run(work()) == 0
    assert [record.getMessage() for record in caplog.records] == ["a mistake"]
