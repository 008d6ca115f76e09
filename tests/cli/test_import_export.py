"""`asyncsvc import`, `export`, `purge` and `erase`, complete and interrupted."""

import asyncio
import gzip
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO

import asyncpg
import pytest

from asyncsvc import Conversation, embedded
from tests.cli.test_demo import AS_ORDINARY, conversation, environment, lines_of
from tests.support.citus import sum_of_nodes
from tests.support.command_line import PROGRAM, failed, run_command
from tests.support.forks import SECONDS
from tests.support.terminal import in_terminal

STOPPED = "stopped: the imported conversations are complete; run the same command to continue"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(dsn: str, tmp_path: pathlib.Path) -> Run:
    """Return a function that runs a command on the database of this test."""

    def call(*arguments: object, input: str = "", program=None, **more: str):
        env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn} | more
        return run_command(arguments, env, stdin=input, program=program)

    return call


async def exported(svc, tenant_id: str = "acme") -> list[Conversation]:
    return [item async for item in svc.conversations.export(tenant_id=tenant_id)]


def talks(count: int, messages: int = 2) -> bytes:
    contents = [f"message {number}" for number in range(messages)]
    return lines_of(*(conversation(f"{at:06}", *contents) for at in range(count)))


ACME = ("--tenant", "acme", "--dialog", "d")


@pytest.mark.parametrize("zipped", [False, True])
async def test_importing_a_file_twice_adds_nothing(run: Run, svc, tmp_path, zipped):
    file = tmp_path / "talks"
    more = {"user": "ann", "created_at": "2026-11-02T10:00:00", "tokens": 7, "topic": "t"}
    text = lines_of(conversation("a", "hi", "你好"), conversation("b", "x", dialog_id="e", **more))
    file.write_bytes(gzip.compress(text) if zipped else text)

    more = ("--user", "bob", "--source", "web", "--created-at", "2026-11-01T00:00", "--tz")
    finished = run("import", file, *ACME, *more, "Europe/Berlin")

    assert (finished.returncode, finished.stderr) == (0, "")
    assert "conversations  2" in finished.stdout
    a, b = await exported(svc)
    assert (a.dialog_id, a.user_id, a.source) == ("d", "bob", "web")
    assert a.created_at == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert (b.dialog_id, b.user_id, b.source, b.tokens) == ("e", "ann", "web", 7)
    assert (b.created_at, b.metadata) == (datetime(2026, 11, 2, 9, tzinfo=UTC), {"topic": "t"})
    again = json.loads(run("import", file, *ACME, "--json").stdout)
    assert (again["conversations"], again["messages"], again["present"]) == (0, 0, 2)
    assert await exported(svc) == [a, b]


async def test_an_import_reads_standard_input_and_the_tenants_of_the_lines(run: Run, svc):
    text = lines_of(
        conversation("a", "x", tenant_id="one"),
        conversation("b", "x", tenant_id="two"),
        conversation("c", "x"),
        conversation("d", "x", tenant_id="one"),
    ).decode()
    finished = run("import", "-", "--dialog", "d", input=text)
    assert finished.returncode == 3
    assert finished.stderr == "line 3: tenant_id: is missing, and there is no --tenant\n"
    assert [item.id for item in await exported(svc, "one")] == ["a", "d"]
    assert [item.id for item in await exported(svc, "two")] == ["b"]
    finished = run("import", "-", "--dialog", "d", "--tenant", "two", input=text)
    assert re.fullmatch(r"2 lines \(\d, \d\): tenant_id: differs from --tenant\n", finished.stderr)
    assert [item.id for item in await exported(svc, "two")] == ["b", "c"]


async def test_an_import_reads_usage_in_the_names_of_the_library_and_no_other(run: Run, svc):
    ours = {"input_tokens": 5, "output_tokens": 2, "cost": "0.0000005", "model": "m"}
    foreign = {"prompt_tokens": 5, "completion_tokens": 2}
    text = lines_of(
        conversation("a", "x", usage=ours),
        conversation("b", "x", usage=[ours, ours]),
        conversation("c", "x", usage=foreign),
        conversation("d", "x", usage=ours | {"cost": 0.5}),
        conversation("e", "x", usage=ours | {"cost": "much"}),
        conversation("f", "x", usage=ours, tokens=7),
    ).decode()
    finished = run("import", "-", *ACME, input=text)
    assert finished.returncode == 3
    assert finished.stderr == (
        "2 lines (4, 5): usage.0.cost: must be a Decimal\n"
        "line 6: usage: must not be passed together with tokens\n"
    )
    a, b, c = await exported(svc)
    assert (a.tokens, b.tokens, c.tokens) == (7, 14, 0)
    assert (a.metadata, c.metadata) == (None, {"usage": foreign})


def test_an_empty_default_is_rejected(run: Run, svc):
    text = lines_of(conversation("a", "hi")).decode()
    finished = run("import", "-", *ACME, "--source", "", input=text)
    assert failed(finished, 2).startswith("asyncsvc: --source: ")


def test_a_line_without_a_dialog_needs_the_option(run: Run, svc):
    text = lines_of(conversation("a", "hi"), conversation("b", "hi", dialog_id=""))
    finished = run("import", "-", "--tenant", "acme", input=text.decode())
    assert finished.returncode == 3
    assert finished.stderr == (
        "line 1: dialog_id: is missing, and there is no --dialog\n"
        "line 2: dialog_id: must be 1 to 128 characters\n"
    )


async def test_invalid_lines_are_reported_and_the_others_imported(run: Run, svc, tmp_path):
    bad = {
        2: (b"{nope", "is not JSON: "),
        4: (b"\xff\xfe", "is not UTF-8"),
        5: (lines_of({"id": "x"}), "messages: Field required"),
        6: (lines_of(conversation("x", 5)), "messages.0.content: "),
        7: (lines_of(conversation("", "x")), "id: must be 1 to 128 characters"),
        8: (lines_of(conversation("good1", "not the same")), "the tenant has a conversation of"),
        9: (lines_of(conversation("x", "a\x00")), "messages.0.content: must not contain a NUL"),
    }
    good = [lines_of(conversation(f"good{n}", "fine")) for n in (1, 2)]
    rows = [good[0], bad[2][0], b"\n", *(line for n, (line, _) in bad.items() if n > 2), good[1]]
    (tmp_path / "lines").write_bytes(b"\n".join(row.rstrip(b"\n") for row in rows))

    finished = run("import", tmp_path / "lines", *ACME, "--json")

    assert finished.returncode == 3
    reasons = dict(re.findall(r"^line (\d+): (.*)$", finished.stderr, re.MULTILINE))
    assert reasons.keys() == {str(number) for number in bad}
    for number, (_, reason) in bad.items():
        assert reasons[str(number)].startswith(reason)
    assert json.loads(finished.stdout)["rejected"] == len(bad)
    assert [item.id for item in await exported(svc)] == ["good1", "good2"]


def test_a_repeated_reason_is_one_line(run: Run, tmp_path):
    bad = [conversation(f"c{at}", "x" * at + "\x00") for at in range(3_000)]
    lines = [b"{nope\n", *map(lines_of, bad), lines_of(conversation("good", "x")), b"[]\n", b"5\n"]
    (tmp_path / "lines").write_bytes(b"".join(lines))
    finished = run("import", tmp_path / "lines", *ACME, "--json")
    assert (finished.returncode, json.loads(finished.stdout)["rejected"]) == (3, 3_003)
    first, second, third = finished.stderr.splitlines()
    assert first.startswith("line 1: is not JSON")
    assert second.startswith("3,000 lines (2, 3, 4, 5, 6, …): messages.0.content: must not contain")
    assert third == "2 lines (3003, 3004): is not a JSON object"


def chat(id: str, **more: object) -> dict[str, object]:
    """Return a conversation of a ChatGPT export: a question, edited once, and two answers."""

    def node(id: str, parent: str | None, role: str = "", *parts: object, **of: object):
        message = {
            "id": f"m-{id}", "author": {"role": role}, "create_time": 1_700_000_000.5 + len(id),
            "content": {"content_type": "text", "parts": list(parts)}, "metadata": {},
        }  # fmt: skip
        return {"id": id, "parent": parent, "message": (message | of) if role else None}

    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    nodes = [
        node("root", None),
        node("system", "root", "system", ""),
        node("q1", "system", "user", "first try"),
        node("a1", "q1", "assistant", "old answer"),
        node("q2", "system", "user", picture, "what is this?"),
        node("a2", "q2", "assistant", "a cat", metadata={"model_slug": "gpt-x"}),
    ]
    return {
        "conversation_id": id, "title": "Cat", "create_time": 1_700_000_000.25, "update_time": None,
        "current_node": "a2", "mapping": {each["id"]: each for each in nodes},
        "gizmo_id": "g", "is_archived": None,
    } | more  # fmt: skip


async def test_an_import_of_a_chatgpt_export_stores_the_current_branch(run: Run, svc, tmp_path):
    loop = {"x": {"parent": "y", "message": None}, "y": {"parent": "x", "message": None}}
    export = [chat("c1"), 5, chat("c2", mapping=loop, current_node="x"), chat("c3"), {"a": 1}]
    for name, text in {"plain": json.dumps(export), "pretty": json.dumps(export, indent=1)}.items():
        (tmp_path / name).write_text(text)
        finished = run("import", tmp_path / name, *ACME)
        assert finished.returncode == 3
        assert finished.stderr.splitlines() == [
            "conversation 2: is not a JSON object",
            "conversation 3: its nodes form a cycle",
            "conversation 5: is not a conversation: it has no mapping",
        ]
    c1, c3 = await exported(svc)
    assert (c1.id, c3.id, c1.name, c1.source) == ("c1", "c3", "Cat", "chatgpt")
    assert c1.metadata == {"gizmo_id": "g"}
    assert c1.created_at == datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
    question, answer = c1.messages
    assert (question.role, question.content) == ("user", "what is this?")
    assert question.payload["content"]["parts"][0]["asset_pointer"] == "file-service://x"
    assert (answer.role, answer.content) == ("assistant", "a cat")
    assert answer.payload == {"id": "m-a2", "model": "gpt-x"}
    assert answer.created_at == datetime.fromtimestamp(1_700_000_002.5, UTC)


async def test_of_an_array_that_ends_early_the_whole_conversations_are_stored(
    run: Run, svc, tmp_path
):
    (tmp_path / "cut.json").write_text(json.dumps([chat("c1"), chat("c2")])[:-500])
    finished = run("import", tmp_path / "cut.json", *ACME)
    assert finished.returncode == 3
    assert f"{tmp_path / 'cut.json'}: ends early" in finished.stderr
    assert [item.id for item in await exported(svc)] == ["c1"]


def test_an_unreadable_file_is_one_line(run: Run, tmp_path):
    (tmp_path / "plain.gz").write_text("{}\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(os.urandom(10_000))[:-100])
    for name, reason in {
        "missing": "No such file or directory",
        "plain.gz": "is not gzip",
        "cut.gz": "is damaged or truncated",
    }.items():
        finished = run("import", tmp_path / name, *ACME)
        assert reason in failed(finished)
        assert str(tmp_path / name) in finished.stderr
    assert "--dsn: is required" in failed(run("import", "-", *ACME, ASYNCSVC_DSN=""), 2)
    assert "--tz: is not a time zone" in failed(run("import", "-", *ACME, "--tz", "Mars/X"), 2)
    noon = failed(run("import", "-", *ACME, "--created-at", "noon"), 2)
    assert noon.startswith("asyncsvc: --created-at: must be ISO 8601")
    assert run("import", "-", *ACME).returncode == 0  # empty input is not an error


def test_a_file_without_permission_is_one_line(run: Run, tmp_path):
    program = [*AS_ORDINARY, *PROGRAM]
    (tmp_path / "closed").touch(mode=0)
    refused = run("import", tmp_path / "closed", *ACME, program=program)
    assert "Permission denied" in failed(refused)
    (tmp_path / "folder").mkdir(mode=0o500)
    refused = run("export", "--tenant", "t", "-o", tmp_path / "folder/x", program=program)
    assert "Permission denied" in failed(refused)


async def test_an_import_of_truncated_gzip_can_be_continued(run: Run, svc, tmp_path):
    whole = gzip.compress(talks(5_000))
    (tmp_path / "talks.gz").write_bytes(whole[: len(whole) * 2 // 3])
    finished = run("import", tmp_path / "talks.gz", *ACME)
    assert "is damaged or truncated" in failed(finished)
    assert "stopped: " in finished.stderr
    left = len(await exported(svc))
    (tmp_path / "talks.gz").write_bytes(whole)
    finished = run("import", tmp_path / "talks.gz", *ACME, "--json")
    assert json.loads(finished.stdout)["present"] == left
    assert {len(item.messages) for item in await exported(svc)} == {2}


# ---------------------------------------------------------------- export


async def filled(svc, count: int = 30) -> None:
    records = [
        {
            "id": f"{n:05}", "dialog_id": f"d{n % 2}", "user_id": f"u{n % 3}", "dsl": {"n": n},
            "metadata": {"name": "x", "messages": n}, "errors": "e", "duration": n / 7,
            "messages": [
                {"role": "user", "content": f"q\t{n}\\", "payload": {"role": "x"}, "thumb": 1},
                {"role": "assistant", "content": "你好 🦄", "reference": [1, None], "seq": 5},
            ],
            "created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n),
        }
        for n in range(count)
    ]  # fmt: skip
    await svc.conversations.import_(records, tenant_id="acme")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "-"])
async def test_an_export_round_trips_through_import(run: Run, svc, tmp_path, name):
    await filled(svc)
    file = tmp_path / name
    if name == "-":
        file.write_text(run("export", "--tenant", "acme").stdout)
    else:
        finished = run("export", "--tenant", "acme", "--output", file)
        assert (finished.stdout, finished.stderr) == ("", "exported 30 conversations\n")
        assert [path.name for path in tmp_path.iterdir()] == [name]
    assert file.read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert run("import", file, "--tenant", "copy").returncode == 0
    copied = [item.model_copy(update={"tenant_id": "acme"}) for item in await exported(svc, "copy")]
    assert copied == await exported(svc)


async def test_an_export_can_be_limited_to_a_dialog_or_a_user(run: Run, svc):
    await filled(svc)

    def ids(*options: str) -> list[str]:
        return [json.loads(line)["id"] for line in run("export", "--tenant", "acme", *options)
                .stdout.splitlines()]  # fmt: skip

    assert ids("--dialog", "d1") == [f"{n:05}" for n in range(1, 30, 2)]
    assert ids("--dialog", "d1", "--user", "u2") == ["00005", "00011", "00017", "00023", "00029"]
    assert ids("--user", "nobody") == []


async def test_an_export_that_cannot_be_written_leaves_no_file(run: Run, svc, dsn, tmp_path):
    await filled(svc)
    for place, reason in {
        tmp_path: "Is a directory",
        tmp_path / "missing/x": "No such file or directory",
    }.items():
        assert reason in failed(run("export", "--tenant", "acme", "-o", place))
    assert list(tmp_path.iterdir()) == []
    with pathlib.Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*PROGRAM, "export", "--tenant", "acme"],
            env=environment(tmp_path) | {"ASYNCSVC_DSN": dsn}, stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr == "asyncsvc: No space left on device\n"


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", ["out", "out.gz"])
async def test_an_export_to_a_full_disk_leaves_no_file(run: Run, svc, small_disk, name):
    noise = [os.urandom(500).hex() for _ in range(200)]
    fields = {"id": "a", "dialog_id": "d"}
    messages = [{"role": "user", "content": text} for text in noise]
    await svc.conversations.import_([fields | {"messages": messages}], tenant_id="acme")
    (small_disk / name).write_text("the old content")
    finished = run("export", "--tenant", "acme", "-o", small_disk / name)
    assert failed(finished) == f"asyncsvc: {small_disk / name}: No space left on device"
    assert [path.read_text() for path in small_disk.iterdir()] == ["the old content"]


async def test_a_closed_pipe_ends_an_export(run: Run, svc, dsn, tmp_path):
    await filled(svc, 2_000)
    with subprocess.Popen(
        [*PROGRAM, "export", "--tenant", "acme"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(tmp_path) | {"ASYNCSVC_DSN": dsn},
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


# ---------------------------------------------------------------- interrupted


@contextmanager
def running_command(
    dsn: str, tmp_path: pathlib.Path, *arguments: object, stdin: int = subprocess.DEVNULL
):
    """Start a command. With a pipe as its standard input, its streams are binary."""
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], env=environment(tmp_path) | {"ASYNCSVC_DSN": dsn},
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=stdin == subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


async def until(holds: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    while not await holds():
        assert process.poll() is None, process.communicate()
        await asyncio.sleep(0.02)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def count(connection: asyncpg.Connection) -> int:
    return await connection.fetchval("SELECT count(*) FROM asyncsvc.conversation")


COUNT = 6_000
"""Conversations of an interrupted command, which are several batches."""
MIDDLE = f"{COUNT // 2:06}"
WAITING = sum_of_nodes("""
    SELECT count(*)
      FROM pg_locks AS waiting
      JOIN pg_locks AS other USING (pid)
      JOIN pg_database AS d ON d.oid = other.database AND d.datname = current_database()
     WHERE NOT waiting.granted
""")
"""Whether a session of the database waits. In a transaction pg_stat_activity would be cached."""


@asynccontextmanager
async def held_import(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Let an import wait in one of its batches: a transaction has created the same conversation."""
    async with rolled_back(connection):
        await connection.execute(
            "INSERT INTO asyncsvc.conversation (tenant_id, id, dialog_id, created_at, updated_at)"
            " VALUES ('acme', $1, 'd', now(), now())",
            MIDDLE,
        )
        yield


@asynccontextmanager
async def held_purge(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Let a deletion wait in one of its batches: a transaction has locked a message."""
    async with rolled_back(connection):
        await connection.execute(
            "SELECT FROM asyncsvc.message WHERE tenant_id = 'acme' AND conversation_id = $1"
            " FOR UPDATE",
            MIDDLE,
        )
        yield


@asynccontextmanager
async def rolled_back(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_second_import_completes_an_interrupted_one(
    run: Run, svc, dsn, connection, tmp_path, number
):
    (tmp_path / "talks").write_bytes(talks(COUNT, 3))
    async with held_import(connection):
        with running_command(dsn, tmp_path, "import", tmp_path / "talks", *ACME) as process:
            await until(lambda: connection.fetchval(WAITING), process)
            process.send_signal(number)
            _, errors = process.communicate(timeout=SECONDS)
    if number == signal.SIGKILL:
        assert process.returncode == -number
        while await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle'"
        ):
            await asyncio.sleep(0.05)
    else:
        assert process.returncode == 128 + number
        assert errors == STOPPED + "\n"
    left = await count(connection)
    assert 0 < left < COUNT
    assert await incomplete(connection) == 0

    again = json.loads(run("import", tmp_path / "talks", *ACME, "--json").stdout)

    assert (again["present"], again["conversations"]) == (left, COUNT - left)
    assert await count(connection) == COUNT
    assert await incomplete(connection) == 0


async def incomplete(connection: asyncpg.Connection) -> int:
    """Return the number of conversations without exactly 3 messages."""
    return await connection.fetchval(
        "SELECT count(*) FROM asyncsvc.conversation AS c"
        " WHERE c.last_seq <> 3 OR 3 <> (SELECT count(*) FROM asyncsvc.message AS m"
        " WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.id)"
    )


async def test_an_interrupted_export_leaves_no_file_and_a_second_one_is_complete(
    run: Run, dsn, connection, tmp_path
):
    (tmp_path / "talks").write_bytes(talks(20_000))
    run("import", tmp_path / "talks", *ACME)
    folder = tmp_path / "folder"
    folder.mkdir()

    async def has_begun() -> bool:
        return any(path.stat().st_size for path in folder.iterdir())

    with running_command(
        dsn, tmp_path, "export", "--tenant", "acme", "-o", folder / "out"
    ) as process:
        await until(has_begun, process)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 130
    assert list(folder.iterdir()) == []

    assert run("export", "--tenant", "acme", "-o", folder / "out").returncode == 0
    ids = [json.loads(line)["id"] for line in (folder / "out").read_text().splitlines()]
    assert ids == [f"{at:06}" for at in range(20_000)]


async def test_a_second_purge_completes_an_interrupted_one(
    run: Run, svc, dsn, connection, tmp_path
):
    old = datetime.now(UTC) - timedelta(days=90)
    (tmp_path / "talks").write_bytes(talks(COUNT))
    run("import", tmp_path / "talks", *ACME, "--created-at", old.isoformat())
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="young")
    total = await count(connection)

    async with held_purge(connection):
        with running_command(dsn, tmp_path, "purge", "30d", "--tenant", "acme", "--yes") as process:
            await until(lambda: connection.fetchval(WAITING), process)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 130
    left = await count(connection)
    assert 1 < left < total

    counted = json.loads(run("purge", "30d", "--tenant", "acme", "--dry-run", "--json").stdout)
    assert (counted["conversations"], counted["messages"]) == (left - 1, 2 * (left - 1))
    finished = run("purge", "30d", "--tenant", "acme", "--yes", "--json")
    report = json.loads(finished.stdout)
    assert (report["conversations"], report["skipped"]) == (left - 1, 0)
    assert await connection.fetchval("SELECT count(*) FROM asyncsvc.message") == 0
    assert [item.id for item in await exported(svc)] == ["young"]


def unread(pipe: IO[bytes]) -> int:
    """Return the number of bytes in a pipe."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("command", [("import", "-", *ACME), ("tokens", "import", "-")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "sent",
    [b"\n", b'{"id": "a', gzip.compress(talks(9))[:40], talks(9)],
    ids=["an empty line", "half a line", "half of gzip", "lines"],
)
async def test_a_signal_ends_an_import_that_waits_for_a_pipe(
    dsn, connection, tmp_path, command, number, sent
):
    with running_command(dsn, tmp_path, *command, stdin=subprocess.PIPE) as process:
        process.stdin.write(sent)
        process.stdin.flush()
        while unread(process.stdin):
            assert process.poll() is None, process.communicate()
            await asyncio.sleep(0.02)
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, SECONDS) == 128 + number
        assert b"Traceback" not in process.stderr.read()
    assert await count(connection) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_an_export_into_an_unread_pipe(svc, dsn, tmp_path, number):
    await filled(svc, 2_000)
    with running_command(
        dsn, tmp_path, "export", "--tenant", "acme", stdin=subprocess.PIPE
    ) as process:
        held = 0
        while not held or held != unread(process.stdout):  # until the pipe takes no more
            assert process.poll() is None, process.communicate()
            held = unread(process.stdout)
            await asyncio.sleep(0.5)
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, SECONDS) == 128 + number
        assert process.stderr.read() == b""


async def test_no_transaction_waits_for_a_pipe(dsn, connection, tmp_path):
    async def all_are_in() -> bool:
        return await count(connection) == 10_000

    with running_command(dsn, tmp_path, "import", "-", *ACME, stdin=subprocess.PIPE) as process:
        process.stdin.write(talks(10_000))
        process.stdin.flush()
        await until(all_are_in, process)
        out, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, b"")
    assert b"conversations  10,000" in out


@pytest.mark.parametrize("closed", ["0<&-", "1>&-"])
def test_a_closed_standard_stream_is_one_line(run: Run, closed: str):
    program = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM]
    command = ("import", "-", *ACME) if closed.startswith("0") else ("export", "--tenant", "acme")
    assert "is closed" in failed(run(*command, program=program))


async def test_an_import_survives_a_stop_of_the_server(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "talks").write_bytes(talks(COUNT, 3))
    server = await embedded.start(tmp_path / "data")
    try:
        with running_command(server.dsn, tmp_path, "migrate") as process:
            process.communicate(timeout=SECONDS)
        connection = await asyncpg.connect(server.dsn)
        await connection.execute(
            "BEGIN; INSERT INTO asyncsvc.conversation (tenant_id, id, dialog_id, created_at,"
            f" updated_at) VALUES ('acme', '{MIDDLE}', 'd', now(), now())"
        )
        with running_command(server.dsn, tmp_path, "import", tmp_path / "talks", *ACME) as process:
            await until(lambda: connection.fetchval(WAITING), process)
            await embedded.stop(tmp_path / "data")
            _, errors = process.communicate(timeout=SECONDS)
        assert errors.count("\n") == 2, errors
        stopped, line = errors.splitlines()
        assert process.returncode == 1
        assert stopped == STOPPED
        assert line.startswith("asyncsvc: ")
        server = await embedded.start(tmp_path / "data")
        connection = await asyncpg.connect(server.dsn)
        left = await count(connection)
        assert left > 0
        assert await incomplete(connection) == 0
        with running_command(
            server.dsn, tmp_path, "import", tmp_path / "talks", *ACME, "--json"
        ) as process:
            out, _ = process.communicate(timeout=SECONDS)
        again = json.loads(out)
        assert (again["present"], again["conversations"]) == (left, COUNT - left)
        assert await incomplete(connection) == 0
        await connection.close()
    finally:
        await embedded.stop(tmp_path / "data")


# ---------------------------------------------------------------- purge and erase


async def test_purge_and_erase_report_the_deleted_rows(run: Run, svc):
    await filled(svc)
    finished = run(
        "purge", "2026-01-01T12:00", "--tenant", "acme", "--by", "created_at", "--dry-run"
    )
    assert "would delete  12 conversations, 24 messages" in finished.stdout
    assert len(await exported(svc)) == 30
    finished = run(
        "purge", "2026-01-01", "--tenant", "acme", "--by", "created_at", "--yes", "--dialog", "d1",
        "--tz", "America/New_York",
    )  # fmt: skip
    assert "older than  2026-01-01 05:00:00 UTC" in finished.stdout
    assert "deleted     2 conversations, 4 messages" in finished.stdout
    receipt = json.loads(run("erase-user", "u1", "--tenant", "acme", "--yes", "--json").stdout)
    assert (receipt["user_id"], receipt["conversations"], receipt["messages"]) == ("u1", 9, 18)
    assert "0 conversations" in run("erase-user", "u1", "--tenant", "acme", "--yes").stdout
    assert "u1" not in {item.user_id for item in await exported(svc)}


async def test_delete_tenant_prints_a_receipt(run: Run, svc):
    await filled(svc)
    await svc.tokens.create(tenant_id="acme", name="n")
    await svc.tokens.create(tenant_id="other", name="n")
    finished = run("delete-tenant", "acme", "--yes")
    assert (finished.returncode, finished.stderr) == (0, "")
    words = " ".join(finished.stdout.split())
    assert "deleted 30 conversations, 60 messages, " in words
    assert "1 token, 2 audit events, " in words
    assert "nothing left at 20" in words
    assert await exported(svc) == []
    assert (await svc.tokens.get_list(tenant_id="acme")).items == []
    receipt = json.loads(run("delete-tenant", "acme", "--yes", "--json").stdout)
    assert (receipt["tenant_id"], receipt["conversations"], receipt["tokens"]) == ("acme", 0, 0)
    assert len((await svc.tokens.get_list(tenant_id="other")).items) == 1


async def test_a_deletion_without_a_terminal_needs_the_option_yes(run: Run, svc):
    await filled(svc)
    acme = ("--tenant", "acme")
    for command in (
        ("purge", "2026-02-01", *acme), ("erase-user", "u1", *acme), ("delete-tenant", "acme"),
    ):  # fmt: skip
        assert "--yes: is required" in failed(run(*command), 2)
    assert len(await exported(svc)) == 30


def test_an_age_of_zero_is_rejected(run: Run):
    line = failed(run("purge", "0h", "--tenant", "acme", "--yes"), 2)
    assert line == "asyncsvc: AGE|DATE: must be greater than 0"


async def test_an_age_may_be_iso_8601(run: Run, svc):
    await filled(svc, 1)
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="young")
    report = json.loads(run("purge", "P1DT12H", "--tenant", "acme", "--yes", "--json").stdout)
    assert report["conversations"] == 1
    assert [item.id for item in await exported(svc)] == ["young"]


@pytest.mark.parametrize("age", ["30x", "PX", "yesterday", "", "2026-13-01"])
def test_an_invalid_age_is_rejected(run: Run, age: str):
    line = failed(run("purge", age, "--tenant", "acme", "--yes"), 2)
    assert line.startswith("asyncsvc: AGE|DATE: must be an age")


def test_a_slow_pipe_does_not_time_out(run, dsn, tmp_path):
    with subprocess.Popen(
        [*PROGRAM, "import", "-", *ACME], env=environment(tmp_path) | {"ASYNCSVC_DSN": dsn},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdin.write(talks(2))
        process.stdin.flush()
        time.sleep(1)
        process.stdin.write(lines_of(conversation("late", "x")))
        out, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, b"")
    assert b"conversations  3" in out


# ---------------------------------------------------------------- in a terminal


async def test_a_terminal_shows_a_bar_and_a_report(svc, dsn, tmp_path):
    bad = lines_of(conversation("", "\x1b[31mx"))
    (tmp_path / "talks").write_bytes(talks(9_000) + bad)
    env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn}

    command = ["import", tmp_path / "talks", *ACME]
    shown = await asyncio.to_thread(in_terminal, command, env, 200)  # the path is long
    assert shown.code == 3
    assert "importing" in shown.written
    assert "%" in shown.written
    assert "importing" not in shown.screen  # the progress bar is gone
    assert "line 9001: id: must be 1 to 128 characters" in shown.screen
    assert re.search(r"^messages +18,000, [\d,]+ per second$", shown.screen, re.MULTILINE)

    command = ["export", "--tenant", "acme", "-o", tmp_path / "out"]
    shown = await asyncio.to_thread(in_terminal, command, env, 60)
    assert (shown.code, shown.screen) == (0, "exported 9,000 conversations")
    assert "exporting acme" in shown.written


async def test_a_deletion_is_confirmed_in_a_terminal(svc, dsn, tmp_path):
    await filled(svc)
    env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn}

    async def ask(answer: str, *command: str):
        whole = [*command, "--tenant", "acme"]
        return await asyncio.to_thread(in_terminal, whole, env, 90, answer=answer)

    purge = ("purge", "2026-01-01T06:00", "--by", "created_at")
    for answer, left in (("n\n", 30), ("\n", 30), ("y\n", 24)):
        shown = await ask(answer, *purge)
        assert shown.code == 0
        assert "Delete 6 conversations with 12 messages, older than 2026-01-01 06:00 UTC?" in (
            " ".join(shown.screen.split())
        )
        assert len(await exported(svc)) == left
        assert ("nothing was changed" in shown.written) == (left == 30)
    assert "deleted     6 conversations, 12 messages" in shown.screen
    shown = await ask("n\n", "erase-user", "u1")
    assert "Delete all data of u1 in acme?" in shown.screen
    assert "u1" in {item.user_id for item in await exported(svc)}
    shown = await ask("y\n", "erase-user", "u1")
    assert "nothing left at" in shown.screen
    assert "u1" not in {item.user_id for item in await exported(svc)}
