"""The run of `test_usage_roll_up` detects statements without a necessary part."""

import contextlib

import pytest

from asyncsvc.database import sql_files
from tests.support.usage_run.run import run

TRIES = 5
"""The number of runs with a mutated statement. The order of tasks is random, so a run may pass."""

COUNTERS = "c.source, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down"
MUTATIONS = {
    "two roll-ups share the rows of a tenant": (
        "usage/roll_up",
        (
            ("       FOR UPDATE SKIP LOCKED\n", ""),
            ("     USING locked AS l\n     WHERE u.tenant_id = l.tenant_id\n",
             ("     WHERE u.ctid IN (SELECT l.ctid FROM asyncsvc.usage_ledger AS l"
             " WHERE l.tenant_id = :tenant_id ORDER BY random() LIMIT 50 FOR UPDATE"
             " SKIP LOCKED)\n")),
        ),
    ),
    "a roll-up ignores the change when it looks for other rows of a user": (
        "usage/roll_up", (("           OFFSET greatest(u.conversations, 0))", "           )"),)
    ),
    "a roll-up replaces the usage of a budget": (
        "usage/roll_up", (("SET used = u.used + excluded.used", "SET used = excluded.used"),)
    ),
    "a roll-up counts all usage as that of no model": (
        "usage/roll_up",
        (("d.user_id) AS user_id, d.model,", "d.user_id) AS user_id, NULL AS model,"),
         ("d.user_id),\n              d.model,", "d.user_id),\n              ")),
    ),
    "statistics ignore a change when they look for other rows of a user": (
        "usage/creation_stats",
        (("           OFFSET greatest(u.conversations, 0))", "           )"),),
    ),
    "statistics do not read the ledger": (
        "usage/creation_stats",
        (("     WHERE u.tenant_id = :tenant_id\n       AND u.dialog_id",
          "     WHERE u.tenant_id = :tenant_id AND false\n       AND u.dialog_id"),),
    ),
    "a total does not read the ledger": (
        "conversation/get_list", (("AND u.dialog_id = :dialog_id ",
                                   "AND u.dialog_id = :dialog_id AND false "),)
    ),
    "a deletion records counters that it read before its lock": (
        "conversation/delete",
        (("               FOR UPDATE\n               SKIP LOCKED", "               -- SKIP LOCKED"),
         ("c.source, c.user_id, c.created_at, c.round, c.tokens,\n",
          "l.source, l.user_id, l.created_at, l.round, l.tokens,\n"),
         ("c.duration, c.thumb_up, c.thumb_down, l.m", "l.duration, l.thumb_up, l.thumb_down, l.m"),
         ("MATERIALIZED (\n    SELECT ", f"MATERIALIZED (\n    SELECT {COUNTERS}, "),
         ("LATERAL (\n            SELECT ", f"LATERAL (\n            SELECT {COUNTERS}, ")),
    ),
    "a move records counters that it read before its lock": (
        "conversation/update_many_by_id", (("               FOR NO KEY UPDATE\n", ""),)
    ),
}  # fmt: skip


@pytest.mark.damages
@pytest.mark.parametrize("name", MUTATIONS)
async def test_the_test_detects_a_statement_without_a_necessary_part(
    database_factory, monkeypatch, name
):
    """`test_usage_roll_up` fails if a necessary part of a statement is removed."""
    file, changes = MUTATIONS[name]
    source = (sql_files.root() / f"{file}.sql").read_text(encoding="utf-8")
    for before, after in changes:
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    mutant, load = sql_files.Statement(file, source), sql_files.load
    monkeypatch.setattr(sql_files, "load", lambda it: mutant if it == file else load(it))
    for seed in range(2, 2 + TRIES):
        if await is_detected(await database_factory(), seed):
            return
    pytest.fail(f"not detected in {TRIES} runs")


async def is_detected(dsn: str, seed: int) -> bool:
    wrong = ["the run did not finish"]
    with contextlib.suppress(ExceptionGroup):  # for example a deadlock
        wrong = (await run(dsn, 4_000, seed)).wrong
    return bool(wrong)
