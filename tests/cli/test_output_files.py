"""Output files of commands: replacement, mode, pipes, and text on a terminal."""

import asyncio
import json
import os
import pathlib
import stat
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

import pytest

from asyncsvc.cli.files import open_output, write_to
from asyncsvc.cli.runner import CommandError
from asyncsvc.cli.terminal import printable_json
from tests.cli.test_demo import environment
from tests.support.command_line import PROGRAM, SECONDS
from tests.support.terminal import in_terminal

EVIL = "\x1b]0;pwned\x07 \x7f \x9b31m \u202egnp.exe \u2066 \u2028 \U000e0041 a\u200db"
NO_JSON_ESCAPE = ("\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\U000e0041")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def run(
    dsn: str, home: pathlib.Path, *arguments: object, stdout: int | IO[bytes] = subprocess.PIPE
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command in a separate process."""
    return await asyncio.to_thread(
        subprocess.run,
        [*PROGRAM, *map(str, arguments)],
        env=environment(home) | {"ASYNCSVC_DSN": dsn},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=SECONDS,
    )


def write(path: pathlib.Path, data: bytes = b"new") -> None:
    with write_to(path) as file:
        file.write(data)


# ---------------------------------------------------------------- modes and links


def test_a_new_file_can_be_read_by_its_owner_only(tmp_path):
    write(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o600
    assert (tmp_path / "new").read_bytes() == b"new"


@pytest.mark.parametrize("old", [0o600, 0o640, 0o644, 0o666, 0o200, 0o755])
def test_a_replaced_file_keeps_its_mode(tmp_path, old):
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(old)
    write(file)
    assert mode(file) == old
    file.chmod(0o600)
    assert file.read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_replaced_file_keeps_its_owner(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    os.chown(file, 65534, 65534)
    write(file)
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


@pytest.mark.parametrize("is_there", [False, True])
def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path, is_there):
    folder = tmp_path / "folder"
    folder.mkdir()
    if is_there:
        (folder / "target").write_text("old")
        (folder / "target").chmod(0o640)
    (tmp_path / "link").symlink_to("folder/target")
    (tmp_path / "first").symlink_to("link")
    write(tmp_path / "first")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "first").is_symlink()
    assert (folder / "target").read_bytes() == b"new"
    assert mode(folder / "target") == (0o640 if is_there else 0o600)
    assert [each.name for each in folder.iterdir()] == ["target"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), write_to(tmp_path / "file") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "missing/file", "."):
        with pytest.raises(CommandError, match=str(tmp_path)):
            write(tmp_path / name)
    assert (tmp_path / "loop").is_symlink()


# ---------------------------------------------------------------- pipes and devices


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_pipe_stays_and_gets_all_bytes(tmp_path, through_a_link):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if through_a_link:
        (tmp_path / "link").symlink_to("pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write(tmp_path / ("link" if through_a_link else "pipe"), b"x" * 300_000)
    reader.join()
    assert len(received[0]) == 300_000
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_pipe_whose_reader_leaves_is_a_broken_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: pipe.open("rb").close())
    reader.start()
    with pytest.raises(BrokenPipeError), write_to(pipe) as file:
        reader.join()
        file.write(b"x")


def test_a_device_stays(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.open("wb").close()
    except OSError as error:
        pytest.skip(f"no devices here: {error}")
    write(device)
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["null"]


def test_a_zipped_result_can_be_written_to_a_pipe(tmp_path):
    pipe = tmp_path / "pipe.gz"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with open_output(str(pipe)) as write_line:
        write_line(b"line\n")
    reader.join()
    assert received[0].startswith(b"\x1f\x8b")


async def test_an_export_into_the_file_of_standard_output(svc, dsn, tmp_path):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="c")
    command = ["export", "--tenant", "t", "-o", "/dev/stdout"]
    with (tmp_path / "file").open("wb") as stdout:
        await run(dsn, tmp_path, *command, stdout=stdout)
    piped = await run(dsn, tmp_path, *command)
    for text in ((tmp_path / "file").read_bytes(), piped.stdout):
        assert json.loads(text)["id"] == "c"


async def test_a_chart_is_written_into_a_pipe(svc, dsn, tmp_path):
    pytest.importorskip("matplotlib")
    await svc.conversations.create(tenant_id="t", dialog_id="d")
    pipe = tmp_path / "chart.svg"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        finished = await run(dsn, tmp_path, "stats", "--tenant", "t", "--plot", pipe)
        chart = b"" if finished.returncode else reader.stdout.read()
        reader.kill()
    assert finished.returncode == 0, finished.stderr
    assert chart.startswith(b"<?xml")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


# ---------------------------------------------------------------- terminals


def test_escaped_json_has_the_same_value():
    value = {"name": EVIL, "more": ["Straße", "退款", "👩‍👩‍👧", '"\\', "\n\t"]}
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert not any(char in text for char in NO_JSON_ESCAPE)
    assert "Straße" in text
    assert "👩‍👩‍👧" in text


@pytest.mark.parametrize("command", ["export", "show"])
async def test_control_characters_in_json_are_escaped_on_a_terminal_only(
    svc, dsn, tmp_path, command
):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="c", name=EVIL, exp_user_id="e")
    turn = {"messages": [{"role": "user", "content": f"hello {EVIL}"}]}
    await svc.conversations.append_message("c", turn, tenant_id="t")
    arguments = {
        "export": ["export", "--tenant", "t"],
        "show": ["show", "c", "--tenant", "t", "--json"],
    }[command]
    env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn}
    shown = await asyncio.to_thread(in_terminal, arguments, env, 200)
    assert shown.code == 0
    assert not any(char in shown.written for char in NO_JSON_ESCAPE[1:])
    assert "\x1b]0;" not in shown.written
    assert "\\u202e" in shown.written
    piped = await run(dsn, tmp_path, *arguments)
    assert "\u202e" in piped.stdout.decode()


async def test_ids_that_look_like_markup_are_printed_as_they_are(svc, dsn, tmp_path):
    id = "[/red][link=x]"
    await svc.conversations.create(tenant_id=id, dialog_id=id, id=id, name=id, user_id=id)
    turn = {"messages": [{"role": "user", "content": f"hello {id}"}]}
    await svc.conversations.append_message(id, turn, tenant_id=id)
    env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn}
    for arguments in (
        ["search", id, "--tenant", id],
        ["export", "--tenant", id, "-o", tmp_path / "[bold]"],
        ["import", tmp_path / "[bold]", "--tenant", id],
    ):
        shown = await asyncio.to_thread(in_terminal, arguments, env, 140)
        assert shown.code == 0, (arguments, shown.screen)
    assert (tmp_path / "[bold]").exists()
