"""The README's code runs unchanged, and its links lead to files."""

import asyncio
import os
import re
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


async def test_the_tour_runs(empty_dsn, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "tour.py"
    script.write_text(code, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        script,
        env=os.environ | {"ASYNCSVC_DSN": empty_dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    first, second = output.decode().splitlines()
    assert first == "1 found, 1 message, 42 tokens"
    assert second.startswith("1 conversation of 1 user on 20")


def test_each_link_leads_to_a_file():
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        # The SQL files and sources are not beside an installed wheel's tests.
        assert target.split("/")[0] in {"sql", "asyncsvc"} or (root / target).exists(), target


def test_run_it_and_test_it_are_one_line_each():
    for heading, end in (("Run it", "asyncsvc demo"), ("Test it", "pytest -n 2")):
        section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
        (line,) = re.findall(r"```sh\n(.*?)\n```", section, re.DOTALL)
        assert "\n" not in line
        assert line.endswith(end)
