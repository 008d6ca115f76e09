"""The README's links lead to files, and it says how to run and to test in one line each."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


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
