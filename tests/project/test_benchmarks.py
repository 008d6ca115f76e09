"""The benchmark suites complete and measure what their titles name. No test asserts a time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import charts, results, suites
from benchmarks.contenders.sessions import FRAMEWORKS, installed
from benchmarks.measuring import DifferentAnswers, Measured, Tasks, Turn, agree, contest
from benchmarks.suites import SUITES
from tests.support.citus import ON_CITUS

ROOT = Path(__file__).parents[2]


def test_all_suites_complete_in_one_database(server_dsn, tmp_path):
    file, plots = tmp_path / "results.json", tmp_path / "plots"
    command = [sys.executable, "-m", "benchmarks", "--scale=small", "--dsn", server_dsn]
    finished = subprocess.run(
        [*command, "--json", str(file), "--plot", str(plots)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    measured = json.loads(file.read_text())["results"]
    assert list(dict.fromkeys(result["suite"] for result in measured)) == list(SUITES)
    assert_rates(measured)
    figures = {result["figure"] for result in measured if "figure" in result}
    assert figures == set(charts.KINDS)
    assert all(charts.path(name, plots).read_text().startswith("<?xml") for name in charts.KINDS)
    assert_writes_follow_last_used_resolution(of_suite("verify", measured))
    assert_all_contenders_append(of_suite("append", measured))
    assert_only_ragflow_loses_messages(of_suite("append", measured))
    assert_searches_equal_the_reference(of_suite("search", measured))
    for framework in FRAMEWORKS:
        assert_the_framework_is_measured_or_named(framework, of_suite("sessions", measured))


@pytest.mark.skipif(not ON_CITUS, reason="it needs a cluster of Citus")
def test_the_suite_of_a_cluster_compares_it_with_a_server(server_dsn, tmp_path):
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--scale=small", "--only=citus"]
    finished = subprocess.run(
        [*command, "--dsn", server_dsn, "--citus", server_dsn, "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    measured = json.loads(file.read_text())["results"]
    assert_rates(measured)
    contests = [result for result in measured if "contenders" in result]
    assert {len(result["contenders"]) for result in contests} == {3}


def assert_the_framework_is_measured_or_named(framework, measured):
    if framework not in installed():
        title = f"skipped: {framework} is not installed (dependency group `contenders`)"
        assert title in [result["title"] for result in measured]
    else:
        appends = [each for each in measured if each["title"].startswith("append")]
        assert len(appends) == 2
        for result in appends:
            assert framework in {each["contender"] for each in result["contenders"]}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_of_the_suite_sessions_is_installed(framework):
    """It is skipped with the name of the missing framework, so that a run shows each gap."""
    if framework not in installed():
        pytest.skip(f"{framework} is not installed: pip install --group contenders")


def assert_searches_equal_the_reference(measured):
    targets = {result["title"]: result["target"] for result in measured if "target" in result}
    (differing,) = [each for title, each in targets.items() if "from the reference" in title]
    assert differing["value"] == 0
    (newest,) = [each for title, each in targets.items() if "by the next search" in title]
    assert newest["met"]


def of_suite(suite, measured):
    return [result for result in measured if result["suite"] == suite]


def assert_rates(measured):
    for contenders in (result["contenders"] for result in measured if "contenders" in result):
        assert contenders[0]["ratio"] == 1
        assert all(contender["per_second"] > 0 for contender in contenders)


def assert_writes_follow_last_used_resolution(measured):
    writes = {
        result["title"]: result["counted"]["row writes"]
        for result in measured
        if "counted" in result
    }
    per_interval = [count for title, count in writes.items() if "interval 60 s" in title]
    assert per_interval == [1, 20]
    each_use = [count for title, count in writes.items() if "each use" in title]
    assert len(each_use) == 2
    assert all(1 <= count <= 200 for count in each_use)
    assert [count for title, count in writes.items() if "never" in title] == [0, 0]


def assert_only_ragflow_loses_messages(measured):
    (lost,) = (result["counted"] for result in measured if "messages lost of" in result["title"])
    assert lost["asyncsvc"] == lost["SQLAlchemy"] == 0
    assert lost["as RAGFlow"] > 0


def assert_all_contenders_append(measured):
    contests = [result for result in measured if result.get("figure") == "append"]
    assert [result["size"] for result in contests] == [10, 100]
    for result in contests:
        names = {contender["contender"] for contender in result["contenders"]}
        assert {"bare insert", "plain statement", "asyncsvc", "SQLAlchemy", "as RAGFlow"} <= names


async def test_different_results_of_contenders_raise():
    async def page():
        return ["1", "2"]

    async def other():
        return ["2", "1"]

    await agree("a page", {"one": page, "same": page})
    with pytest.raises(DifferentAnswers, match=r"a page: one returns .*, other"):
        await agree("a page", {"one": page, "other": other})


async def test_contenders_take_turns_and_each_works_at_least_once():
    turns = []

    def work(name):
        async def work():
            turns.append(name)

        return work

    contenders = {name: Tasks([work(name)]) for name in "abc"}
    measured = await contest(contenders, rounds=3, seconds=0)
    assert "".join(turns) == "abc" + "abc" + "bca" + "cab"
    assert [len(each.rates) for each in measured.values()] == [3, 3, 3]


def test_a_ratio_is_the_median_of_the_rounds():
    floor, mine = Measured(), Measured()
    for its, own in ((1.0, 2.0), (1.0, 4.0), (10.0, 20.0)):
        floor.add(Turn([its], its))
        mine.add(Turn([own], own))
    assert mine.ratio(floor) == 0.5
    assert mine.cost(floor) == 2
    assert mine.latency(50) == 4_000


def test_results_are_written_from_the_measurements(tmp_path):
    rows = [
        {"contender": name, "per_second": 1_000 / p50, "ratio": 1 / p50, "p50_ms": p50, "p99_ms": 9}
        for name, p50 in (("bare insert", 1.0), ("asyncsvc, held", 1.5), ("plain statement", 1.25))
    ]
    title = "append at 10 messages, 1 task"
    measured = [
        {"suite": "append", "title": title, "contenders": rows, "figure": "append", "size": 10},
        {"suite": "append", "title": "time",
         "target": {"value": 2, "bound": "at most 1", "met": False}},
        {"suite": "append", "title": "one append writes", "counted": {"bytes of WAL": 1_017}},
    ]  # fmt: skip
    source, file = tmp_path / "results.json", tmp_path / "RESULTS.md"
    document = {"command": "python -m benchmarks", "settings": {"fsync": "on"}, "results": measured}
    source.write_text(json.dumps(document))
    results.write([source], tmp_path / "plots", suites, file)
    text = file.read_text()
    assert "library takes 1.50 times as" in " ".join(text.split())
    assert "| fsync | on |" in text
    assert "| time | 2 | at most 1 | **missed** |" in text
    assert "| asyncsvc, held | 667 | 0.67 | 1.50 | 9.00 |" in text
    assert "- one append writes: 1,017 bytes of WAL" in text
    assert "](plots/append.svg)" in text
    assert not re.search(r"\{[^}]*/", text)


def test_an_unknown_suite_is_rejected():
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nothing"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert finished.returncode == 2
    assert "invalid choice: 'nothing'" in finished.stderr
