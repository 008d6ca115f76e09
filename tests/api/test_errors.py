"""The tree of errors: each error of the library belongs to it, and has the fields of its class."""

import copy
import pickle
from decimal import Decimal

import pytest

from asyncsvc import (
    AsyncSvc,
    BudgetExceeded,
    DatabaseError,
    InvalidInput,
    InvalidToken,
    Message,
    NotFound,
    Turn,
)
from asyncsvc.database.sql_files import Query
from asyncsvc.errors import AsyncSvcError
from asyncsvc.ragflow import drivers

ARGUMENTS = {
    InvalidInput: ("tenant_id", "must be text"),
    NotFound: ("message",),
    InvalidToken: (),
    BudgetExceeded: ("b", "user", "ann", "cost", Decimal("10.5"), 10, "month", None),
    DatabaseError: ("permission denied", "42501"),
}


def subclasses(kind):
    return [kind, *(each for child in kind.__subclasses__() for each in subclasses(child))]


@pytest.mark.parametrize("kind", subclasses(AsyncSvcError), ids=lambda kind: kind.__name__)
def test_an_error_can_be_copied_and_pickled(kind):
    error = kind(*ARGUMENTS.get(kind, ("the reason",)))
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is kind
        assert (str(twin), vars(twin)) == (str(error), vars(error))


async def test_not_found_names_the_resource(svc):
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    conversations, tokens = svc.conversations, svc.tokens
    for resource, call in {
        "conversation": conversations.get_by_id("absent", tenant_id="acme"),
        "message": conversations.set_feedback("a", 7, 1, tenant_id="acme"),
        "token": tokens.revoke_family("absent", tenant_id="acme"),
    }.items():
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.resource == resource
        assert str(caught.value) == f"no such {resource}"


async def test_a_value_that_cannot_be_encoded_has_a_sqlstate(svc):
    with pytest.raises(DatabaseError, match="cannot be encoded") as caught:
        await svc._executor.fetch(Query("test", "SELECT $1::int", ("x",)))
    assert caught.value.sqlstate == "22000"


async def test_the_error_of_a_missing_table_in_the_source_does_not_advise_to_migrate(dsn):
    source = await drivers.connect(dsn)
    with pytest.raises(DatabaseError, match="the source: ") as caught:
        await source.fetch(Query("test", "SELECT FROM absent", ()))
    await source.close()
    assert caught.value.sqlstate == "42P01"
    assert "migrate" not in str(caught.value)


@pytest.mark.parametrize("other", [None, "postgresql://localhost/x", 5, object(), dict])
async def test_another_object_in_place_of_a_pool_or_connection_is_invalid_input(pool, other):
    for field, construct in {
        "pool": lambda: AsyncSvc(other),
        "replicas": lambda: AsyncSvc(pool, replicas=[other]),
        "connection": lambda: AsyncSvc(pool).on(other),
    }.items():
        with pytest.raises(InvalidInput) as caught:
            construct()
        assert caught.value.field == field
    if other is not None:
        with pytest.raises(InvalidInput, match=r"^settings: "):
            AsyncSvc(pool, settings=other)


async def test_a_pool_is_not_accepted_as_a_connection_nor_a_connection_as_a_pool(pool):
    async with pool.acquire() as connection:
        for construct in (lambda: AsyncSvc(connection), lambda: AsyncSvc(pool).on(pool)):
            with pytest.raises(InvalidInput):
                construct()
    with pytest.raises(InvalidInput, match=r"^connection: "):
        AsyncSvc(pool).on(pool.acquire())


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "a"}, {"id": ""}]}, "messages.1.role"),
        ({"messages": [{"role": "user", "content": "a"}], "tokens": -1}, "tokens"),
    ],
)
def test_the_error_of_a_nested_model_names_the_whole_path(fields, path):
    with pytest.raises(InvalidInput) as caught:
        Turn(**fields)
    assert (caught.value.field, caught.value.__context__) == (path, None)
    with pytest.raises(InvalidInput, match=r"^content: "):
        Message(role="user", content=3)
