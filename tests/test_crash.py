"""The commands that kill the server and its clients hold, in short, and would say if they did not.

The long form is `python -m benchmarks.reliability crash`, with and without `--client`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from benchmarks.reliability import verdict
from benchmarks.reliability.plan import DIALOG, TENANT, Ack, Plan, conversations, planned

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "benchmarks.reliability", "crash"]
PLAN = Plan(seed=1, address=Path("unused"))
A_TURN = "payload ->> 'key' = '0/0'"
A_MESSAGE = f"{A_TURN} AND payload ->> 'part' = '0'"


@pytest.mark.parametrize("options", [["--kills=2"], ["--kills=1", "--client"]], ids=" ".join)
def test_nothing_acknowledged_is_lost_and_nothing_happens_twice(options, tmp_path):
    file = tmp_path / "report.json"
    finished = subprocess.run(
        [*COMMAND, *options, "--writers=2", "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    report = json.loads(file.read_text())
    counts = report["verdict"]
    assert counts.pop("acknowledged") > 20
    assert set(counts.values()) == {0}
    if "--client" in options:
        assert 1 <= report["processes_killed"] <= 2
    else:
        # Beside the postmaster there are its workers and a backend for each writer.
        assert report["processes_killed"] > 2 * (1 + 2)
    durable = {"fsync", "full_page_writes", "synchronous_commit"}
    assert {report["server"][name] for name in durable} == {"on"}


@pytest.fixture
def place():
    """A directory that the server can get to also where root starts it."""
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def test_broken_off_it_leaves_nothing_behind(place):
    with subprocess.Popen(
        [*COMMAND, "--kills=1000", "--writers=2"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(place)},
    ) as command:  # fmt: skip
        give_up = time.monotonic() + 60
        while not list(place.glob("*/writers.log")) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert processes_below(place)
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=120)
    assert (command.returncode, said) == (128 + signal.SIGTERM, "")
    assert list(place.iterdir()) == []
    assert processes_below(place) == []


def processes_below(directory: Path) -> list[str]:
    """Return command lines and working directories that have to do with the directory."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                told = [(process / "cmdline").read_text(), str((process / "cwd").readlink())]
            except OSError:  # it ended meanwhile
                continue
            found += [text for text in told if str(directory) in text]
    return found


@pytest.fixture
async def acks(svc):
    """What a writer was told whose ten turns are stored as they should be."""
    new = [{"id": id, "dialog_id": DIALOG} for id in conversations()]
    await svc.conversations.create_many(new, tenant_id=TENANT)
    return [await append(svc, number) for number in range(10)]


async def append(svc, number: int, *, keyed: bool = True) -> Ack:
    what = planned(PLAN, 0, number)
    appended = await svc.conversations.append_message(
        what.conversation, what.turn, tenant_id=TENANT,
        idempotency_key=what.key if keyed else None,
    )  # fmt: skip
    told = {name: getattr(appended, name) for name in ("first_seq", "last_seq", "round")}
    return Ack(writer=0, number=number, replayed=appended.replayed, **told)


async def judged(dsn, acks):
    return (await verdict.judge(dsn, PLAN, acks, 0)).failures


async def test_what_is_right_is_found_right(dsn, acks):
    judgement = await verdict.judge(dsn, PLAN, acks, 0)
    assert (judgement.acknowledged, judgement.failures) == (10, {})


@pytest.mark.damages
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (f"DELETE FROM asyncsvc.message WHERE {A_MESSAGE}", {"lost": 1, "gaps": 1}),
        (
            f"DELETE FROM asyncsvc.message WHERE {A_TURN}",
            {"lost": 1, "gaps": 2, "miscounted": 1, "misbooked": 1},
        ),
        (
            f"UPDATE asyncsvc.message SET seq = seq + 1000 WHERE {A_MESSAGE}",
            {"wrong_answers": 1, "gaps": 2},
        ),
        ("UPDATE asyncsvc.conversation SET round = round + 1 WHERE id = 'hot'", {"miscounted": 1}),
        ("UPDATE asyncsvc.conversation SET tokens = 7 WHERE id = 'hot'", {"miscounted": 1}),
        ("UPDATE asyncsvc.conversation SET last_seq = last_seq + 3 WHERE id = 'hot'", {"gaps": 3}),
        ("DELETE FROM asyncsvc.usage_ledger", {"misbooked": 10}),
    ],
)
async def test_damage_is_found(dsn, pool, acks, damage, found):
    assert await pool.execute(damage) not in {"DELETE 0", "UPDATE 0"}
    assert await judged(dsn, acks) == found


async def test_a_turn_that_happened_twice_is_found(svc, dsn, acks):
    await append(svc, 9, keyed=False)
    assert await judged(dsn, acks) == {
        "doubled": 1, "wrong_answers": 1, "miscounted": 1, "misbooked": 1
    }  # fmt: skip


async def test_wrong_answers_are_found(dsn, acks):
    first = acks[0].model_copy(update={"first_seq": 2})
    assert await judged(dsn, [first, *acks[1:]]) == {"wrong_answers": 1}
    assert await judged(dsn, [*acks[:-1], acks[-1].model_copy(update={"round": 99})]) == {
        "wrong_answers": 1
    }


async def test_what_nobody_was_told_of_is_found(dsn, acks):
    assert await judged(dsn, acks[:-1]) == {"unacknowledged": 1}


async def test_a_transaction_left_open_is_found(dsn, monkeypatch):
    monkeypatch.setattr(verdict, "_PATIENCE", 0.1)
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "writer/0/0"})
    try:
        assert await verdict.open_transactions(dsn, ["writer/0/0"]) == 0
        async with connection.transaction():
            assert await verdict.open_transactions(dsn, ["writer/0/0", "writer/1/0"]) == 1
            assert await verdict.open_transactions(dsn, ["writer/1/0"]) == 0
    finally:
        await connection.close()


def test_a_wrong_option_is_told():
    finished = subprocess.run(
        [*COMMAND, "--writers=0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 2
    assert "--writers" in finished.stderr
