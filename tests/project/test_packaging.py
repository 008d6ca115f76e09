"""The contents of an installation, its dependencies, and the modules that an import loads."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import asyncsvc
from asyncsvc.database import sql_files


def test_the_public_names_are_sorted_and_exist():
    assert list(asyncsvc.__all__) == sorted(asyncsvc.__all__, key=isort_order)
    assert all(hasattr(asyncsvc, name) for name in asyncsvc.__all__)
    assert len(set(asyncsvc.__all__)) == len(asyncsvc.__all__)


def isort_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_every_error_is_public_and_in_the_tree():
    from asyncsvc import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    for error in (each for each in classes if each.__module__ == errors.__name__):
        assert issubclass(error, asyncsvc.AsyncSvcError)
        assert error.__name__ in asyncsvc.__all__


def test_the_core_depends_on_asyncpg_and_pydantic_alone():
    needed = [
        re.match(r"[\w-]+", line)[0]
        for line in metadata.requires("asyncsvc")
        if "extra ==" not in line
    ]
    assert needed == ["asyncpg", "pydantic"]


def test_the_import_of_the_package_loads_no_extra():
    code = "import asyncsvc, sys; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    loaded = set(output.stdout.split())
    extras = {
        *("typer", "rich", "plotext", "matplotlib", "fastapi", "uvicorn", "pymysql"),
        "opentelemetry",
    }
    entry_points = {"cli", "embedded", "integrations", "ragflow"}
    assert not loaded & {*extras, *(f"asyncsvc.{name}" for name in entry_points)}


def test_the_sql_files_are_installed_with_the_package():
    package = Path(asyncsvc.__file__).parent
    root = Path(str(sql_files.root()))
    assert root in {package / "sql", package.parent / "sql"}
    assert {path.name for path in root.iterdir()} == {
        "api_token",
        "append_key",
        "budget",
        "conversation",
        "maintenance",
        "message",
        "migration",
        "migrations",
        "pooler",
        "ragflow",
        "record",
        "replica",
        "row_security",
        "search",
        "server",
        "session",
        "testing",
        "token_audit",
        "usage",
        "usage_audit",
        "usage_key",
        "watch",
    }
    assert all(path.suffix == ".sql" for path in root.rglob("*") if path.is_file())


def test_pytest_finds_the_plugin_in_an_installation():
    plugin = metadata.entry_points(group="pytest11")["asyncsvc"]
    assert plugin.load().__name__ == "asyncsvc_pytest"


def test_the_package_has_a_type_marker():
    assert (Path(asyncsvc.__file__).parent / "py.typed").exists()
