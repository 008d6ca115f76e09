"""A short mixed run measures the small tenants, the large tenant, the backlog and the sizes.

A long run is `python -m benchmarks.reliability mixed`.
"""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.reliability.mixed import Operation, Relation, Report, Sample, Settings

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.reliability", "mixed"]


def test_a_short_run_reports_each_operation_and_relation(tmp_path, empty_dsn):
    file, plot = tmp_path / "report.json", tmp_path / "plot.svg"
    options = ["--minutes=0.1", "--alone=0.1", "--large=500", "--tenants=20", "--small=5"]
    finished = subprocess.run(
        [*COMMAND, *options, "--dsn", empty_dsn, "--json", str(file), "--plot", str(plot)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert finished.returncode in {0, 1}, finished.stderr  # a target may be missed in a short run
    assert file.exists(), finished.stderr
    report = Report.model_validate_json(file.read_text())
    assert report.errors == {}
    names = {"append", "list", "messages", "search", "stats", "update", "verify"}
    assert {each.name for each in report.operations} <= names
    assert {"purge", "import"} <= {each.name for each in report.large_operations}
    assert {"message", "message_search_idx"} <= {each.name for each in report.relations}
    assert report.samples
    assert json.loads(file.read_text())["settings"]["large"] == 500
    assert ET.parse(plot).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def report(*, p99: float = 10.0, size: int = 1_000, age: float = 60.0) -> Report:
    """Return the report of a run with these values at the end."""
    return Report(
        settings=Settings(minutes=1, alone=1, rate=40, large=500, tenants=20, small=5, seed=1),
        server={"server_version": "18"},
        operations=[
            Operation(
                name="list", calls=9, alone_p50=1.0, alone_p99=10.0, mixed_p50=1.0, mixed_p99=p99
            )
        ],
        large_operations=[],
        relations=[
            Relation(name="message", fresh_bytes=1_000, fresh_rows=10, bytes=size, rows=10),
            Relation(name="maintenance", fresh_bytes=1, fresh_rows=1, bytes=3, rows=1),
        ],
        errors={},
        samples=[Sample(seconds=60.0, p99=1.0, backlog=1, age=age, bytes=1)],
    )


def test_a_missed_target_is_a_failure():
    assert report().failures == []
    assert report(p99=31.0).failures == ["list: p99 is 3.1 times that alone"]
    assert report(size=1_310).failures == ["message: 1.31 times its fresh size per row"]
    assert report(age=181.0).failures == ["maintenance was 181 s late"]
