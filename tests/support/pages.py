"""Find and run the code blocks of the README and of the pages in docs/.

A page is one story: its Python blocks share a namespace, and all its blocks share a database and a
scratch folder. `svc`, `pool` and `dsn` exist from the start. A block may `await` at its top level.
One that calls `asyncio.run` is a program of its own.

- `# >` lines of a Python block are its expected output, and `...` in them is any text.
- Lines after `$` in a `console` block are commands; the lines after each are its expected output.
- An `sh` block is a script that must succeed. Exported variables stay for the next blocks.
- `<!-- not run: reason -->` before a block keeps it from running.
- A block that includes a file (`--8<--`) is a recipe, which has a test of its own.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNABLE = {"python", "console", "sh"}
FENCE = re.compile(
    r"(?P<mark>^ *<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<source>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_WARNINGS = ["-W", "error", "-W", "ignore:Direct usage of named widget classes:DeprecationWarning"]
"""The second is openai-chatkit's, at its import."""
EXPECTED = re.compile(r"^ *# ?> ?(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block of a page."""

    page: str
    line: int  # of the first line of the source
    language: str
    source: str
    not_run: str | None  # the reason

    @property
    def includes_a_file(self) -> bool:
        return "--8<--" in self.source

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


RECIPES = ROOT / "docs" / "recipes"
TUTORIAL = ROOT / "docs" / "start" / "tutorial.md"
"""The page whose blocks extend a file and call the service in it. It has a separate test."""


def pages() -> list[Path]:
    """Return the README and all pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that can run, or that have a reason for not running."""
    return list(parse(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))))


def parse(text: str, page: str) -> Iterator[Block]:
    for fence in FENCE.finditer(text):
        if fence["language"] in RUNNABLE:
            indent = len(fence["indent"])
            lines = fence["source"].splitlines(keepends=True)
            yield Block(
                page=page,
                line=text.count("\n", 0, fence.start("source")) + 1,
                language=fence["language"],
                source="".join(line[indent:] or "\n" for line in lines),
                not_run=fence["reason"],
            )


def run_recipe(name: str) -> None:
    """Run a recipe in this process, outside of an event loop, and compare its output."""
    path = RECIPES / f"{name}.py"
    expected = EXPECTED.findall(path.read_text(encoding="utf-8"))
    assert expected, "a recipe prints something"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(str(path), run_name="__main__")
    compare(output.getvalue(), expected, path.name)


class Story:
    """The namespace, the scratch folder and the environment of a page."""

    def __init__(self, namespace: dict[str, object], folder: Path, dsn: str) -> None:
        self._namespace = namespace
        self._folder = folder
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {
            "ASYNCSVC_DSN": dsn,
            "ASYNCSVC_TENANT": "acme",
            "COLUMNS": "100",
            "PATH": programs,
        }

    async def run(self, block: Block) -> None:
        """Run a block and compare its output."""
        if block.language == "python":
            output = await self._run_python(block)
            compare(output, EXPECTED.findall(block.source), str(block))
        elif block.language == "sh":
            await self._run_shell(f"set -euo pipefail\n{block.source}")
        else:
            for command, expected in commands(block):
                output = await self._run_shell(command, may_fail=True)
                compare(output, expected, f"{block}, {command}")

    async def _run_python(self, block: Block) -> str:
        if "asyncio.run(" in block.source:
            return await self._run_program(sys.executable, *_WARNINGS, "-c", block.source)
        source = "\n" * (block.line - 1) + block.source  # tracebacks name the line of the page
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, block.page, "exec", flags=flags, dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            result = eval(code, self._namespace)
            if inspect.isawaitable(result):
                await result
        return output.getvalue()

    async def _run_shell(self, script: str, *, may_fail: bool = False) -> str:
        keep = "[ ! -e .exports ] || . ./.exports; trap 'export -p >.exports' EXIT"
        return await self._run_program("bash", "-c", f"{keep}\n{script}", may_fail=may_fail)

    async def _run_program(self, *command: str, may_fail: bool = False) -> str:
        """Run a program and return its output, including stderr."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert may_fail or process.returncode == 0, output.decode()
        return output.decode()


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a `console` block with the lines of its expected output."""
    for part in re.split(r"^\$ ", block.source, flags=re.MULTILINE)[1:]:
        command, *expected = part.rstrip("\n").split("\n")
        yield command, expected


def compare(output: str, expected: list[str], where: str) -> None:
    """Compare an output with its expected lines. In these, `...` stands for any text."""
    pattern = ".*".join(re.escape(part) for part in "\n".join(expected).split("..."))
    assert re.fullmatch(pattern, output.rstrip("\n"), re.DOTALL), (
        f"{where} printed\n{output}and the page has\n" + "\n".join(expected)
    )
