"""No tenant reads or changes rows of another tenant, and no text of a caller becomes SQL.

The first test calls every public method with the ids of another tenant; the results must equal
those for absent ids. The second test passes hostile text in each text argument of every public
method, also in nested values, and reads the statements on the wire.
"""

import contextlib
import dataclasses
import re
import unicodedata
from collections.abc import Iterator

import pytest
from asyncpg import introspection

import asyncsvc
from asyncsvc import AsyncSvcError, BudgetExceeded, Settings
from asyncsvc.database import sql_files
from asyncsvc.repositories import SessionRepository
from asyncsvc.repositories.message import MessageBounds
from asyncsvc.repositories.session import build_session
from tests.support.citus import ON_CITUS, ONE_NODE, execute
from tests.support.registry import METHODS, SERVICE_METHODS, Tenant, comparable, furnish
from tests.support.registry.examples import RECORD, TURN
from tests.support.wire import Wire

# ------------------------------------------------------------------------ another tenant

OF_A_TENANT = [method for method in METHODS if method.tenant == "parameter"]
INSTANT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d")
TABLES = """
    SELECT c.table_name
      FROM information_schema.columns AS c
     WHERE c.table_schema = 'asyncsvc'
       AND c.column_name = 'tenant_id'
"""


@pytest.mark.parametrize("own", ["nothing", "the same ids"])
@pytest.mark.parametrize("method", OF_A_TENANT, ids=str)
async def test_ids_of_another_tenant_are_like_absent_ids(method, own, shared_dsns):
    with_theirs, without = shared_dsns
    mine, theirs = "mine", "theirs"
    async with asyncsvc.connect(with_theirs) as svc, asyncsvc.connect(without) as alone:
        await empty(svc)
        await empty(alone)
        other = await furnish_another(svc, theirs)
        if own == "the same ids":
            await furnish(svc, mine)
            await furnish(alone, mine)
        before = await rows_of(theirs, svc)
        ids_of_the_other = method.arguments(dataclasses.replace(other, id=mine))
        for variant in method.isolation:
            arguments = variant(ids_of_the_other)
            result = await outcome(svc, method, arguments)
            assert result == await outcome(alone, method, arguments)
            assert await stable_rows_of(mine, svc) == await stable_rows_of(mine, alone)
        assert await rows_of(theirs, svc) == before
        assert len(before) >= 4


async def empty(svc):
    """Delete the tenants of earlier tests, which have the same ids."""
    tables = [f"asyncsvc.{row['table_name']}" for row in await svc._executor._pool.fetch(TABLES)]
    await svc._executor._pool.execute(f"TRUNCATE {', '.join(tables)}")


async def furnish_another(svc, tenant_id) -> Tenant:
    """Store the rows of the valid calls with the same ids, and more rows."""
    tenant = await furnish(svc, tenant_id)
    messages = [{"role": "user", "content": "theirs"}]
    await svc.conversations.append_message(
        "a", {"messages": messages}, tenant_id=tenant_id, idempotency_key="theirs"
    )
    await svc.conversations.import_([RECORD | {"messages": messages}], tenant_id=tenant_id)
    for id in ("a", "theirs"):
        await svc.records.put("k", id, {"of": "theirs"}, tenant_id=tenant_id)
    return tenant


async def outcome(svc, method, arguments) -> str:
    """Return the result or error of a call as text, without the parts that differ per call."""
    try:
        result = await method.run(svc, arguments)
    except (AsyncSvcError, TypeError) as error:
        result = error
    return comparable(result)


async def rows_of(tenant_id, svc) -> dict[str, list[str]]:
    """Return every row of a tenant, by table."""
    tables = [row["table_name"] for row in await svc._executor._pool.fetch(TABLES)]
    rows = {
        table: await svc._executor._pool.fetch(
            f"SELECT t::text AS row FROM asyncsvc.{table} AS t WHERE t.tenant_id = $1 ORDER BY 1",
            tenant_id,
        )
        for table in tables
    }
    return {table: [row["row"] for row in records] for table, records in rows.items() if records}


async def stable_rows_of(tenant_id, svc) -> dict[str, list[str]]:
    """Return the rows of a tenant's conversations, without the parts that differ per call."""
    rows = await rows_of(tenant_id, svc)
    return {
        table: [INSTANT.sub("...", comparable(row)) for row in records]
        for table, records in rows.items()
        if not table.startswith(("token_", "api_token")) and table != "usage_audit"
    }


async def test_a_cursor_of_another_tenant_is_rejected(svc):
    for tenant in ("theirs", "acme"):
        for number in range(2):
            await svc.conversations.create(tenant_id=tenant, dialog_id="d", id=str(number))
            await svc.tokens.create(tenant_id=tenant, name=str(number))
    for tokens, page in (
        (
            False,
            await svc.conversations.get_list(dialog_id="d", tenant_id="theirs", items_per_page=1),
        ),
        (True, await svc.tokens.get_list(tenant_id="theirs", limit=1)),
        (True, await svc.tokens.audit(tenant_id="theirs", limit=1)),
    ):
        with pytest.raises(asyncsvc.InvalidInput, match="after"):
            if tokens:
                await svc.tokens.get_list(tenant_id="acme", after=page.next)
            else:
                await svc.conversations.get_list(dialog_id="d", tenant_id="acme", after=page.next)


# ------------------------------------------------------------------------------ injection

HOSTILE = [
    "'; DROP TABLE asyncsvc.message; --",
    "' OR '1'='1",
    "'' || pg_sleep(9) || ''",
    '"; DROP SCHEMA asyncsvc CASCADE; --',
    "\\'; SELECT 1; --",
    "\\",
    "\\N",
    "\\.",
    "$1 $2 $$ $x$",
    ":tenant_id :name ::text",
    "%s %(x)s %% {0} {}",
    "-- /* */ --? tenant_id",
    "a\tb\nc\r\n;",
    "_%\\_\\%",
    "ʼ；＇ DROP \u202e\u200b\u2028",
    "Ａ‘’“”\u00a0\ufeff",
    "x" * 5_000,
]
STATEMENTS_WITHOUT_A_FILE = [
    r"BEGIN;",
    r"BEGIN ISOLATION LEVEL READ COMMITTED;",
    r"COMMIT;",
    r"ROLLBACK;",
    r"(SAVEPOINT|RELEASE SAVEPOINT|ROLLBACK TO) __asyncpg_savepoint_\w+__;",
    r'COPY "asyncsvc"\."message"\(("\w+"(, )?)+\) FROM STDIN *',
    r'LISTEN "asyncsvc_new_messages"',
]
# asyncpg sends these itself, once a connection, to look up a type that it does not know.
OF_THE_DRIVER = {
    " ".join(text.split())
    for text in (
        introspection.INTRO_LOOKUP_TYPES,
        "SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new",
        "SELECT set_config('jit', $1, false)",
    )
}
NOT_OF_SERVICES = (
    *("append_key/", "maintenance/", "migration/", "pooler/", "replica/", "row_security/"),
    "server/",
    "testing/",  # of the pytest plugin
    *(("watch/notify", "watch/renew") if ON_CITUS else ()),  # no notification arrives there
    # Maintenance runs these.
    *("search/index", "search/next_message", "search/next_tenants", "search/flush_pending_list"),
    *("usage/backlog", "usage/find_tenants_to_roll_up", "usage/find_old_users"),
    *("usage/sum_out_users", "usage/vacuum"),
    *("usage_key/find_expired", "usage_key/delete_expired"),
)


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every text in the arguments of a call, also of the keys of mappings."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
            if path:
                yield (*path, key, "key")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def with_text(value: object, path: tuple, text: str) -> object:
    """Return the arguments with this text at the path."""
    if not path:
        return text
    head, *rest = path
    if isinstance(value, list):
        return [
            with_text(item, tuple(rest), text) if index == head else item
            for index, item in enumerate(value)
        ]
    if rest == ["key"]:
        return {text if key == head else key: item for key, item in value.items()}
    return value | {head: with_text(value[head], tuple(rest), text)}


def is_of_a_file(text: str) -> str | None:
    """Return the name of the file if the text is exactly one of its variants."""
    match = re.match(r"/\* asyncsvc (\w+/\w+) \*/\n", text)
    if match is None or match[1] not in sql_files.names():
        return None
    statement = sql_files.load(match[1])
    sent = re.sub(r"\$\d+", "%s", text).split("\n")[1:]
    for present in names_present(statement._lines, sent, frozenset(), frozenset()):
        values = dict.fromkeys((statement.optional & present) | statement.required, 0)
        with contextlib.suppress(TypeError):
            if statement.bind(present & statement.flags, values).text == text:
                return statement.name
    return None


def names_present(lines, sent, present, absent):
    """Yield each set of names with which these lines of a file may compile to the sent lines.

    Blocks for different flags may have equal lines, so a line may be kept or dropped.
    """
    for number, line in enumerate(lines):
        condition = line.condition
        fits = sent and line.text.replace("%%", "%") == sent[0]
        if condition.present <= present and condition.absent <= absent:  # it is certainly kept
            if not fits:
                return
            sent = sent[1:]
            continue
        if condition.present & absent or condition.absent & present:  # it is certainly dropped
            continue
        if fits:
            with_line = present | condition.present, absent | condition.absent
            yield from names_present(lines[number:], sent, *with_line)
        if condition.present <= present:  # it can be dropped only for a name that is present
            for name in condition.absent - absent:
                yield from names_present(lines[number + 1 :], sent, present | {name}, absent)
            return
    if not sent:
        yield present


def is_listed(text: str) -> bool:
    return " ".join(text.split()) in OF_THE_DRIVER or any(
        re.fullmatch(pattern, text) for pattern in STATEMENTS_WITHOUT_A_FILE
    )


def of_the_coordinator(text: str) -> str:
    """Return the statement for one node of Citus as the coordinator would get it."""
    call = re.fullmatch(
        r"SELECT \* FROM asyncsvc\.run_on_node_v1\(\$\d+::text, \$statement\$(.*)\$statement\$,"
        r" ARRAY\[(\$\d+::[\w\[\]]+::text(, )?)*\]::text\[\]\) AS r \((\"\w+\" [\w\[\]]+(, )?)+\)",
        text,
        re.DOTALL,
    )
    return re.sub(r"\(\$1\[(\d+)\]\)::[\w\[\]]+", r"$\1", call[1]) if call else text


async def test_hostile_text_never_changes_the_statements(dsn):
    settings = Settings(accept_foreign_tokens=True)
    names = set()
    async with Wire(dsn) as wire, asyncsvc.connect(wire.dsn, settings=settings) as over_it:
        for method in SERVICE_METHODS:
            arguments = method.arguments(await furnish(over_it, str(method)))
            for path in places(arguments):
                for text in HOSTILE:
                    with contextlib.suppress(AsyncSvcError):
                        await method.run(over_it, with_text(arguments, path, text))
        await send_other_statements(over_it)
        await send_statements_of_citus(dsn, wire.dsn)
        for text in {of_the_coordinator(each) for each in wire.statements}:
            name = is_of_a_file(text)
            assert name or is_listed(text), text
            names.add(name)
    files = {name for name in sql_files.names() if not name.startswith(NOT_OF_SERVICES)}
    assert names - {None} == files | {"server/clock"}


async def send_statements_of_citus(dsn, wire_dsn):
    """Send the statements that a service with `Settings.citus` sends."""
    if not ON_CITUS:
        await execute(dsn, ONE_NODE)
    of_tenant, peppers = {"tenant_id": HOSTILE[0]}, {1: "pepper" * 8}
    settings = Settings(citus=True, token_peppers=peppers)
    async with asyncsvc.connect(wire_dsn, settings=settings) as svc:
        first, second = [await svc.tokens.create(name=name, **of_tenant) for name in HOSTILE[:2]]
        await svc.tokens.rotate(first.token.id, **of_tenant)
        await svc.tokens.delete_by_id(first.token.id, **of_tenant)
        await svc.tokens.import_(Tenant(HOSTILE[0]).token_records, **of_tenant)
    settings = Settings(citus=True, token_peppers={**peppers, 2: "second" * 8})
    async with asyncsvc.connect(wire_dsn, settings=settings) as svc:
        await svc.tokens.verify(second.secret)  # it replaces the hash


async def send_other_statements(svc):
    """Send the statements that the valid calls do not send."""
    text = HOSTILE[0]
    await svc.conversations.create(tenant_id=text, dialog_id=text, id=text, source=text)
    await svc.conversations.append_message(text, TURN, tenant_id=text)
    await svc.conversations.stats(
        tenant_id=text, from_date="2026-01-01", to_date="2026-12-31", source=text, dialog_id=text
    )
    await svc.conversations.stats(
        tenant_id=text, from_date="2026-01-01", to_date="2026-12-31", group_by="user_id"
    )
    await svc.conversations.stats(
        tenant_id=text, from_date="2026-01-01", to_date="2026-12-31", basis="creation"
    )
    many = [{"dialog_id": text, "id": str(number)} for number in range(110)]
    await svc.conversations.create_many(many, tenant_id=text)
    for keywords in (text, TURN["messages"][0]["content"]):
        await svc.conversations.search(tenant_id=text, keywords=keywords)
    await svc.conversations.get_list(dialog_id=text, tenant_id=text)
    record = RECORD | {"id": f"{text}2", "last_seq": None}
    for messages in (RECORD["messages"], [*RECORD["messages"], *TURN["messages"]]):
        grown = record | {"messages": messages}
        await svc.conversations.import_([grown], tenant_id=text, update=True)
    bounds = MessageBounds(after_seq=0, last_seq=9)
    await svc.conversations._messages.get_chunk(  # a call needs 32 MiB of messages for it
        tenant_id=text, id=text, bounds=bounds, limit=9, max_bytes=1
    )
    sessions = SessionRepository(svc._executor)  # for RAGFlow's rows alone
    assert (
        len(await sessions.get_by_ids(build_session, tenant_id=text, ids=[text, f"{text}2"])) == 2
    )
    assert (await sessions.lock(tenant_id=text, id=text)).id == text
    secret = (await svc.tokens.create(tenant_id=text, name=text)).secret
    await svc.tokens.verify(secret, record_use=False)
    await svc.budgets.set(tenant_id=text, scope="tenant", limit=0)
    with contextlib.suppress(BudgetExceeded):
        await svc.budgets.check(tenant_id=text)
    async with svc.transaction() as tx:
        await tx.conversations.import_([RECORD | {"id": text}], tenant_id=text, on_rejected=print)
        with contextlib.suppress(ZeroDivisionError):
            async with tx.transaction():
                raise ZeroDivisionError


def test_a_text_that_is_not_a_variant_of_a_file_is_detected():
    statement = sql_files.load("conversation/get_by_ids")
    text = statement.bind((), dict.fromkeys(statement.required)).text
    assert is_of_a_file(text) == "conversation/get_by_ids"
    assert is_of_a_file(text + " ") is None
    assert is_of_a_file(text.replace("$1", "'x'")) is None
    assert not is_listed("COMMIT; DROP TABLE x")
    paths = list(places({"turn": TURN}))
    assert ("turn", "messages", 0, "payload", "id") in paths
    assert ("turn", "messages", 0, "payload", "id", "key") in paths


@pytest.fixture
async def shared_svc(shared_dsns):
    async with asyncsvc.connect(shared_dsns[0]) as svc:
        yield svc


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_text_of_a_conversation_is_returned_unchanged(text, shared_svc):
    svc = shared_svc
    key = text[:120]  # an id has at most 128 characters
    json = {"k": text, text: [text]}
    label = {"source": key, "version_title": key, "metadata": json, "dsl": json}
    created = await svc.conversations.create(
        tenant_id=key, dialog_id=key, id=key, user_id=key, exp_user_id=key, name=key, **label
    )
    turn = {"messages": [{"role": "user", "content": text, "payload": json, "reference": json}]}
    turn |= {"errors": text, "token_id": key}
    await svc.conversations.append_message(key, turn, tenant_id=key, idempotency_key=key)
    record = {"id": f"{key}+", "dialog_id": key, "messages": turn["messages"], **label}
    await svc.conversations.import_([record], tenant_id=key)
    assert created.dsl == json
    for id in (key, f"{key}+"):
        stored = await svc.conversations.get_by_id(id, tenant_id=key, include_messages=True)
        assert (stored.tenant_id, stored.id, stored.dialog_id, stored.source) == (key, id, key, key)
        assert (stored.version_title, stored.metadata, stored.dsl) == (key, json, json)
        (message,) = stored.messages
        assert message.content == unicodedata.normalize("NFC", text)
        assert (message.payload, message.reference) == (json, json)
    stored = await svc.conversations.get_by_id(key, tenant_id=key)
    assert (stored.user_id, stored.exp_user_id, stored.errors) == (key, key, text)
    assert stored.name == unicodedata.normalize("NFC", key)
    assert key in {
        item.id for item in (await svc.conversations.get_list(dialog_id=key, tenant_id=key)).items
    }


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_text_of_a_token_is_returned_unchanged(text, shared_svc):
    svc = shared_svc
    key, json = text[:60], {"k": text, text: [text]}
    issued = await svc.tokens.create(
        tenant_id=key, name=key, scopes=[key], dialog_id=key, source=key, metadata=json, actor=key
    )
    await svc.tokens.revoke(issued.token.id, tenant_id=key, reason=key, actor=key)
    token = await svc.tokens.get_by_id(issued.token.id, tenant_id=key)
    assert (token.name, list(token.scopes)) == (unicodedata.normalize("NFC", key), [key])
    assert (token.dialog_id, token.source, token.metadata) == (key, key, json)
    assert token.revoked_reason == key
    assert {event.actor for event in (await svc.tokens.audit(tenant_id=key)).items} == {key}
