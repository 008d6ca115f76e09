"""Records: owners, pages, limits, concurrent writes, erasure and deletion of their tenant."""

import asyncio

import pytest

import asyncsvc
from asyncsvc import ANY, AlreadyExists, InvalidInput, NotFound, Settings
from tests.support.registry.counting import until_blocked

AT = {"tenant_id": "acme"}


async def keys(svc, kind="k", **more):
    page = await svc.records.list(kind, **AT | more)
    return [record.id for record in page.items]


async def test_put_creates_a_record_and_replaces_its_data(svc):
    created = await svc.records.put("k", "a", {"n": 1, "deep": {"x": [None]}}, **AT)
    assert (created.kind, created.id, created.user_id) == ("k", "a", "")
    assert created.data == {"n": 1, "deep": {"x": [None]}}
    assert created.created_at == created.updated_at
    replaced = await svc.records.put("k", "a", {"m": 2}, **AT)
    assert replaced.data == {"m": 2}
    assert replaced.created_at == created.created_at
    assert replaced.updated_at > created.updated_at
    assert await svc.records.get("k", "a", **AT) == replaced


async def test_a_record_is_addressed_by_its_kind_and_id(svc):
    for kind in ("k", "l"):
        for id in ("a", "b"):
            await svc.records.put(kind, id, {"is": kind + id}, **AT)
    assert (await svc.records.get("l", "a", **AT)).data == {"is": "la"}
    assert await svc.records.delete("l", "a", **AT) == 1
    assert await svc.records.delete("l", "a", **AT) == 0
    assert (await keys(svc, "k"), await keys(svc, "l")) == (["a", "b"], ["b"])
    with pytest.raises(NotFound) as caught:
        await svc.records.get("l", "a", **AT)
    assert caught.value.resource == "record"


async def test_get_many_returns_the_order_of_the_ids(svc):
    for id in "abc":
        await svc.records.put("k", id, {}, **AT)
    records = await svc.records.get_many("k", ["c", "absent", "a", "c"], **AT)
    assert [record.id for record in records] == ["c", "a", "c"]
    assert await svc.records.get_many("k", [], **AT) == []


# ---------------------------------------------------------------- owners


async def test_a_new_record_belongs_to_the_user_and_keeps_its_owner(svc):
    assert (await svc.records.put("k", "a", {}, **AT, user_id="ann")).user_id == "ann"
    assert (await svc.records.put("k", "a", {"n": 1}, **AT)).user_id == "ann"
    assert (await svc.records.put("k", "none", {}, **AT)).user_id == ""


async def test_a_record_of_another_user_behaves_like_an_absent_one(svc):
    await svc.records.put("k", "a", {"of": "ann"}, **AT, user_id="ann")
    for user_id in ("bob", ""):
        bob = AT | {"user_id": user_id}
        with pytest.raises(NotFound):
            await svc.records.get("k", "a", **bob)
        with pytest.raises(AlreadyExists):
            await svc.records.put("k", "a", {"of": "bob"}, **bob)
        assert await svc.records.get_many("k", ["a"], **bob) == []
        assert await keys(svc, user_id=user_id) == []
        assert await svc.records.delete("k", "a", **bob) == 0
    ann = await svc.records.get("k", "a", **AT, user_id="ann")
    assert ann.data == {"of": "ann"}
    assert await svc.records.delete("k", "a", **AT, user_id="ann") == 1


async def test_32_users_that_put_one_id_at_once_leave_one_owner(svc):
    async def put(user_id):
        try:
            return (await svc.records.put("k", "a", {"of": user_id}, **AT, user_id=user_id)).user_id
        except AlreadyExists:
            return None

    owners = {owner for owner in await asyncio.gather(*(put(f"u{n}") for n in range(32))) if owner}
    record = await svc.records.get("k", "a", **AT)
    assert owners == {record.user_id}
    assert record.data == {"of": record.user_id}


# ---------------------------------------------------------------- merges


async def test_merge_sets_and_removes_members(svc):
    created = await svc.records.merge("k", "a", {"n": 1, "none": None, "o": {"x": 1}}, **AT)
    assert created.data == {"n": 1, "o": {"x": 1}}
    changed = await svc.records.merge("k", "a", {"n": None, "o": {"y": [None]}, "s": "é"}, **AT)
    assert changed.data == {"o": {"x": 1, "y": [None]}, "s": "é"}
    assert (changed.created_at, changed.user_id) == (created.created_at, "")
    assert changed.updated_at > created.updated_at
    assert await svc.records.get("k", "a", **AT) == changed


async def test_32_merges_of_different_members_at_once_keep_all(svc):
    await asyncio.gather(
        *(svc.records.merge("k", "a", {"of": {f"m{n}": n}}, **AT) for n in range(32))
    )
    assert (await svc.records.get("k", "a", **AT)).data == {"of": {f"m{n}": n for n in range(32)}}


async def test_merge_respects_the_owner(svc):
    await svc.records.merge("k", "a", {"n": 1}, **AT, user_id="ann")
    for user_id in ("bob", ""):
        with pytest.raises(AlreadyExists):
            await svc.records.merge("k", "a", {"n": 2}, **AT, user_id=user_id)
    merged = await svc.records.merge("k", "a", {"m": 3}, **AT)
    assert (merged.user_id, merged.data) == ("ann", {"n": 1, "m": 3})


@pytest.mark.parametrize("owner", [{}, {"user_id": "ann"}])
async def test_a_merge_beyond_the_limit_stores_nothing(dsn, owner):
    async with asyncsvc.connect(dsn, settings=Settings(max_json_bytes=100)) as svc:
        before = await svc.records.put("k", "a", {"a": "ä" * 44}, **AT, **owner)
        with pytest.raises(InvalidInput) as caught:
            await svc.records.merge("k", "a", {"b": "x"}, **AT, **owner)
        assert caught.value.field == "patch"
        assert await svc.records.get("k", "a", **AT) == before
        await svc.records.merge("k", "a", {"a": None, "b": "x" * 70}, **AT, **owner)


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize("user_id", [ANY, "", "ann"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
async def test_pages_neither_overlap_nor_skip_a_record(svc, user_id, limit):
    owner = "" if user_id is ANY else user_id
    ids = ["A", "B", "a", "aa", "b", "z", "ä"]  # in the order of their bytes
    for id in reversed(ids):
        await svc.records.put("k", id, {}, **AT, user_id=owner)
        await svc.records.put("k", id + "other", {}, tenant_id="other", user_id=owner)
        await svc.records.put("j", id + "j", {}, **AT, user_id=owner)
        await svc.records.put("l", id + "l", {}, **AT, user_id=owner)
    if user_id is not ANY:
        await svc.records.put("k", "bob's", {}, **AT, user_id="bob")
    read, after = [], None
    while True:
        page = await svc.records.list("k", **AT, user_id=user_id, limit=limit, after=after)
        assert page.total is None
        assert len(page.items) <= limit
        read += [record.id for record in page.items]
        after = page.next
        if after is None:
            break
    assert read == ids


async def test_a_cursor_belongs_to_its_conditions(svc):
    for id in "abc":
        await svc.records.put("k", id, {}, **AT)
    cursor = (await svc.records.list("k", **AT, limit=1)).next
    assert await keys(svc, after=cursor) == ["b", "c"]
    for more in ({"kind": "l"}, {"tenant_id": "other"}, {"user_id": ""}):
        with pytest.raises(InvalidInput) as caught:
            await svc.records.list(**{"kind": "k", "after": cursor} | AT | more)
        assert caught.value.field == "after"


# ---------------------------------------------------------------- limits and times


async def test_data_beyond_a_limit_is_rejected_by_its_name(dsn):
    settings = Settings(max_json_bytes=100, max_json_depth=3)
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        for data in ({"a": "x" * 100}, {"a": {"b": {"c": {}}}}):
            with pytest.raises(InvalidInput) as caught:
                await svc.records.put("k", "a", data, **AT)
            assert caught.value.field == "data"
        await svc.records.put("k", "a", {"a": {"b": {}}}, **AT)


async def test_large_data_is_returned_unchanged(svc):
    data = {"text": ["ä" * 1_000] * 200, "numbers": list(range(20_000))}
    assert (await svc.records.put("k", "a", data, **AT)).data == data
    await svc.records.put("k", "b", data, **AT)
    assert [each.data for each in (await svc.records.list("k", **AT)).items] == [data, data]


async def test_updated_at_never_decreases(svc):
    """A statement that began first and writes last does not move the time back."""
    async with svc.transaction() as tx:
        await tx.records.put("k", "a", {}, **AT)
        waiting = asyncio.create_task(svc.records.put("k", "a", {"last": True}, **AT))
        await until_blocked(svc)
        first = await tx.records.put("k", "a", {}, **AT)
    last = await waiting
    assert last.data == {"last": True}
    assert last.updated_at >= first.updated_at


async def test_a_transaction_over_all_services_rolls_records_back(svc):
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await tx.conversations.create(**AT, dialog_id="d", id="c")
            await tx.records.put("k", "a", {}, **AT)
            raise ZeroDivisionError
    assert await keys(svc) == []


# ---------------------------------------------------------------- erasure


async def test_erase_user_deletes_the_records_of_the_person(svc):
    for number in range(250):
        await svc.records.put(f"k{number % 3}", f"{number}", {}, **AT, user_id="ann")
    await svc.records.put("k", "bob's", {}, **AT, user_id="bob")
    await svc.records.put("k", "of none", {"about": "ann"}, **AT)
    await svc.records.put("k", "other", {}, tenant_id="other", user_id="ann")
    await svc.conversations.create(**AT, dialog_id="d", user_id="ann")
    reports = []
    receipt = await svc.conversations.erase_user("ann", **AT, on_batch=reports.append)
    assert (receipt.conversations, receipt.records) == (1, 250)
    assert [report.records for report in reports] == [100, 200, 250]
    assert await keys(svc) == ["bob's", "of none"]
    assert await keys(svc, tenant_id="other") == ["other"]
    for number in range(3):
        assert await keys(svc, f"k{number}") == []
    assert (await svc.conversations.erase_user("ann", **AT)).records == 0


async def test_a_person_with_records_alone_is_erased(svc):
    await svc.records.put("k", "a", {}, **AT, user_id="ann")
    receipt = await svc.conversations.erase_user("ann", **AT)
    assert (receipt.conversations, receipt.records) == (0, 1)


async def test_delete_tenant_deletes_all_records(svc):
    for number in range(120):
        await svc.records.put("k", f"{number}", {}, **AT, user_id=f"u{number % 2}")
    await svc.records.put("k", "other", {}, tenant_id="other")
    receipt = await svc.conversations.delete_tenant(**AT)
    assert (receipt.records, receipt.conversations) == (120, 0)
    assert await keys(svc, limit=1_000) == []
    assert await keys(svc, tenant_id="other") == ["other"]


async def test_two_erasures_of_one_person_at_once_delete_each_record_once(svc):
    for number in range(300):
        await svc.records.put("k", f"{number}", {}, **AT, user_id="ann")
    receipts = await asyncio.gather(
        *(svc.conversations.erase_user("ann", **AT) for _ in range(3)),
        *(svc.records.put("k", f"new {number}", {}, **AT, user_id="bob") for number in range(9)),
    )
    assert sum(receipt.records for receipt in receipts[:3]) == 300
    assert len(await keys(svc)) == 9


async def test_records_are_in_no_statistic(svc):
    await svc.conversations.create(**AT, dialog_id="d", user_id="ann")
    for number in range(3):
        await svc.records.put("k", f"{number}", {}, **AT, user_id="ann")
    assert (await svc.conversations.get_list(**AT)).total == 1
    ever = {"from_date": "2020-01-01", "to_date": "2030-01-01", "interval": "month", "fill": False}
    (bucket,) = await svc.conversations.stats(**AT, **ever)
    assert (bucket.conversations, bucket.users) == (1, 1)
    assert len([each async for each in svc.conversations.export(**AT)]) == 1
