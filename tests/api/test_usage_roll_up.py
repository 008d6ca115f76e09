"""Statistics equal a recount at any moment, during changes and roll-ups.

By default a run has few operations. For a long run: ASYNCSVC_MODEL_EXAMPLES=200.
"""

from asyncsvc.services import conversation_import
from asyncsvc.services import usage as usage_service
from tests.models.comparison import LONG_RUN
from tests.support.usage_run.run import run

OPERATIONS = int(LONG_RUN) * 100 if LONG_RUN else 4_000
"""Each mutated statement of `test_usage_mutations` is detected within 30 to 700 operations."""


async def test_statistics_equal_a_recount_during_changes_and_roll_ups(dsn, monkeypatch):
    monkeypatch.setattr(conversation_import, "_FAST_LEDGER", 1)  # each import rolls up
    monkeypatch.setattr(usage_service, "_MIN_RECOUNT", 1)  # some roll-ups are recounts
    world = await run(dsn, OPERATIONS, seed=1)
    assert not world.wrong, world.wrong[:5]
    assert world.checks > 500
    assert world.roll_ups > 10
    assert world.kills > 10
