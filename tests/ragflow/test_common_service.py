"""Tests of the methods that both services inherit from RAGFlow's `CommonService`."""

from typing import Any

import pytest

from asyncsvc import ragflow
from asyncsvc.errors import AlreadyExists, InvalidInput, NotFound
from tests.support.ragflow_rows import (
    AGENT,
    BETA,
    OTHER,
    SECRET,
    TENANT,
    exchange,
    prologue,
    quoted,
)

SECRETS = [SECRET[:-1] + digit for digit in "123"]


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"token": None},
        {"beta": None},
        {"token": None, "beta": None},
        {"tenant_id": None},
        {"tenant_id": TENANT, "token": None},
        {"tenant_id": TENANT, "beta": None},
        {"dialog_id": ""},
        {"dialog_id": None},
        {"token": SECRET, "beta": None},
        {"token": SECRET, "dialog_id": ""},
        {"token": SECRET, "dialog_id": None},
        {"token": ""},
        {"token": 5},
        {"token": []},
        {"beta": SECRET},
        {"source": ""},
    ],
    ids=str,
)
async def test_a_token_query_without_a_matching_filter_returns_no_row(tokens, filters):
    await tokens.save(token=SECRET, beta=BETA, dialog_id="d1", source="agent")
    assert await tokens.query(**filters) == []


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"dialog_id": None},
        {"dialog_id": ""},
        {"id": None},
        {"dialog_id": AGENT, "id": None},
        {"dialog_id": AGENT, "user_id": None},
        {"user_id": []},
        {"exp_user_id": ""},
    ],
    ids=str,
)
async def test_a_session_query_without_a_matching_filter_returns_no_row(sessions, filters):
    await sessions.save(**prologue(user_id=""))
    assert await sessions.query(**filters) == []


async def test_an_id_of_a_token_is_no_secret(tokens):
    await tokens.save(token=SECRET)
    (row,) = await tokens.query(token=SECRET)
    assert await tokens.query(token=row.token) == []
    assert (await tokens.get_by_id(row.token)) == (True, row)


async def test_a_token_and_a_beta_match_only_in_one_row(tokens):
    await tokens.save(token=SECRETS[0], beta=BETA)
    await tokens.save(token=SECRETS[1], beta="c" * 32)
    assert len(await tokens.query(token=SECRETS[0], beta=BETA)) == 1
    assert await tokens.query(token=SECRETS[1], beta=BETA) == []


async def test_a_query_by_a_list_matches_each_of_its_values(sessions, tokens):
    for number, dialog in enumerate(["d1", "d2", "d3"]):
        await sessions.save(**prologue(id=f"s{number}", dialog_id=dialog, user_id=f"u{number}"))
        await tokens.save(token=SECRETS[number], dialog_id=dialog)
    both = await sessions.query(dialog_id=["d1", "d3"])
    assert [each.id for each in both] == ["s0", "s2"]
    assert [each.id for each in await sessions.query(user_id={"u2", "u1"})] == ["s1", "s2"]
    dialogs = [each.dialog_id for each in await tokens.query(dialog_id=["d1", "d3"])]
    assert dialogs == ["d1", "d3"]
    assert len(await tokens.query(token=SECRETS[:2])) == 2


async def test_a_query_by_any_column_returns_the_columns_in_order(sessions):
    for number in range(3):
        await sessions.save(**prologue(id=f"s{number}", name=f"n{-number}", source="agent"))
    await sessions.save(**prologue(id="other", source="workflow", name="n"))
    rows = await sessions.query(["id", "name"], True, "name", source="agent")
    assert [each.to_dict() for each in rows] == [
        {"id": "s0", "name": "n0"},
        {"id": "s2", "name": "n-2"},
        {"id": "s1", "name": "n-1"},
    ]
    for wrong in ({"folder": "x"}, {"message": []}):
        with pytest.raises(InvalidInput):
            await sessions.query(**wrong)
    for order in ("folder", "dsl"):
        with pytest.raises(InvalidInput, match="order_by"):
            await sessions.query(None, True, order, dialog_id=AGENT)


async def test_an_order_has_missing_values_first(sessions):
    for id, title in (("s1", "b"), ("s2", None), ("s3", "a")):
        await sessions.save(**prologue(id=id, version_title=title))
    rows = await sessions.get_all(order_by="version_title")
    assert [each.id for each in rows] == ["s2", "s3", "s1"]


# ---------------------------------------------------------------- reads


async def test_get_all_returns_all_rows_of_the_tenant(svc, sessions, tokens):
    others = ragflow.API4ConversationService(svc, tenant_id=OTHER)
    await others.save(**prologue(id="foreign"))
    for number in range(3):
        await sessions.save(**prologue(id=f"s{number}", dialog_id=f"d{number}"))
        await tokens.save(token=SECRETS[number])
    assert [each.id for each in await sessions.get_all()] == ["s0", "s1", "s2"]
    assert [each.id for each in await sessions.get_all(["id"], True)] == ["s2", "s1", "s0"]
    assert len(await tokens.get_all()) == 3


async def test_get_returns_one_row_or_raises(sessions, tokens):
    await sessions.save(**prologue())
    await tokens.save(token=SECRET)
    assert (await sessions.get(id="s1")).id == "s1"
    assert (await tokens.get(token=SECRET)).hint == SECRET[:12]
    for service, filters in ((sessions, {"id": "none"}), (tokens, {"token": None})):
        assert await service.get_or_none(**filters) is None
        with pytest.raises(NotFound) as caught:
            await service.get(**filters)
        assert caught.value.resource in {"conversation", "token"}


async def test_a_scope_reads_more_values_than_one_of_its_lists(sessions):
    ids = [f"s{number:02}" for number in range(45)]
    await sessions.insert_many([prologue(id=id, name=id[-1]) for id in ids])
    rows = await sessions.filter_scope_list("id", [*ids, "none", ""])
    assert [each.id for each in rows] == ids
    column = ragflow.API4Conversation.name
    rows = await sessions.filter_scope_list("id", ids, [column == "7"], ["id"])
    assert [each.to_dict() for each in rows] == [{"id": id} for id in ("s07", "s17", "s27", "s37")]
    assert await sessions.filter_scope_list("dialog_id", []) == []


def test_cut_list_returns_tuples():
    assert ragflow.CommonService.cut_list(list(range(5)), 2) == [(0, 1), (2, 3), (4,)]
    assert ragflow.CommonService.cut_list([], 2) == []


async def test_tokens_are_read_changed_and_revoked_by_their_ids(tokens):
    for number in range(3):
        await tokens.save(token=SECRETS[number], beta=str(number) * 32)
    rows = await tokens.get_all()
    ids = [each.token for each in rows]
    assert await tokens.get_by_ids([ids[1], "none", ids[0]]) == [rows[1], rows[0]]
    assert await tokens.update_by_id(ids[0], {"dialog_id": "d1"}) == 1
    assert await tokens.update_by_id("none", {"dialog_id": "d1"}) == 0
    await tokens.update_many_by_id([{"id": id, "source": "agent"} for id in ids])
    assert [each.source for each in await tokens.query(beta=["0" * 32, "2" * 32])] == ["agent"] * 2
    column = ragflow.APIToken
    assert await tokens.filter_delete([column.source == "agent", column.dialog_id == "d1"]) == 1
    assert await tokens.delete_by_ids([ids[0], ids[1], "none"]) == 1
    assert await tokens.delete_by_id(ids[2]) == 1
    assert await tokens.get_all() == []
    assert await tokens.get_by_ids(ids) == []


# ---------------------------------------------------------------- writes


async def test_insert_many_stores_all_rows_or_none(sessions, tokens):
    rows: list[dict[str, Any]] = [
        prologue(id=f"s{number}", message=exchange("m", "?"), reference=[quoted(number)])
        for number in range(5)
    ]
    await sessions.insert_many(rows, batch_size=2)
    stored = await sessions.get_by_ids([row["id"] for row in rows])
    assert [each.reference for each in stored] == [row["reference"] for row in rows]
    with pytest.raises(AlreadyExists):
        await sessions.insert_many([prologue(id="new"), prologue(id="s4")], 1)
    assert await sessions.get_by_id("new") == (False, None)
    await tokens.insert_many([{"token": secret, "beta": secret[-1] * 32} for secret in SECRETS])
    assert {each.beta for each in await tokens.get_all()} == {"1111", "2222", "3333"}
    for wrong in (None, [None], [5]):
        with pytest.raises(InvalidInput):
            await sessions.insert_many(wrong)


async def test_rows_of_another_tenant_are_neither_read_nor_changed(svc, sessions, tokens):
    await sessions.save(**prologue())
    await tokens.save(token=SECRET)
    (token,) = await tokens.get_all()
    foreign = ragflow.API4ConversationService(svc, tenant_id=OTHER)
    assert await foreign.get_all() == []
    assert await foreign.filter_scope_list("id", ["s1"]) == []
    assert await foreign.filter_delete([ragflow.API4Conversation.user_id == "u1"]) == 0
    strange = ragflow.APITokenService(tokens._svc, tenant_id=OTHER)
    assert await strange.get_by_ids([token.token]) == []
    assert await strange.update_by_id(token.token, {"source": "x"}) == 0
    assert await strange.delete_by_id(token.token) == 0
    assert await tokens.get_all() == [token]
