"""Make the pictures of the README: the output of `asyncsvc demo`, and a chart of its usage.

Run `python -m scripts.docs.pictures`. It runs the commands on an embedded server in a temporary
directory. The pictures differ from run to run, because they show times.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from asyncsvc import embedded
from scripts.docs.root_files import ROOT

FIGURES: Final = ROOT / "docs" / "figures"
_COLUMNS: Final = 92
_WIDE: Final = r"[\u2e80-\U0003ffff]+"
"""Characters of 2 columns. rich takes them for 1 column where it places text in SVG."""
_LENGTH_OF_WIDE: Final = re.compile(rf'textLength="[\d.]+"(?=[^>]*>{_WIDE})')
_FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def main() -> None:
    """Write demo.svg and demo-usage.svg."""
    with tempfile.TemporaryDirectory() as directory:
        output = _run(directory, {"FORCE_COLOR": "1"}, "demo", "--data", "demo")
        async with embedded.running(Path(directory) / "demo") as server:
            environment = {"ASYNCSVC_DSN": server.dsn, "ASYNCSVC_TENANT": "demo"}
            chart = FIGURES / "demo-usage.svg"
            await asyncio.to_thread(_run, directory, environment, "stats", "--plot", str(chart))
    (FIGURES / "demo.svg").write_text(_picture(output), encoding="utf-8")


def _run(directory: str, environment: dict[str, str], *arguments: str) -> str:
    programs = Path(sys.executable).parent  # so that the output names the command without a path
    process = subprocess.run(  # noqa: S603 - the project's own command
        ("asyncsvc", *arguments),  # noqa: S607 - by its name, as the output shows it
        cwd=directory,
        env=os.environ
        | {"COLUMNS": str(_COLUMNS), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return process.stdout


def _picture(output: str) -> str:
    """Return the terminal up to the line of the statistics, without the font of a web host."""
    end = output.index("\n", output.index("statistics"))
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    text = Text.from_ansi(output[:end])
    text.highlight_regex(_WIDE, "not dim")  # in elements of their own
    console.print(text)
    svg = console.export_svg(title="asyncsvc demo", unique_id="demo")
    return _LENGTH_OF_WIDE.sub("", _FONT.sub("", svg))


if __name__ == "__main__":
    asyncio.run(main())
