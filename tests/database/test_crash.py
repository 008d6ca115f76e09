"""Short crash runs succeed, and the evaluation of a run detects damage.

A long run is `python -m benchmarks.reliability crash`, with and without `--client`.
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

from benchmarks.reliability import metered, verdict
from benchmarks.reliability.plan import TENANT, Ack, Plan, conversations, planned

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.reliability", "crash"]
PLAN = Plan(seed=1, address=Path("unused"))
A_TURN = "payload ->> 'key' = '0/0'"
A_MESSAGE = f"{A_TURN} AND payload ->> 'part' = '0'"


@pytest.mark.parametrize("options", [["--kills=2"], ["--kills=1", "--client"]], ids=" ".join)
def test_no_acknowledged_turn_is_lost_or_duplicated(options, tmp_path):
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
        # The postmaster, its workers and one backend per writer.
        assert report["processes_killed"] > 2 * (1 + 2)
    durable = {"fsync", "full_page_writes", "synchronous_commit"}
    assert {report["server"][name] for name in durable} == {"on"}


@pytest.fixture
def temporary_directory():
    """A directory that the server can read, also if root starts the server."""
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def test_an_interrupted_run_leaves_no_files_and_no_processes(temporary_directory):
    with subprocess.Popen(
        [*COMMAND, "--kills=1000", "--writers=2"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary_directory)},
    ) as command:  # fmt: skip
        give_up = time.monotonic() + 60
        while not list(temporary_directory.glob("*/writers.log")) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert processes_in(temporary_directory)
        command.send_signal(signal.SIGTERM)
        _, errors = command.communicate(timeout=120)
    assert (command.returncode, errors) == (128 + signal.SIGTERM, "")
    assert list(temporary_directory.iterdir()) == []
    assert processes_in(temporary_directory) == []


def processes_in(directory: Path) -> list[str]:
    """Return the command lines and working directories of processes that name the directory."""
    matches = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                texts = [(process / "cmdline").read_text(), str((process / "cwd").readlink())]
            except OSError:  # the process ended
                continue
            matches += [text for text in texts if str(directory) in text]
    return matches


@pytest.fixture
async def acks(svc):
    """The acknowledgements of a writer with 10 correctly stored turns."""
    await svc.conversations.create_many(conversations(), tenant_id=TENANT)
    await metered.set_budgets(svc)
    return [await append(svc, number) for number in range(10)]


async def append(svc, number: int, *, keyed: bool = True) -> Ack:
    turn = planned(PLAN, 0, number)
    appended = await svc.conversations.append_message(
        turn.conversation.id, turn.turn, tenant_id=TENANT,
        idempotency_key=turn.key if keyed else None,
    )  # fmt: skip
    result = {name: getattr(appended, name) for name in ("first_seq", "last_seq", "round")}
    return Ack(writer=0, number=number, replayed=appended.replayed, **result)


async def failures(dsn, acks):
    return (await verdict.evaluate(dsn, PLAN, acks, 0)).failures


async def test_correctly_stored_turns_have_no_failures(dsn, acks):
    evaluated = await verdict.evaluate(dsn, PLAN, acks, 0)
    assert (evaluated.acknowledged, evaluated.failures) == (10, {})


@pytest.mark.damages
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (f"DELETE FROM asyncsvc.message WHERE {A_MESSAGE}", {"lost": 1, "gaps": 1}),
        (
            f"DELETE FROM asyncsvc.message WHERE {A_TURN}",
            {"lost": 1, "gaps": 2, "wrong_counters": 1, "wrong_usage": 1},
        ),
        (
            f"UPDATE asyncsvc.message SET seq = seq + 1000 WHERE {A_MESSAGE}",
            {"wrong_results": 1, "gaps": 2},
        ),
        (
            "UPDATE asyncsvc.conversation SET round = round + 1 WHERE id = 'hot'",
            {"wrong_counters": 1},
        ),
        ("UPDATE asyncsvc.conversation SET tokens = 7 WHERE id = 'hot'", {"wrong_counters": 1}),
        ("UPDATE asyncsvc.conversation SET last_seq = last_seq + 3 WHERE id = 'hot'", {"gaps": 3}),
        ("DELETE FROM asyncsvc.usage_ledger", {"wrong_usage": 10}),
        ("UPDATE asyncsvc.usage_ledger SET cost = cost + 1", {"wrong_usage": 20}),
        ("UPDATE asyncsvc.usage_ledger SET model = 'x' WHERE model = 'small'", {"wrong_usage": 2}),
        (
            "UPDATE asyncsvc.usage_ledger SET token_id = 'x' WHERE token_id = 'app'",
            {"wrong_usage": 6},
        ),
        ("UPDATE asyncsvc.usage_ledger SET acting_user_id = 'x'", {"wrong_usage": 17}),
        ("UPDATE asyncsvc.budget SET since = now()", {"wrong_usage": 28}),
    ],
)
async def test_damage_is_detected(dsn, pool, acks, damage, expected):
    assert await pool.execute(damage) not in {"DELETE 0", "UPDATE 0"}
    assert await failures(dsn, acks) == expected


async def test_a_duplicated_turn_is_detected(svc, dsn, acks):
    await append(svc, 9, keyed=False)
    assert await failures(dsn, acks) == {
        "duplicated": 1, "wrong_results": 1, "wrong_counters": 1, "wrong_usage": 1
    }  # fmt: skip


async def test_wrong_acknowledgements_are_detected(dsn, acks):
    first = acks[0].model_copy(update={"first_seq": 2})
    assert await failures(dsn, [first, *acks[1:]]) == {"wrong_results": 1}
    last = acks[-1].model_copy(update={"round": 99})
    assert await failures(dsn, [*acks[:-1], last]) == {"wrong_results": 1}


async def test_a_turn_without_an_acknowledgement_is_detected(dsn, acks):
    assert await failures(dsn, acks[:-1]) == {"unacknowledged": 1}


async def test_an_open_transaction_is_detected(dsn, monkeypatch):
    monkeypatch.setattr(verdict, "_ROLLBACK_TIMEOUT", 0.1)
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "writer/0/0"})
    try:
        assert await verdict.open_transactions(dsn, ["writer/0/0"]) == 0
        async with connection.transaction():
            assert await verdict.open_transactions(dsn, ["writer/0/0", "writer/1/0"]) == 1
            assert await verdict.open_transactions(dsn, ["writer/1/0"]) == 0
    finally:
        await connection.close()


def test_an_invalid_number_of_writers_is_rejected():
    finished = subprocess.run(
        [*COMMAND, "--writers=0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 2
    assert "--writers" in finished.stderr
