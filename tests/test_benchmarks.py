"""The benchmarks run to their end and measure what they say; how fast is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def results(server_dsn, tmp_path):
    """What a suite writes down when it has run to its end."""

    def run(suite):
        file = tmp_path / "results.json"
        command = [sys.executable, "-m", "benchmarks", "--only", suite, "--scale=small"]
        finished = subprocess.run(
            [*command, "--json", str(file), "--dsn", server_dsn],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        return json.loads(file.read_text())["results"]

    return run


@pytest.mark.parametrize("suite", ["verify", "rls"])
def test_a_suite_runs_to_its_end(results, suite):
    found = results(suite)
    contests = [result["contenders"] for result in found if "contenders" in result]
    assert contests
    for contenders in contests:
        assert contenders[0]["ratio"] == 1
        assert all(contender["per_second"] > 0 for contender in contenders)
    if suite == "verify":
        are_stamped_as_often_as_the_settings_say(found)


def are_stamped_as_often_as_the_settings_say(found):
    counted = {result["title"]: result["counted"] for result in found if "counted" in result}
    per_interval = [c for title, c in counted.items() if "stamped interval" in title]
    assert [writes["row writes"] for writes in per_interval] == [1, 20]
    each = [c["row writes"] for title, c in counted.items() if "stamped each use" in title]
    assert all(1 <= writes <= 192 for writes in each)
    never = [c["row writes"] for title, c in counted.items() if "stamped never" in title]
    assert never == [0, 0]


def test_a_wrong_option_is_told():
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nothing"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert finished.returncode == 2
    assert "invalid choice: 'nothing'" in finished.stderr
