"""The registry of public methods is complete. A failure prints the missing entry and its file."""

import dataclasses
from collections.abc import Iterator

import pytest

import asyncsvc
from asyncsvc.models import (
    ConversationPatch,
    ConversationRecord,
    Message,
    MessagePatch,
    MessageRecord,
    NewConversation,
    TokenPatch,
    TokenRecord,
    Turn,
    Usage,
    UsageAdjustment,
)
from benchmarks.reliability.operations import all_calls
from tests.support.registry import (
    BY_NAME,
    METHODS,
    examples,
    furnish,
    parameters_of,
    public_methods,
)
from tests.support.registry.bad_values import BAD

REGISTRY = "tests/support/registry"
EXAMPLES = {
    "MESSAGE": Message,
    "MESSAGE_RECORD": MessageRecord,
    "TURN": Turn,
    "USAGE": Usage,
    "ADJUSTMENT": UsageAdjustment,
    "CONVERSATION": NewConversation,
    "RECORD": ConversationRecord,
    "CONVERSATION_PATCH": ConversationPatch,
    "MESSAGE_PATCH": MessagePatch,
    "TOKEN_PATCH": TokenPatch,
    "TOKEN_RECORD": TokenRecord,
}
NEW_ENTRY = """\
{name} has no entry. Add to tests/support/registry/{module}.py:
    Method(
        name="{name}",
        call={{{call}}},  # valid values; `furnish` makes the rows that they name
        cost="row",  # see `Cost` in tests/support/registry/method.py
        round_trips=1,  # or [(number, case), ...]
        writes=False,
    ),"""
NO_OPERATION = """\
{name} is not called by the soak. Add to benchmarks/reliability/operations/:
    @operation("{name}")
    async def ...(app: Application) -> None: ..."""


def test_the_registry_describes_every_public_method_and_every_parameter():
    lines = [*entries(), *parameters(), *values(), *operations()]
    assert lines == [], "\n".join(["", *lines])


def entries() -> Iterator[str]:
    for name in public_methods() - BY_NAME.keys():
        call = ", ".join(f'"{each}": ...' for each in parameters_of(name) if each != "tenant_id")
        yield NEW_ENTRY.format(name=name, module=module_of(name), call=call)
    for name in BY_NAME.keys() - public_methods():
        yield f"{name} does not exist. Remove its entry from {file_of(name)}."


def parameters() -> Iterator[str]:
    for name in public_methods() & BY_NAME.keys():
        passed, accepted = BY_NAME[name].arguments().keys(), set(parameters_of(name))
        for each in accepted - passed:
            yield f'{name} has a new parameter. Add "{each}" to its `call` in {file_of(name)}.'
        for each in passed - accepted:
            yield f'{name} has no parameter "{each}". Remove it from its `call` in {file_of(name)}.'
        for each in accepted - BAD.keys() - BY_NAME[name].unchecked:
            yield f'{name}: add invalid values of "{each}" to BAD in {REGISTRY}/bad_values.py.'


def values() -> Iterator[str]:
    for constant, model in EXAMPLES.items():
        for field in getattr(examples, constant).keys() ^ model.model_fields.keys():
            yield f"{constant} in {REGISTRY}/examples.py differs from {model.__name__}: {field}."


def operations() -> Iterator[str]:
    public = public_methods() | {"connect"}
    for name in public - all_calls():
        yield NO_OPERATION.format(name=name)
    for name in all_calls() - public:
        yield f"{name} does not exist. Remove it from benchmarks/reliability/operations/."


def module_of(name: str) -> str:
    return name.partition(".")[0] if "." in name else "facade"


def file_of(name: str) -> str:
    return f"{REGISTRY}/{module_of(name)}.py"


# ------------------------------------------------------------------ detection of missing entries


def test_a_missing_entry_is_reported_with_the_entry_to_add(monkeypatch):
    monkeypatch.delitem(BY_NAME, "conversations.set_feedback")
    (line,) = (line for line in entries() if line.startswith("conversations.set_feedback "))
    assert "tests/support/registry/conversations.py" in line
    call = '{"id": ..., "message": ..., "thumb": ..., "merge_payload": ..., "user_id": ...}'
    assert f"call={call}" in line


def test_a_missing_parameter_is_reported_with_its_entry(monkeypatch):
    method = BY_NAME["tokens.used"]
    monkeypatch.setitem(BY_NAME, "tokens.used", dataclasses.replace(method, call={}))
    assert (
        'tokens.used has a new parameter. Add "secret" to its `call` in'
        " tests/support/registry/tokens.py."
    ) in list(parameters())


def test_missing_invalid_values_are_reported_with_their_place(monkeypatch):
    monkeypatch.delitem(BAD, "thumb")
    assert (
        'conversations.set_feedback: add invalid values of "thumb" to BAD in'
        " tests/support/registry/bad_values.py."
    ) in list(parameters())


def test_a_missing_operation_of_the_soak_is_reported(monkeypatch):
    monkeypatch.setattr(BY_NAME["tokens.used"].owner, "renew", lambda: None, raising=False)
    assert any(line.startswith("tokens.renew is not called by the soak.") for line in operations())


# ------------------------------------------------------------------ the entries are true


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_an_entry_agrees_with_the_signature_about_the_tenant(method):
    assert (method.tenant == "parameter") == ("tenant_id" in parameters_of(method.name))


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_a_method_that_only_reads_changes_no_row(method, shared_dsns, numbers):
    """The valid call of a method that writes must change rows."""
    async with asyncsvc.connect(shared_dsns[0]) as svc:
        tenant = await furnish(svc, f"tenant {next(numbers)}")
        before = await all_rows(svc)
        async with asyncsvc.connect(shared_dsns[0]) as other:
            await method.run(other, method.arguments(tenant))
        assert (await all_rows(svc) != before) is method.writes


async def all_rows(svc) -> dict[str, list[str]]:
    """Return the rows of all tables."""
    pool = svc._executor._pool
    names = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'asyncsvc'")
    rows = {
        name: await pool.fetch(f"SELECT t::text AS row FROM asyncsvc.{name} AS t ORDER BY 1")
        for (name,) in names
    }
    return {name: [row["row"] for row in records] for name, records in rows.items()}
