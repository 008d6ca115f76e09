"""The exit code and the error line of every command for every kind of wrong use."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from rich.cells import cell_len

from asyncsvc.cli import main
from asyncsvc.cli.app import app
from tests.support.command_line import run_command
from tests.support.terminal import in_terminal, rendered

if sys.platform == "win32":
    pytest.skip("there are no terminals of this kind on Windows", allow_module_level=True)


class Right(NamedTuple):
    """A right use of a command: the values of its arguments, and its required options."""

    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Wrong(NamedTuple):
    """A wrong value of an option or argument, and the text after its name in the error line."""

    value: str
    reason: str


TENANT = ("--tenant", "t")
DATA = ("--data", "/nonexistent/data")
RIGHT = {
    "list": Right((), TENANT),
    "search": Right(("text",), TENANT),
    "show": Right(("c1",), TENANT),
    "stats": Right((), TENANT),
    "import": Right(("-",), (*TENANT, "--dialog", "d")),
    "import-ragflow": Right(("mysql://u:p@127.0.0.1:1/rag_flow",)),
    "export": Right((), TENANT),
    "purge": Right(("90d",), (*TENANT, "--dry-run")),
    "erase-user": Right(("ann",), (*TENANT, "--yes")),
    "delete-tenant": Right(("t",), ("--yes",)),
    "maintain": Right(),
    "declare-zone": Right(("Europe/Berlin",), TENANT),
    "migrate": Right((), ("--check",)),
    "status": Right(),
    "doctor": Right(),
    "sql": Right(("message/delete",), ("--explain",)),
    "demo": Right((), ("--dsn", "postgresql://127.0.0.1:1/x")),
    "tokens create": Right((), (*TENANT, "--name", "n")),
    "tokens list": Right((), TENANT),
    "tokens verify": Right(),
    "tokens rotate": Right(("a1",), TENANT),
    "tokens revoke": Right(("a1",), TENANT),
    "tokens audit": Right((), TENANT),
    "tokens import": Right(("-",), TENANT),
    "budgets set": Right((), (*TENANT, "--scope", "tenant", "--limit", "5")),
    "budgets list": Right((), TENANT),
    "budgets status": Right((), TENANT),
    "budgets raise-limit": Right(("b1",), (*TENANT, "--by", "5")),
    "budgets delete": Right(("b1",), TENANT),
    "budgets audit": Right((), TENANT),
    "postgres start": Right((), DATA),
    "postgres stop": Right((), DATA),
    "postgres status": Right((), DATA),
}
ID = Wrong("x" * 129, "must be 1 to 128 characters")
BY_NAME = {
    "--settings": Wrong("/nonexistent/x", "/nonexistent/x: No such file or directory"),
    "--plot": Wrong("a.pdf", "must end in .svg or .png"),
    "--name": Wrong("x" * 5_000, "must be "),
    "--source": Wrong("x" * 300, "must be "),
    "--user": Wrong("x" * 129, "must be 0 to 128 characters"),
    "--scope": Wrong("x" * 300, "must be "),
    "--reason": Wrong("x" * 5_000, "must be "),
    "--keywords": Wrong("x" * 5_000, "must be "),
    "--with": Wrong("nonsense", "the statement has no nonsense"),
}
BY_METAVAR = {
    "ID": ID,
    "USER": ID,
    "TENANT": ID,
    "URL": Wrong("nonsense", "must be a PostgreSQL URL"),
    "SOURCE_DSN": Wrong("nonsense", "must be "),
    "ZONE": Wrong("Berlin", "must be UTC or an area and a city"),
    "DATE": Wrong("nonsense", "must be ISO 8601"),
    "TIME": Wrong("noon", "must be ISO 8601"),
    "CURSOR": Wrong("x", "is not a cursor"),
    "NUMBER": Wrong("much", "must be a number"),
    "AGE": Wrong("soon", "must be a number of s, m, h, d or w"),
    "AGE|DATE": Wrong("soon", "must be an age"),
    "SECONDS": Wrong("soon", "must be a valid number"),
    "SEQ": Wrong("x", "must be a valid integer"),
    "NAME": Wrong("x" * 5_000, ""),
    "NAME=VALUE": Wrong("nonsense", "must be NAME=VALUE"),
    "TEXT": Wrong("x" * 5_000, "must be "),
}
# An unusable file or directory is a failure with exit code 1. Other tests cover these.
FILES = {"FILE", "FILE...", "DIR"}
# The demo accepts any text.
ANY_TEXT = {("demo", "--search")}


def leaves(group: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the path of each command, with the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_every_command_has_a_row():
    missing = COMMANDS.keys() - RIGHT.keys()
    assert not missing, f"add a right use of {missing} to RIGHT"
    assert RIGHT.keys() <= COMMANDS.keys()


def shown_name(param) -> str:
    return param.metavar if param.param_type_name == "argument" else param.opts[0]


def wrong_value(command: str, param) -> Wrong | None:
    """Return a wrong value of a parameter; None if all values are right."""
    name = shown_name(param)
    if param.type_descriptor.is_choice:
        return Wrong("nonsense", "'nonsense' is not one of")
    if name in BY_NAME:
        return BY_NAME[name]
    if param.metavar is None and param.type_descriptor.annotation is int:
        return Wrong("x", "must be a valid integer")
    if param.metavar in FILES or (command, name) in ANY_TEXT:
        return None
    assert param.metavar in BY_METAVAR, f"add a wrong value of {param.metavar} to BY_METAVAR"
    return BY_METAVAR[param.metavar]


def uses(command: str) -> Iterator[tuple[list[str], str]]:
    """Yield wrong uses of a command, with the start of the error line."""
    right, params = RIGHT[command], COMMANDS[command].params
    start = command.split()
    whole = [*start, *right.arguments, *right.options]
    yield [*whole, "--nonsense"], "No such option: --nonsense"
    arguments = [param for param in params if param.param_type_name == "argument"]
    if all(param.nargs == 1 for param in arguments):
        yield [*whole, "superfluous"], "Got unexpected extra argument"
    for param in params:
        name = shown_name(param)
        if param.required and param.envvar is None:
            options = list(right.options)
            if param in arguments:
                yield [*start, *options], f"{name}: is required"
            else:
                at = options.index(name)
                del options[at : at + 2]
                yield [*start, *right.arguments, *options], f"{name}: is required"
        if getattr(param, "is_flag", False):
            yield [*whole, f"{name}=1"], f"Option '{name}' does not take a value"
        elif (wrong := wrong_value(command, param)) is not None:
            values = list(right.arguments)
            if param in arguments:
                values[arguments.index(param)] = wrong.value
                use = [*start, *values, *right.options]
            else:
                use = [*whole, name, wrong.value]
                yield [*whole, name], f"Option '{name}' requires an argument"
            yield use, f"{name}: {wrong.reason}"


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_use_is_one_line_with_exit_code_2(command, svc, dsn):
    env = {"ASYNCSVC_DSN": dsn, "PATH": ""}
    different = []
    for arguments, line in uses(command):
        finished = run_command(arguments, env, stdin='{"id": "1", "messages": []}')
        first, *hint = finished.stderr.splitlines() or [""]
        is_hint = [text.startswith("Try '") and text.endswith(" --help'.") for text in hint]
        if (first.startswith(f"asyncsvc: {line}"), finished.returncode, finished.stdout) != (
            True, 2, "",
        ) or is_hint not in ([], [True]):  # fmt: skip
            different.append((arguments, line, finished))
    assert different == []


@pytest.mark.parametrize("command", [name for name, each in COMMANDS.items() if "dsn" in {
    param.name for param in each.params if param.required}])  # fmt: skip
def test_a_command_reports_a_missing_dsn_and_an_unreachable_database(command, monkeypatch):
    right = RIGHT[command]
    arguments = [*command.split(), *right.arguments, *right.options]
    missing = run_command(arguments, {"PATH": ""})
    line = "asyncsvc: --dsn: is required, or ASYNCSVC_DSN in the environment\n"
    assert (missing.returncode, missing.stderr.startswith(line)) == (2, True)
    dead = run_command(arguments, {"ASYNCSVC_DSN": "postgresql://u:hidden@127.0.0.1:1/x"})
    assert dead.returncode == 1
    assert dead.stderr.startswith("asyncsvc: the database cannot be reached: ")
    assert "hidden" not in dead.stderr


# --- in a terminal


def main_of_all() -> None:
    """Run the commands in the file that the command line names, one after the other."""
    for arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.argv[:] = ["asyncsvc", *arguments]
        try:
            main()
        except SystemExit as exit:
            sys.stderr.flush()
            sys.stdout.write(f"\x1e{exit.code}\x1e")
            sys.stdout.flush()


def run_all(
    commands: list[list[str]],
    columns: int,
    folder: Path,
    dsn: str = "postgresql://127.0.0.1:1/x",
) -> list[tuple[str, int]]:
    """Run commands in one process in a terminal, and return their output and exit codes."""
    (folder / "commands").write_text(json.dumps(commands))
    env = {"ASYNCSVC_DSN": dsn, "PATH": ""}
    shown = in_terminal([folder / "commands"], env, columns, main=main_of_all)
    outputs, codes = shown.written.split("\x1e")[:-1:2], shown.written.split("\x1e")[1::2]
    return [(output, int(code)) for output, code in zip(outputs, codes, strict=True)]


@pytest.mark.parametrize("columns", [80, 140])
def test_wrong_use_in_a_terminal(columns, svc, dsn, tmp_path):
    (tmp_path / "line").write_text('{"id": "1", "messages": []}')
    rows = [
        ([str(tmp_path / "line") if each == "-" else each for each in arguments], line)
        for name in COMMANDS
        for arguments, line in uses(name)
        # It asks for the secret before it checks the values of other options.
        if name != "tokens verify" or line.startswith(("No such", "Got", "Option"))
    ]
    done = run_all([arguments for arguments, _ in rows], columns, tmp_path, dsn)
    for (arguments, line), (output, code) in zip(rows, done, strict=True):
        screen = without_spaces(rendered(output.encode(), columns))  # a long line is wrapped
        expected = without_spaces(f"asyncsvc: {line}")
        assert (code, screen.startswith(expected)) == (2, True), (arguments, output)


def without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("columns", [50, 80, 140])
def test_every_command_has_help_that_fits(columns, tmp_path):
    commands = [[], ["tokens"], ["postgres"], *(name.split() for name in COMMANDS)]
    done = run_all([[*command, "--help"] for command in commands], columns, tmp_path)
    for command, (output, code) in zip(commands, done, strict=True):
        screen = rendered(output.encode(), columns)
        assert (code, "Usage:" in screen) == (0, True), command
        assert max(map(cell_len, screen.split("\n"))) <= columns
