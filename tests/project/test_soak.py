"""A short soak of the whole public API succeeds, and its measures detect growth.

A long run is `python -m benchmarks.reliability soak`.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import asyncpg
import pytest

from benchmarks.reliability import samples
from benchmarks.reliability.operations import all_calls
from benchmarks.reliability.samples import MEASURES, Sample, Watch

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.reliability", "soak"]
NAME = "soaked"


def test_a_short_soak_succeeds_without_growth(tmp_path):
    file, plot = tmp_path / "report.json", tmp_path / "plot.svg"
    finished = subprocess.run(
        [*COMMAND, "--minutes=0.1", "--json", str(file), "--plot", str(plot)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    report = json.loads(file.read_text())
    assert report["failures"] == []
    assert report["operations"] > 100
    assert report["cancelled"] > 0
    assert report["connections_lost"] > 0
    assert report["calls"].keys() == all_calls()
    assert {figure["name"]: figure["last"] for figure in report["figures"]}["other backends"] == 0
    assert ET.parse(plot).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def flat(**growth: int) -> dict[str, bool]:
    """Return whether each measure is flat if these values grow with every sample."""
    start = {
        "operations": 0, "resident": 60 * 2**20, "blocks": 240_000, "tasks": 14,
        "descriptors": 18, "pool_size": 8, "backends": 8, "open_transactions": 0,
    }  # fmt: skip
    taken = [
        Sample(
            seconds=5.0 * number,
            **{name: value + number * growth.get(name, 0) for name, value in start.items()},
        )
        for number in range(90)
    ]
    return {measure.name: measure.figure(taken).is_flat for measure in MEASURES}


@pytest.mark.parametrize(
    ("growth", "expected"),
    [
        ({}, set()),
        ({"operations": 2_000}, set()),
        ({"resident": 200_000}, {"resident MiB"}),
        ({"blocks": 200}, {"Python's blocks"}),
        ({"tasks": 1}, {"tasks"}),
        ({"descriptors": 1}, {"other descriptors"}),
        ({"descriptors": 1, "backends": 1}, {"other descriptors", "other backends"}),
        ({"descriptors": 1, "pool_size": 1, "backends": 1}, {"pool connections"}),
        ({"open_transactions": 1}, {"open transactions"}),
    ],
)
def test_a_growing_measure_is_detected(growth, expected):
    assert {name for name, is_flat in flat(**growth).items() if not is_flat} == expected


async def test_a_sample_contains_leaked_resources(dsn, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "_IDLE_TIMEOUT", 0.2)
    named = {"server_settings": {"application_name": NAME}}
    own = await asyncpg.connect(dsn)
    async with asyncpg.create_pool(dsn, min_size=0, max_size=2, **named) as pool:
        await pool.execute("SELECT 1")
        watch = Watch(pool, own, NAME)
        before = await watch.sample(0)
        sleeping = asyncio.create_task(asyncio.sleep(60))
        objects = list(range(1_000, 50_000))
        large = b"x" * 2**28  # more than the allocator can take from freed memory
        leaked = await asyncpg.connect(dsn, **named)
        await leaked.execute("BEGIN")
        with (tmp_path / "open").open("w"):
            after = await watch.sample(len(objects) + len(large))
        await leaked.close()
        sleeping.cancel()
    await own.close()
    grown = {
        name: getattr(after, name) - getattr(before, name)
        for name in ("tasks", "descriptors", "pool_size", "backends", "open_transactions")
    }
    assert grown == {
        "tasks": 1, "descriptors": 2, "pool_size": 0, "backends": 1, "open_transactions": 1
    }  # fmt: skip
    assert 45_000 < after.blocks - before.blocks < 100_000
    assert after.resident - before.resident > 2**27


async def test_prepared_statements_do_not_count_as_a_leak(dsn):
    own = await asyncpg.connect(dsn)
    named = {"server_settings": {"application_name": NAME}}
    async with asyncpg.create_pool(dsn, min_size=0, max_size=2, **named) as pool:
        async with pool.acquire() as first, pool.acquire() as second:
            await asyncio.gather(first.fetch("SELECT 1"), second.fetch("SELECT 1"))
        watch = Watch(pool, own, NAME)
        before = await watch.sample(0)
        async with pool.acquire() as first, pool.acquire() as second:
            for number in range(80):
                await first.fetch(f"SELECT {number} AS a, $1::text AS b", "")
                await second.fetch(f"SELECT {number} AS a, $1::text AS b", "")
        after = await watch.sample(0)
    await own.close()
    assert abs(after.blocks - before.blocks) < 1_000


@pytest.mark.parametrize("option", ["--minutes=0", "--plot=plot.gif"])
def test_an_invalid_option_is_rejected(option):
    finished = subprocess.run(
        [*COMMAND, option], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 2
    assert option[: option.index("=")] in finished.stderr
