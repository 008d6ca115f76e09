"""`Settings.unstorable_text`: NUL characters and lone surrogates, rejected or replaced."""

import pytest

import asyncsvc
from asyncsvc import InvalidInput, Settings

BAD = ["a\x00b", "cut \ud83d", "\ude00\ud83d"]
GOOD = ["a\ufffdb", "cut \ufffd", "\ufffd\ufffd"]
PAIRS = list(zip(BAD, GOOD, strict=True))


@pytest.fixture
async def replacing(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(unstorable_text="replace")) as svc:
        yield svc


def turn(text: str) -> dict[str, object]:
    payload = {"out": [text], f"key {text}": 1}
    return {"messages": [{"role": "tool", "content": text, "payload": payload, "reference": text}]}


async def test_a_turn_is_rejected_by_default(svc):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    for text in BAD:
        for message in (
            {"role": "u", "content": text},
            {"role": "u", "content": "", "payload": {"x": text}},
            {"role": "u", "content": "", "payload": {text: 1}},
        ):
            with pytest.raises(InvalidInput, match="must not contain"):
                await svc.conversations.append_message("a", {"messages": [message]}, tenant_id="t")


@pytest.mark.parametrize(("bad", "good"), PAIRS)
async def test_replaces_in_content_names_and_json(replacing, bad, good):
    await replacing.conversations.create(
        tenant_id="t", dialog_id="d", id="a", name=bad, metadata={"k": bad}, dsl=[bad]
    )
    await replacing.conversations.append_message("a", turn(bad) | {"errors": bad}, tenant_id="t")
    stored = await replacing.conversations.get_by_id("a", tenant_id="t", include_messages=True)
    assert (stored.name, stored.metadata, stored.dsl, stored.errors) == (
        good, {"k": good}, [good], good,
    )  # fmt: skip
    (message,) = stored.messages
    assert (message.content, message.reference) == (good, good)
    assert message.payload == {"out": [good], f"key {good}": 1}


@pytest.mark.parametrize(("bad", "good"), PAIRS)
async def test_replaces_in_merges_records_and_filters(replacing, bad, good):
    await replacing.conversations.create(tenant_id="t", dialog_id="d", id="a")
    patch = {"merge_metadata": {bad: bad}}
    await replacing.conversations.update_by_id("a", patch, tenant_id="t")
    merged = await replacing.records.merge("kind", "1", {bad: bad}, tenant_id="t")
    assert merged.data == {good: good}
    for keywords in ("", "a"):
        page = await replacing.conversations.get_list(
            tenant_id="t", metadata={bad: bad}, keywords=keywords
        )
        assert [item.metadata for item in page.items] == [{good: good}]


async def test_ids_are_rejected_in_either_case(replacing):
    with pytest.raises(InvalidInput):
        await replacing.conversations.create(tenant_id="t", dialog_id="d", id="a\x00")


async def test_keys_that_become_equal_keep_their_values(replacing):
    metadata = {"a\x00": 1, "a\ud800": 2} | {"a\ufffd": 3}
    created = await replacing.conversations.create(tenant_id="t", dialog_id="d", metadata=metadata)
    assert sorted(created.metadata.values()) == [1, 2, 3]
    assert created.metadata["a\ufffd"] == 3


async def test_an_import_counts_the_replaced_characters(replacing):
    records = [
        {"id": f"{at}", "dialog_id": "d", "name": bad, **turn(bad)} for at, bad in enumerate(BAD)
    ]
    rejected = {"id": "", "dialog_id": "d", "name": "\x00", "messages": []}
    report = await replacing.conversations.import_(
        [*records, rejected], tenant_id="t", on_rejected=lambda *_: None
    )
    assert (report.conversations, report.rejected) == (3, 1)
    assert report.replaced_characters == (1 + 1 + 2) * 5
    again = await replacing.conversations.import_(records, tenant_id="t")
    assert again.present == 3


async def test_json_that_is_too_deep_is_rejected(replacing):
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="levels deep"):
        await replacing.conversations.create(tenant_id="t", dialog_id="d", dsl=deep)


async def test_a_turn_of_replaced_text_can_be_repeated(replacing):
    await replacing.conversations.create(tenant_id="t", dialog_id="d", id="a")
    for replayed in (False, True):
        appended = await replacing.conversations.append_message(
            "a", turn("x\x00"), tenant_id="t", idempotency_key="k"
        )
        assert appended.replayed is replayed
