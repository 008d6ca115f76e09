"""`import_(update=True)`: the effects of a later export of a stored conversation."""

from datetime import UTC, datetime, timedelta

import pytest

from asyncsvc import AlreadyExists, ImportReport

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def export(*ids: str, name: str = "n", **more: object) -> dict[str, object]:
    """A record whose messages have these ids; odd ones are questions."""
    messages = [
        {
            "role": "user" if at % 2 == 0 else "assistant", "content": f"text {id}",
            "payload": {"id": id}, "created_at": NOW + timedelta(minutes=at),
        }
        for at, id in enumerate(ids)
    ]  # fmt: skip
    return {
        "id": "a", "dialog_id": "d", "name": name, "source": "chatgpt", "messages": messages,
    } | more  # fmt: skip


async def update(svc, *records: dict[str, object], **options: object) -> ImportReport:
    return await svc.conversations.import_(records, tenant_id="t", update=True, **options)


async def stored(svc):
    return await svc.conversations.get_by_id("a", tenant_id="t", include_messages=True)


async def test_an_equal_export_changes_nothing(svc):
    await update(svc, export("1", "2"))
    before = await stored(svc)
    assert await update(svc, export("1", "2")) == ImportReport(present=1)
    assert await stored(svc) == before


async def test_new_messages_are_appended_with_their_times(svc):
    await update(svc, export("1", "2", tokens=5))
    later = export("1", "2", "3", "4", tokens=9, metadata={"k": 1}, name="new")
    later["messages"][3]["thumb"] = 1
    report = await update(svc, later)
    assert report == ImportReport(grown=1, messages_appended=2)
    now = await stored(svc)
    assert [(each.seq, each.payload["id"]) for each in now.messages] == [
        (1, "1"), (2, "2"), (3, "3"), (4, "4"),
    ]  # fmt: skip
    assert now.messages[3].created_at == now.updated_at == NOW + timedelta(minutes=3)
    assert (now.name, now.round, now.tokens, now.thumb_up, now.last_seq) == ("new", 2, 9, 1, 4)
    assert now.metadata == {"k": 1}
    assert await update(svc, later) == ImportReport(present=1)
    assert [hit.id for hit in (await svc.conversations.search("text 4", tenant_id="t")).items]


async def test_an_older_export_changes_nothing(svc):
    await update(svc, export("1", "2", "3", "4"))
    before = await stored(svc)
    assert await update(svc, export("1", "2", name="old")) == ImportReport(present=1, older=1)
    assert await stored(svc) == before


async def test_a_newer_name_is_stored(svc):
    await update(svc, export("1", "2", metadata={"x": 1}))
    report = await update(svc, export("1", "2", name="new", metadata={"y": 2}))
    assert report == ImportReport(present=1, renamed=1)
    now = await stored(svc)
    assert (now.name, now.metadata) == ("new", {"x": 1, "y": 2})
    await update(svc, export("1", "2", name="older", updated_at=NOW - timedelta(days=1)))
    assert (await stored(svc)).name == "new"


async def test_another_branch_replaces_the_imported_end(svc):
    first = export("1", "2", "3", "4")
    first["messages"][3]["thumb"] = -1
    await update(svc, first)
    report = await update(svc, export("1", "b2"))
    assert report == ImportReport(rewritten=1, messages_appended=1, messages_replaced=3)
    now = await stored(svc)
    assert [(each.seq, each.content) for each in now.messages] == [(1, "text 1"), (5, "text b2")]
    assert (now.round, now.thumb_down, now.last_seq) == (1, 0, 5)
    assert await update(svc, export("1", "b2")) == ImportReport(present=1)


async def test_messages_of_the_application_are_never_replaced(svc):
    await update(svc, export("1", "2"))
    turn = {"messages": [{"role": "user", "content": "written here"}]}
    await svc.conversations.append_message("a", turn, tenant_id="t")
    before = await stored(svc)
    assert await update(svc, export("1", "2")) == ImportReport(present=1, older=1)
    rejected = []
    report = await update(
        svc, export("1", "2", "3"), on_rejected=lambda *each: rejected.append(each)
    )
    assert report == ImportReport(rejected=1, diverged=1)
    ((index, error),) = rejected
    assert (index, type(error)) == (0, AlreadyExists)
    with pytest.raises(AlreadyExists):
        await update(svc, export("1", "2", "3"))
    assert await stored(svc) == before


async def test_appended_messages_with_an_id_are_never_replaced(svc):
    """An application may store ids of its own, as RAGFlow does."""
    await update(svc, export("1", "2"))
    question = {"role": "user", "content": "written here", "payload": {"id": "own"}}
    await svc.conversations.append_message("a", {"messages": [question]}, tenant_id="t")
    before = await stored(svc)
    rejected = []
    report = await update(
        svc, export("1", "2", "3"), on_rejected=lambda *each: rejected.append(each)
    )
    assert (report, len(rejected)) == (ImportReport(rejected=1, diverged=1), 1)
    assert await stored(svc) == before


async def test_messages_of_another_source_are_never_replaced(svc):
    await update(svc, export("1", "2"))
    with pytest.raises(AlreadyExists):
        await update(svc, export("1", "b2", source="claude"))


async def test_without_ids_the_texts_are_compared(svc):
    def plain(*texts: str) -> dict[str, object]:
        messages = [{"role": "user", "content": each} for each in texts]
        return {"id": "a", "dialog_id": "d", "messages": messages}

    await update(svc, plain("x", "y"))
    assert await update(svc, plain("x", "y", "z")) == ImportReport(grown=1, messages_appended=1)
    with pytest.raises(AlreadyExists):
        await update(svc, plain("x", "other"))


async def test_a_conversation_in_two_records_of_a_batch_is_one(svc):
    report = await update(svc, export("1", "2"), export("1", "2", "3"), export("1"))
    assert report == ImportReport(
        conversations=1, messages=2, grown=1, messages_appended=1, present=1, older=1
    )


async def test_the_usage_equals_that_of_one_import(svc):
    await update(svc, export("1", "2", tokens=5))
    await update(svc, export("1", "2", "3", "4", tokens=9))
    await svc.maintain()
    (bucket,) = [
        each for each in await svc.conversations.stats(
            tenant_id="t", from_date="2026-05-01", to_date="2026-05-01", basis="activity"
        ) if each.round
    ]  # fmt: skip
    assert (bucket.round, bucket.tokens) == (2, 9)
