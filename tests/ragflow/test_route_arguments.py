"""Arguments from RAGFlow's routes: a value that matches no row is not an error."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import asyncsvc
from asyncsvc import Settings, ragflow
from asyncsvc.errors import InvalidInput
from tests.support.ragflow_rows import AGENT, SECRET, TENANT, prologue

ODD_IDS: list[Any] = ["", "x" * 129, "x" * 100_000, "\x00", "a\x00b", "\ud800", None, 5, 1.5, True,
                      [], [5], {}, {"id": "s1"}, b"s1"]  # fmt: skip


def shown(id: Any) -> str:
    return ascii(id)[:20]


@pytest.fixture
async def stored(sessions, tokens):
    await sessions.save(**prologue(exp_user_id="e1"))
    await tokens.save(token=SECRET)
    return sessions


@pytest.mark.parametrize("id", ODD_IDS, ids=shown)
async def test_an_odd_id_matches_no_row(stored, tokens, id):
    for service in (stored, tokens):
        assert await service.get_by_id(id) == (False, None)
        assert await service.get_by_ids([id]) == []
        assert await service.delete_by_id(id) == 0
        assert await service.delete_by_ids([id]) == 0
        assert await service.update_by_id(id, {"source": "x"}) == 0
        assert await service.query(dialog_id=id) == []
        assert await service.filter_scope_list("dialog_id", [id]) == []
    assert await stored.query(id=id) == []
    assert await stored.query(id=id, dialog_id=AGENT) == []
    assert await stored.query(dialog_id=AGENT, user_id=id) == []
    assert await stored.append_message(id, prologue()) == 0
    assert await stored.get_names(id, "e1") == []
    assert await stored.get_names(AGENT, id) == []
    assert await stored.delete_by_dialog_ids([id]) == 0
    assert await stored.get_list(id, TENANT, 1, 9, "create_time", True) == (0, [])
    assert await tokens.used(id) == 0
    assert await tokens.query(token=id) == []
    assert await tokens.query(beta=id) == []
    if id is not None:
        assert await tokens.filter_delete([ragflow.APIToken.token == id]) == 0
    assert (await stored.get_by_id("s1"))[0]
    assert len(await tokens.query(token=SECRET)) == 1


@pytest.mark.parametrize("name", ["id", "user_id", "exp_user_id"])
@pytest.mark.parametrize("value", ["x" * 129, "x" * 200 + "\ud800", "\x00", 5, ["s1"]], ids=shown)
async def test_an_odd_filter_of_a_list_matches_no_row(stored, name, value):
    answer = await stored.get_list(AGENT, TENANT, 1, 9, "name", True, **{name: value})
    assert answer == (0, [])


@pytest.mark.parametrize("orderby", ["create_time", "update_time"])
async def test_a_period_that_ends_before_it_starts_is_empty(stored, orderby):
    today = datetime.now(UTC).date()
    tomorrow = today + timedelta(days=1)
    for since, until in (
        (f"{tomorrow}", f"{today}"),
        (f"{today} 12:00:00", f"{today} 11:59:59"),
        ("2026-03-02T10:00:00Z", "2026-03-02"),
        ("9000-01-01", "1000-01-01"),
    ):
        listed = await stored.get_list(
            AGENT, TENANT, 1, 9, orderby, True, from_date=since, to_date=until
        )
        assert listed == (0, [])
        assert await stored.stats(TENANT, since, until) == []
    with pytest.raises(InvalidInput):
        await stored.get_list(AGENT, TENANT, 1, 9, orderby, True, from_date="soon")


async def test_long_and_odd_keywords_are_searched_without_an_error(sessions):
    text = "".join(f"word {number} " for number in range(600))
    await sessions.save(**prologue(message=[{"role": "user", "content": text}]))
    for keywords, total in (
        (text[:4_000], 1),
        (text, 1),
        ("z" * 4_000, 0),
        ("word\x00", 0),
        ("\ud800", 0),
        ("z" * 600 + "\ud800", 0),
        (" ", 1),
    ):
        answer = await sessions.get_list(AGENT, TENANT, 1, 9, "name", True, keywords=keywords)
        assert (answer[0], len(answer[1])) == (total, total)


@pytest.mark.parametrize("page", [2, 10**6, 10**9, 10**30])
async def test_a_page_after_the_last_has_the_total_and_no_rows(stored, page):
    for keywords in ("", "Hello"):
        answer = await stored.get_list(
            AGENT, TENANT, page, 30, "update_time", True, keywords=keywords
        )
        assert answer == (1, [])


async def test_lists_of_ids_may_be_longer_than_a_batch(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(max_batch_size=2)) as svc:
        sessions = ragflow.API4ConversationService(svc, tenant_id=TENANT)
        ids = [f"s{number}" for number in range(5)]
        await sessions.insert_many([prologue(id=id) for id in ids])
        assert [each.id for each in await sessions.get_by_ids(ids)] == ids
        assert await sessions.delete_by_ids(ids) == 5
