"""The benchmarks run to their end and measure what they say; how fast is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("suite", ["verify"])
def test_a_suite_runs_to_its_end(server_dsn, suite, tmp_path):
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--only", suite, "--scale=small", "--json", file]
    finished = subprocess.run(
        [*map(str, command), "--dsn", server_dsn],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    results = json.loads(file.read_text())["results"]
    contests = [result["contenders"] for result in results if "contenders" in result]
    assert contests
    for contenders in contests:
        assert contenders[0]["ratio"] == 1
        assert all(contender["per_second"] > 0 for contender in contenders)
    counted = {result["title"]: result["counted"] for result in results if "counted" in result}
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
