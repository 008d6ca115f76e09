"""API tokens: verification, `last_used_at`, lists, rotation, revocation and the audit."""

import asyncio
import base64
import hashlib
import logging
import re
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import asyncsvc
from asyncsvc import (
    ANY,
    Conflict,
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    NotFound,
    Settings,
    TokenPatch,
)
from asyncsvc.database import sql_files
from asyncsvc.services import credentials
from asyncsvc.validation import cursors
from asyncsvc.validation.cursors import Position
from tests.support.citus import END_WAITING, WAITING, sum_of_nodes
from tests.support.registry.counting import until_blocked

NOW = datetime.now(UTC)

IMPORTED = credentials.new_secret("other")
PEPPER = b"pepper, 32 random bytes or more."


def text_of(issued: asyncsvc.IssuedToken) -> str:
    return issued.secret.get_secret_value()


async def issue(svc, **options):
    return await svc.tokens.create(tenant_id="acme", name="test", **options)


async def rejected(svc, secret, **options):
    with pytest.raises(InvalidToken) as caught:
        await svc.tokens.verify(secret, **options)
    return caught.value


async def test_an_issued_token_is_verified(svc):
    expires = datetime.now(UTC) + timedelta(days=1)
    issued = await svc.tokens.create(
        tenant_id="acme",
        name="CI",
        scopes=["chat", "read"],
        dialog_id="d",
        source="api",
        expires_at=expires,
    )
    assert re.fullmatch(r"asv_[0-9A-Za-z]{49}", text_of(issued))
    assert text_of(issued).startswith(issued.token.hint)
    assert len(issued.token.hint) == len("asv_") + 4
    for secret in (issued.secret, text_of(issued)):
        token = await svc.tokens.verify(secret, record_use=False)
        assert token == issued.token
    assert (token.tenant_id, token.name, token.scopes) == ("acme", "CI", ("chat", "read"))
    assert (token.kind, token.status, token.expires_at) == ("api", "active", expires)


async def test_secrets_differ(svc):
    secrets = {text_of(await issue(svc)) for _ in range(50)}
    assert len(secrets) == 50


async def test_the_prefix_is_a_setting(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(token_prefix="corp2")) as svc:
        issued = await issue(svc)
        assert text_of(issued).startswith("corp2_")
        await svc.tokens.verify(issued.secret)


@pytest.fixture
async def queries(dsn):
    """A service, and the names of the statements that it has run."""
    names = []
    settings = Settings(on_query=lambda name, *_: names.append(name))
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        svc.names = names
        yield svc


async def test_a_malformed_secret_is_rejected_without_a_query(queries):
    secret = text_of(await issue(queries))
    queries.names.clear()
    typo = secret[:20] + ("A" if secret[20] != "A" else "B") + secret[21:]
    for wrong in (
        "",
        "asv_",
        typo,
        secret[:-1],
        secret + "A",
        secret.upper(),
        f" {secret}",
        f"{secret}\n",
        secret.replace("asv_", "asw_"),
        "ragflow-" + "A" * 43,
        "' OR 1=1 --",
        "\x00" * 53,
        "\ud800" * 53,
        "asv_" + "９" * 49,
        "x" * 10_000_000,
        hashlib.sha256(secret.encode()).hexdigest(),
    ):
        await rejected(queries, wrong)
        assert not await queries.tokens.used(wrong)
    assert queries.names == []


async def test_every_rejection_raises_the_same_error(svc):
    expired = await issue(svc, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await issue(svc)
    await svc.tokens.revoke(revoked.token.id, tenant_id="acme")
    deleted = await issue(svc)
    beta = await issue(svc, kind="beta")
    errors = [
        await rejected(svc, "nonsense"),
        await rejected(svc, text_of(expired)),
        await rejected(svc, text_of(expired), record_use=False),
        await rejected(svc, text_of(revoked)),
        await rejected(svc, beta.secret),
    ]
    await svc.tokens.delete_by_tenant_id(tenant_id="acme")
    errors.append(await rejected(svc, deleted.secret))
    assert {(type(error), str(error), error.args) for error in errors} == {
        (InvalidToken, "the token is not valid", ("the token is not valid",))
    }
    assert all(error.__cause__ is None for error in errors)


async def test_a_stored_hash_is_not_accepted_as_a_secret(svc, dsn, pool):
    issued = await issue(svc)
    digest = await pool.fetchval("SELECT token_hash FROM asyncsvc.api_token")
    assert digest == hashlib.sha256(text_of(issued).encode()).digest()
    forms = (
        digest.hex(),
        digest.hex().upper(),
        f"asv_{digest.hex()[:49]}",
        f"\\x{digest.hex()}",
        base64.b64encode(digest).decode(),
        base64.urlsafe_b64encode(digest).decode().rstrip("="),
        digest.decode("latin-1"),
    )
    async with asyncsvc.connect(dsn, settings=Settings(accept_foreign_tokens=True)) as lenient:
        for form in forms:
            await rejected(svc, form)
            await rejected(lenient, form)
    with pytest.raises(InvalidInput, match=r"^secret: must be text$"):
        await svc.tokens.verify(digest)


async def test_a_token_passes_only_as_its_own_kind(svc):
    api, beta = await issue(svc), await issue(svc, kind="beta")
    assert (await svc.tokens.verify(beta.secret, kind="beta")).kind == "beta"
    for record_use in (True, False):
        await rejected(svc, api.secret, kind="beta", record_use=record_use)
        await rejected(svc, beta.secret, record_use=record_use)
    assert await last_used(svc, api) is None
    assert await svc.tokens.used(beta.secret)


async def test_a_token_passes_only_with_the_requested_scopes(svc):
    issued = await issue(svc, scopes=["read", "chat"])
    assert await svc.tokens.verify(issued.secret, scopes=["chat"])
    assert await svc.tokens.verify(issued.secret, scopes=("chat", "read"))
    with pytest.raises(InsufficientScope, match="the token lacks admin"):
        await svc.tokens.verify(issued.secret, scopes=["chat", "admin"])
    with pytest.raises(InsufficientScope):
        await svc.tokens.verify((await issue(svc)).secret, scopes=["chat"])
    assert await svc.tokens.verify((await issue(svc, scopes=["*"])).secret, scopes=["chat"])


async def last_used(svc, issued):
    return (await svc.tokens.get_by_id(issued.token.id, tenant_id="acme")).last_used_at


async def test_a_use_is_recorded_at_most_once_per_resolution(svc):
    issued = await issue(svc)
    await svc.tokens.verify(issued.secret, record_use=False)
    assert await last_used(svc, issued) is None
    assert (await svc.tokens.verify(issued.secret)).last_used_at is None
    first = await last_used(svc, issued)
    assert first is not None
    assert (await svc.tokens.verify(issued.secret)).last_used_at == first
    assert await svc.tokens.used(issued.secret)
    assert await last_used(svc, issued) == first


@pytest.mark.parametrize("mark", ["verify", "used"])
async def test_the_resolution_of_last_used_at_is_a_setting(dsn, mark):
    async with asyncsvc.connect(dsn, settings=Settings(last_used_resolution=0)) as svc:
        issued = await issue(svc)
        stamps = set()
        for _ in range(3):
            await getattr(svc.tokens, mark)(issued.secret)
            stamps.add(await last_used(svc, issued))
        assert len(stamps) == 3
    async with asyncsvc.connect(dsn, settings=Settings(last_used_resolution=None)) as svc:
        issued = await issue(svc)
        await getattr(svc.tokens, mark)(issued.secret)
        assert await last_used(svc, issued) is None


@pytest.mark.parametrize("field", ["last_used_resolution", "max_rotation_overlap"])
async def test_the_server_accepts_the_longest_times_of_the_settings(dsn, field):
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        Settings(**{field: 1e9 + 1})
    async with asyncsvc.connect(dsn, settings=Settings(**{field: 1e9})) as svc:
        issued = await issue(svc)
        for _ in range(2):
            await svc.tokens.verify(issued.secret)
        await rotated(svc, issued, overlap=timedelta(days=1))
        await svc.tokens.verify(issued.secret)


async def test_a_use_is_recorded_again_after_the_resolution(dsn, pool):
    async with asyncsvc.connect(dsn) as svc:
        issued = await issue(svc)
        await pool.execute(
            "UPDATE asyncsvc.api_token SET last_used_at = now() - interval '61 seconds'"
        )
        before = await last_used(svc, issued)
        await svc.tokens.verify(issued.secret)
        assert await last_used(svc, issued) > before


async def test_the_use_of_an_invalid_token_is_not_recorded(svc):
    expired = await issue(svc, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await issue(svc)
    await svc.tokens.revoke(revoked.token.id, tenant_id="acme")
    for issued in (expired, revoked):
        await rejected(svc, issued.secret)
        assert not await svc.tokens.used(issued.secret)
        assert await last_used(svc, issued) is None


@pytest.mark.parametrize("ring", [{}, {1: PEPPER}])  # with a pepper the hash changes as well
@pytest.mark.parametrize("lock", ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])
async def test_a_locked_row_does_not_delay_verification(svc, dsn, pool, lock, ring):
    issued = await issue(svc)
    settings = Settings(token_peppers=ring, accept_unpeppered_tokens=True)
    async with (
        asyncsvc.connect(dsn, settings=settings) as asking,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute(
            f"SELECT 1 FROM asyncsvc.api_token WHERE tenant_id = 'acme' FOR {lock}"
        )
        async with asyncio.timeout(2):
            assert (await asking.tokens.verify(issued.secret)).status == "active"
            assert await asking.tokens.used(issued.secret)
        assert await last_used(svc, issued) is None
    async with asyncsvc.connect(dsn, settings=settings) as asking:
        await asking.tokens.verify(issued.secret)
    assert await last_used(svc, issued) is not None


async def test_concurrent_verifications_of_one_token_write_once(dsn, pool):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        issued = await issue(svc)
        await asyncio.gather(*(svc.tokens.verify(issued.secret) for _ in range(200)))
    query = sum_of_nodes(
        "SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname ~ '^api_token(_[0-9]+)?$'"
    )
    async with asyncio.timeout(10):  # the server publishes its counters with a delay
        while not await pool.fetchval(query):
            await asyncio.sleep(0.05)
    assert await pool.fetchval(query) == 1


async def test_a_read_only_session_verifies_without_recording_the_use(svc, dsn):
    issued = await issue(svc)
    connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "on"})
    reading = svc.on(connection)
    assert await reading.tokens.verify(issued.secret, record_use=False) == issued.token
    assert await reading.tokens.verify(issued.secret) == issued.token
    assert await last_used(svc, issued) is None
    await connection.close()


@pytest.mark.parametrize(
    ("column", "later", "status"),
    [
        ("expires_at", "0", "expired"),
        ("expires_at", "1 microsecond", "active"),
        ("revoked_at", "0", "revoked"),
        ("revoked_at", "1 microsecond", "retiring"),
    ],
)
async def test_a_token_is_invalid_at_the_instant_of_its_end(svc, pool, column, later, status):
    digest = f"'\\x{hashlib.sha256(b'').hexdigest()}'::bytea"
    hashes = {"token_hash": digest}
    stamp = {"last_used_resolution": "interval '1 minute'", "pepper_version": "0::smallint"}
    successor = {"successor_id": "'new'", "hint": "''", "token_hash": "sha256('new')"}
    end = {"overlap": "interval '0'", "actor": "NULL"}
    is_good = status in {"active", "retiring"}
    for name, literals, expected in (
        ("verify", hashes | stamp, status),
        ("record_use", hashes | stamp, None),
        ("get_by_ids", {}, status),
        ("rotate", stamp | successor | end, "active" if status == "active" else None),
    ):
        issued = await issue(svc)
        id = issued.token.id
        whose = {"tenant_id": "'acme'", "id": f"'{id}'", "ids": f"'{{{id}}}'"}
        assert await at_one_instant(
            pool,
            f"UPDATE asyncsvc.api_token SET token_hash = {digest},"
            f" {column} = statement_timestamp() + interval '{later}' WHERE id = {whose['id']}",
            name, {k: v for k, v in (literals | whose).items() if k in parameters_of(name)},
        ) == expected, name  # fmt: skip
        if name == "record_use":
            assert (await last_used(svc, issued) is not None) == is_good
        await svc.tokens.delete_by_tenant_id(tenant_id="acme")


def parameters_of(name):
    statement = sql_files.load(f"api_token/{name}")
    return statement.required | (statement.optional & {"last_used_resolution"})


async def at_one_instant(pool, change, name, literals):
    """Return the status that a statement returns at the instant of a change."""
    query = sql_files.load(f"api_token/{name}").bind((), literals)
    text = re.sub(r"\$(\d+)", lambda match: str(query.arguments[int(match[1]) - 1]), query.text)
    # statement_timestamp() is equal in all statements of one DO block.
    async with pool.acquire() as connection:
        await connection.execute(
            f"CREATE TEMPORARY TABLE answer (status text); DO $do$ DECLARE answered record; BEGIN"
            f" {change}; EXECUTE $sql${text}$sql$ INTO answered;"
            f" INSERT INTO answer VALUES (to_jsonb(answered) ->> 'status'); END $do$"
        )
        status = await connection.fetchval("SELECT status FROM answer")
        await connection.execute("DROP TABLE answer")
    return status


@pytest.mark.parametrize("record_use", [True, False])
async def test_a_token_expires_inside_a_long_transaction(svc, record_use):
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    expiring, retiring = await issue(svc, expires_at=soon), await issue(svc)
    await rotated(svc, retiring, overlap=timedelta(seconds=0.5))
    async with svc.transaction() as tx:
        for issued in (expiring, retiring):
            assert await tx.tokens.verify(issued.secret, record_use=record_use)
        await asyncio.sleep(0.7)
        for issued in (expiring, retiring):
            await rejected(tx, issued.secret, record_use=record_use)


async def test_a_revocation_takes_effect_in_another_pool_at_once(svc, dsn):
    issued = await issue(svc)
    async with asyncsvc.connect(dsn) as other:
        await other.tokens.verify(issued.secret)
        await svc.tokens.revoke(issued.token.id, tenant_id="acme")
        await rejected(other, issued.secret)


async def test_a_second_revocation_keeps_the_first_time_and_reason(svc):
    issued = await issue(svc)
    first = await svc.tokens.revoke(issued.token.id, tenant_id="acme", reason="leaked")
    assert (first.status, first.revoked_reason) == ("revoked", "leaked")
    again = await svc.tokens.revoke(issued.token.id, tenant_id="acme", reason="late")
    assert again == first
    assert [event.action for event in (await svc.tokens.audit(tenant_id="acme")).items] == [
        "revoke",
        "create",
    ]


async def test_a_patch_takes_effect_at_the_next_verification(svc):
    issued = await issue(svc, scopes=["read"], dialog_id="d", source="s")
    patched = await svc.tokens.update_by_id(
        issued.token.id, TokenPatch(name="new", scopes=["b", "a"], dialog_id=None), tenant_id="acme"
    )
    assert (patched.name, patched.scopes, patched.dialog_id) == ("new", ("b", "a"), None)
    assert patched.source == "s"
    assert await svc.tokens.verify(issued.secret, scopes=["a"], record_use=False) == patched
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired = await svc.tokens.update_by_id(issued.token.id, {"expires_at": past}, tenant_id="acme")
    assert (expired.status, expired.expires_at) == ("expired", past)
    await rejected(svc, issued.secret)
    await svc.tokens.update_by_id(issued.token.id, {"expires_at": None}, tenant_id="acme")
    assert await svc.tokens.verify(issued.secret)


async def test_tokens_are_listed_by_page_newest_first(svc):
    ids = [(await issue(svc)).token.id for _ in range(7)]
    await svc.tokens.create(tenant_id="other", name="theirs")
    seen, after = [], None
    while True:
        page = await svc.tokens.get_list(tenant_id="acme", after=after, limit=3)
        assert page.total is None
        seen += [token.id for token in page.items]
        after = page.next
        if after is None:
            break
    assert seen == ids[::-1]


async def test_concurrently_created_tokens_do_not_change_later_pages(svc, dsn):
    before = {(await issue(svc)).token.id for _ in range(20)}
    ended = asyncio.Event()

    async def disturb(other):
        while not ended.is_set():
            await issue(other)

    async with asyncsvc.connect(dsn) as other:
        disturbing = [asyncio.create_task(disturb(other)) for _ in range(3)]
        seen, after = [], None
        while True:
            page = await svc.tokens.get_list(tenant_id="acme", after=after, limit=3)
            seen += [token.id for token in page.items]
            if (after := page.next) is None:
                break
        ended.set()
        await asyncio.gather(*disturbing)
    assert len(set(seen)) == len(seen)
    assert before <= set(seen)


async def test_tokens_are_listed_by_kind_and_dialog(svc):
    plain, beta = await issue(svc), await issue(svc, kind="beta", dialog_id="d")

    async def listed(**filters):
        return [
            token.id for token in (await svc.tokens.get_list(tenant_id="acme", **filters)).items
        ]

    assert await listed() == [beta.token.id, plain.token.id]
    assert await listed(kind="beta") == await listed(dialog_id="d") == [beta.token.id]
    assert await listed(kind="api") == await listed(dialog_id=None) == [plain.token.id]
    assert await listed(kind="api", dialog_id="d") == []


async def test_a_cursor_of_another_list_is_rejected(svc):
    for _ in range(3):
        await issue(svc)
    after = (await svc.tokens.get_list(tenant_id="acme", limit=1)).next
    for tenant, filters in (
        ("other", {}),
        ("acme", {"kind": "api"}),
        ("acme", {"dialog_id": None}),
    ):
        with pytest.raises(InvalidInput, match="after: belongs to another query"):
            await svc.tokens.get_list(tenant_id=tenant, after=after, **filters)


async def test_a_token_of_another_tenant_behaves_as_absent(svc):
    issued = await issue(svc)
    for id, tenant in ((issued.token.id, "other"), ("absent", "acme")):
        for call in (
            svc.tokens.get_by_id(id, tenant_id=tenant),
            svc.tokens.update_by_id(id, {"name": "x"}, tenant_id=tenant),
            svc.tokens.revoke(id, tenant_id=tenant),
            svc.tokens.revoke_family(id, tenant_id=tenant),
            svc.tokens.rotate(id, tenant_id=tenant),
        ):
            with pytest.raises(NotFound, match=r"^no such token$"):
                await call
    assert await svc.tokens.delete_by_tenant_id(tenant_id="other") == 0
    assert await svc.tokens.revoke_all(tenant_id="other") == 0
    assert (await svc.tokens.audit(tenant_id="other")).items == []
    assert (await svc.tokens.audit(tenant_id="other", token_id=issued.token.id)).items == []
    assert await svc.tokens.verify(issued.secret, record_use=False) == issued.token


async def test_the_tokens_of_one_tenant_are_deleted(svc):
    mine, theirs = await issue(svc), await svc.tokens.create(tenant_id="other", name="theirs")
    assert await svc.tokens.delete_by_tenant_id(tenant_id="acme") == 1
    await rejected(svc, mine.secret)
    assert await svc.tokens.verify(theirs.secret)


# --- rotation


async def rotated(svc, issued, **options):
    return await svc.tokens.rotate(issued.token.id, tenant_id="acme", **options)


async def test_a_successor_differs_only_in_its_secret(svc):
    ends = datetime.now(UTC) + timedelta(days=1)
    old = await svc.tokens.create(
        tenant_id="acme", name="n", scopes=["a"], dialog_id="d", source="s", kind="beta",
        metadata={"team": "x"}, expires_at=ends, actor="ann",
    )  # fmt: skip
    new = await rotated(svc, old, overlap=timedelta(0), actor="bob")
    same = {"tenant_id", "name", "scopes", "dialog_id", "source", "kind", "metadata", "expires_at"}
    assert {getattr(new.token, name) == getattr(old.token, name) for name in same} == {True}
    assert (new.token.rotated_from, new.token.created_by) == (old.token.id, "bob")
    assert new.token.last_used_at is None
    assert text_of(new) != text_of(old)
    assert await svc.tokens.verify(new.secret, kind="beta", record_use=False) == new.token
    await rejected(svc, old.secret, kind="beta")


async def test_both_secrets_are_valid_during_the_overlap(svc):
    old = await issue(svc)
    new = await rotated(svc, old, overlap=timedelta(seconds=1))
    retiring = await svc.tokens.verify(old.secret)
    assert (retiring.status, retiring.revoked_reason) == ("retiring", "rotated")
    assert retiring.revoked_at - new.token.created_at == timedelta(seconds=1)
    assert await svc.tokens.used(old.secret)
    assert await last_used(svc, old) is not None
    await asyncio.sleep(1.1)
    await rejected(svc, old.secret)
    assert not await svc.tokens.used(old.secret)
    assert await svc.tokens.verify(new.secret)


@pytest.mark.parametrize(
    ("settings", "overlap"),
    [({}, 86_400), ({"rotation_overlap": 60}, 60), ({"max_rotation_overlap": 30}, 30)],
)
async def test_the_settings_limit_how_long_an_old_secret_stays_valid(dsn, settings, overlap):
    async with asyncsvc.connect(dsn, settings=Settings(**settings)) as svc:
        old = await issue(svc)
        new = await rotated(svc, old)
        retiring = await svc.tokens.verify(old.secret)
        assert retiring.revoked_at - new.token.created_at == timedelta(seconds=overlap)


async def test_a_rotation_does_not_extend_the_expiry(svc):
    soon = datetime.now(UTC) + timedelta(seconds=1)
    old = await issue(svc, expires_at=soon)
    new = await rotated(svc, old, overlap=timedelta(days=30))
    assert new.token.expires_at == soon
    await asyncio.sleep(1.1)
    await rejected(svc, old.secret)
    await rejected(svc, new.secret)


@pytest.mark.parametrize("expires_at", [None, datetime(2999, 1, 1, tzinfo=UTC)])
async def test_the_expiry_of_a_successor_can_be_set(svc, expires_at):
    old = await issue(svc, expires_at=datetime.now(UTC) + timedelta(days=1))
    assert (await rotated(svc, old, expires_at=expires_at)).token.expires_at == expires_at


async def test_only_an_active_token_is_rotated(svc):
    expired = await issue(svc, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked, retiring = await issue(svc), await issue(svc)
    await svc.tokens.revoke(revoked.token.id, tenant_id="acme")
    await rotated(svc, retiring, overlap=timedelta(days=1))
    for issued, status in ((expired, "expired"), (revoked, "revoked"), (retiring, "retiring")):
        with pytest.raises(Conflict, match=f"^the token cannot be rotated: it is {status}$"):
            await rotated(svc, issued)


async def test_concurrent_rotations_create_one_successor(svc, pool):
    for _ in range(20):
        old = await issue(svc)
        outcomes = await asyncio.gather(
            *(rotated(svc, old, overlap=timedelta(days=1)) for _ in range(4)),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            "Conflict", "Conflict", "Conflict", "IssuedToken",
        ]  # fmt: skip
    assert await pool.fetchval(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM asyncsvc.api_token GROUP BY rotated_from"
        " HAVING rotated_from IS NOT NULL) AS _"
    ) == 1  # fmt: skip


async def test_use_of_a_rotated_secret_is_logged_as_a_warning(svc, caplog):
    old = await issue(svc)
    await rotated(svc, old, overlap=timedelta(0))
    with caplog.at_level(logging.INFO, "asyncsvc"):
        await rejected(svc, old.secret)
        await rejected(svc, "asv_nonsense")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"rejected token {old.token.id}: it was rotated, but its old secret is used"),
        ("INFO", "rejected a token: it is malformed"),
    ]


async def test_revoking_a_retiring_token_keeps_its_successor_valid(svc):
    old = await issue(svc)
    new = await rotated(svc, old, overlap=timedelta(days=1))
    ended = await svc.tokens.revoke(old.token.id, tenant_id="acme", reason="leaked")
    assert (ended.status, ended.revoked_reason) == ("revoked", "leaked")
    await rejected(svc, old.secret)
    assert await svc.tokens.verify(new.secret)


@pytest.mark.parametrize("which", [0, 1, 3])
async def test_a_whole_family_is_revoked_from_any_member(svc, which):
    family = [await issue(svc)]
    stranger = await issue(svc)
    for _ in range(3):
        family.append(await rotated(svc, family[-1], overlap=timedelta(days=1)))
    ended = await svc.tokens.revoke_family(
        family[which].token.id, tenant_id="acme", reason="leaked", actor="ann"
    )
    assert ended == 4
    for issued in family:
        await rejected(svc, issued.secret)
    assert await svc.tokens.verify(stranger.secret)
    assert await svc.tokens.revoke_family(family[0].token.id, tenant_id="acme") == 0
    events = (await svc.tokens.audit(tenant_id="acme", token_id=family[3].token.id)).items
    assert [(event.action, event.actor) for event in events] == [
        ("revoke", "ann"), ("create", None),
    ]  # fmt: skip
    assert events[0].detail == {"reason": "leaked", "family_of": family[which].token.id}


async def test_a_family_has_the_id_of_its_first_token(svc):
    first = await issue(svc)
    second = await rotated(svc, first, overlap=timedelta(days=1))
    third = await rotated(svc, second, overlap=timedelta(days=1))
    assert {each.token.family_id for each in (first, second, third)} == {first.token.id}
    assert (await svc.tokens.verify(third.secret)).family_id == first.token.id
    assert (await issue(svc)).token.family_id != first.token.id


async def test_a_family_is_revoked_across_a_deleted_token(svc):
    first = await issue(svc)
    second = await rotated(svc, first, overlap=timedelta(days=1))
    third = await rotated(svc, second, overlap=timedelta(days=1))
    await svc.tokens.delete_by_id(second.token.id, tenant_id="acme")
    assert await svc.tokens.revoke_family(first.token.id, tenant_id="acme") == 2
    await rejected(svc, third.secret)


@pytest.mark.parametrize("overlap", [timedelta(0), timedelta(days=1)])
@pytest.mark.parametrize("call", ["revoke_family", "revoke_all", "delete_by_tenant_id"])
async def test_no_token_survives_that_is_rotated_concurrently(svc, dsn, call, overlap):
    async with asyncsvc.connect(dsn) as other:
        old = await issue(svc)
        async with svc.transaction() as tx:  # other transactions do not see the successor yet
            new = await rotated(tx, old, overlap=overlap)
            arguments = (
                {"id": old.token.id, "tenant_id": "acme"}
                if call == "revoke_family"
                else {"tenant_id": "acme"}
            )
            ending = asyncio.create_task(getattr(other.tokens, call)(**arguments))
            await asyncio.sleep(0.3)
            assert not ending.done()  # the call waits for the row of the token
        # Without an overlap the rotation itself revokes the old token.
        assert await ending == (2 if overlap or call == "delete_by_tenant_id" else 1)
    await rejected(svc, old.secret)
    await rejected(svc, new.secret)


async def test_all_tokens_of_a_tenant_are_revoked_by_filter(svc, pool):
    beta = await issue(svc, kind="beta")
    of_dialog = await issue(svc, dialog_id="d")
    fresh, stale, kept = [await issue(svc) for _ in range(3)]
    theirs = await svc.tokens.create(tenant_id="other", name="theirs")
    await pool.execute(
        "UPDATE asyncsvc.api_token SET created_at = now() - interval '100 days'"
        " WHERE id = ANY ($1)", [fresh.token.id, stale.token.id],
    )  # fmt: skip
    await svc.tokens.verify(fresh.secret)
    since = datetime.now(UTC) - timedelta(days=90)
    assert await svc.tokens.revoke_all(tenant_id="acme", unused_since=since, reason="unused") == 1
    await rejected(svc, stale.secret)
    assert await svc.tokens.revoke_all(tenant_id="acme", kind="beta") == 1
    await rejected(svc, beta.secret, kind="beta")
    assert await svc.tokens.revoke_all(tenant_id="acme", dialog_id="d") == 1
    await rejected(svc, of_dialog.secret)
    assert await svc.tokens.revoke_all(tenant_id="acme", dialog_id=None, keep=[kept.token.id]) == 1
    await rejected(svc, fresh.secret)
    assert await svc.tokens.verify(kept.secret)
    assert await svc.tokens.revoke_all(tenant_id="acme") == 1
    assert await svc.tokens.revoke_all(tenant_id="acme") == 0
    assert await svc.tokens.verify(theirs.secret)


# --- the audit


async def test_every_change_is_recorded_with_its_actor(svc):
    issued = await issue(svc, scopes=["a"], actor="ann")
    id = issued.token.id
    await svc.tokens.update_by_id(id, {"scopes": ["a", "b"]}, tenant_id="acme", actor="bob")
    new = await rotated(svc, issued, overlap=timedelta(hours=1), actor="cyd")
    ended = await svc.tokens.revoke(id, tenant_id="acme", reason="leaked", actor="dan")
    await svc.tokens.verify(new.secret)
    await svc.tokens.delete_by_tenant_id(tenant_id="acme", actor="eve")
    events = (await svc.tokens.audit(tenant_id="acme")).items
    recorded = [(event.token_id == id, event.action, event.actor) for event in events[::-1]]
    assert recorded[:5] == [
        (True, "create", "ann"),
        (True, "update", "bob"),
        (True, "rotate", "cyd"),
        (False, "create", "cyd"),
        (True, "revoke", "dan"),
    ]
    assert sorted(recorded[5:]) == [(False, "delete", "eve"), (True, "delete", "eve")]
    of_one = (await svc.tokens.audit(tenant_id="acme", token_id=id)).items[::-1]
    assert [event.detail for event in of_one] == [
        {"name": "test", "kind": "api", "scopes": ["a"], "expires_at": None},
        {"scopes": ["a", "b"]},
        {"successor": new.token.id, "ends_at": of_one[2].detail["ends_at"]},
        {"reason": "leaked"},
        {"name": "test"},
    ]
    assert of_one[3].at == ended.revoked_at
    assert of_one[0].at == issued.token.created_at


@pytest.mark.parametrize(
    ("action", "work"),
    [
        ("create", lambda tokens, _: tokens.create(tenant_id="acme", name="x")),
        ("import", lambda tokens, _: tokens.import_([{"secret": IMPORTED}], tenant_id="acme")),
        ("update", lambda tokens, id_: tokens.update_by_id(id_, {"name": "x"}, tenant_id="acme")),
        ("create", lambda tokens, id_: tokens.rotate(id_, tenant_id="acme")),
        ("revoke", lambda tokens, id_: tokens.revoke(id_, tenant_id="acme")),
        ("revoke", lambda tokens, id_: tokens.revoke_family(id_, tenant_id="acme")),
        ("revoke", lambda tokens, _: tokens.revoke_all(tenant_id="acme")),
        ("delete", lambda tokens, _: tokens.delete_by_tenant_id(tenant_id="acme")),
    ],
)
async def test_a_change_that_is_rolled_back_is_not_recorded(svc, action, work):
    issued = await issue(svc)
    before = (await svc.tokens.audit(tenant_id="acme")).items
    with pytest.raises(ZeroDivisionError):
        async with svc.transaction() as tx:
            await work(tx.tokens, issued.token.id)
            assert action in [
                event.action for event in (await tx.tokens.audit(tenant_id="acme")).items[:2]
            ]
            raise ZeroDivisionError
    assert (await svc.tokens.audit(tenant_id="acme")).items == before
    assert (await svc.tokens.get_list(tenant_id="acme")).items == [issued.token]


async def test_the_audit_is_paginated(svc):
    issued = [await issue(svc) for _ in range(5)]
    await svc.tokens.revoke_all(tenant_id="acme")  # 5 events of one instant
    await svc.tokens.create(tenant_id="other", name="theirs")
    for filters, number in (({}, 10), ({"token_id": issued[2].token.id}, 2)):
        seen, after = [], None
        while True:
            page = await svc.tokens.audit(tenant_id="acme", after=after, limit=3, **filters)
            assert page.total is None
            seen += page.items
            if (after := page.next) is None:
                break
        assert len({event.id for event in seen}) == len(seen) == number
        assert [event.at for event in seen] == sorted((e.at for e in seen), reverse=True)
    first = await svc.tokens.audit(tenant_id="acme", limit=1)
    with pytest.raises(InvalidInput, match="after: belongs to another query"):
        await svc.tokens.audit(tenant_id="acme", after=first.next, token_id=issued[0].token.id)
    filters = cursors.fingerprint({"tenant_id": "acme", "audit_of": ANY})
    for forged in ("x", "-1", "9" * 30, "1.5", "９x"):
        cursor = cursors.next_cursor([Position(NOW, forged)] * 2, 1, lambda it: it, filters)
        with pytest.raises(InvalidInput, match="after: is not a cursor"):
            await svc.tokens.audit(tenant_id="acme", after=cursor)


async def test_verification_fails_closed_when_its_session_is_killed(dsn, pool):
    async with asyncsvc.connect(dsn, settings=Settings(retry_timeout=1)) as svc:
        await assert_verification_fails_closed(svc, pool)


async def assert_verification_fails_closed(svc, pool):
    issued = await issue(svc)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE asyncsvc.api_token")  # all other statements wait
        verifications = [
            asyncio.create_task(call)
            for call in (
                svc.tokens.verify(issued.secret),
                svc.tokens.verify(issued.secret, record_use=False),
                svc.tokens.used(issued.secret),
            )
        ]
        async with asyncio.timeout(10):
            while await pool.fetchval(WAITING) < len(verifications):
                await asyncio.sleep(0.02)
        async with asyncio.timeout(60):
            while not all(call.done() for call in verifications):  # also the session of a retry
                await pool.fetchval(END_WAITING)
                await asyncio.sleep(0.02)
        for call in verifications:
            with pytest.raises(asyncsvc.Unavailable):
                await call
    assert await svc.tokens.verify(issued.secret)


async def test_verification_fails_closed_without_the_database(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(acquire_timeout=0.5)) as svc:
        secret = (await issue(svc)).secret
        await svc._executor._pool.close()
        for call in (svc.tokens.verify(secret), svc.tokens.used(secret)):
            with pytest.raises(asyncsvc.Unavailable):
                await call


async def test_tokens_are_read_updated_and_deleted_by_ids(svc, pool):
    one, two, theirs = [
        (await svc.tokens.create(tenant_id=tenant, name=tenant)).token.id
        for tenant in ("acme", "acme", "other")
    ]
    ids = [two, theirs, "absent", one, two]
    tokens = await svc.tokens.get_by_ids(ids, tenant_id="acme")
    assert [token.id for token in tokens] == [two, one, two]
    patches = {id: {"name": f"new {number}"} for number, id in enumerate((one, two, theirs))}
    assert await svc.tokens.update_many_by_id(patches, tenant_id="acme", actor="ann") == 2
    names = [token.name for token in await svc.tokens.get_by_ids([one, two], tenant_id="acme")]
    assert names == ["new 0", "new 1"]
    assert (await svc.tokens.get_by_id(theirs, tenant_id="other")).name == "other"
    assert await svc.tokens.delete_by_ids(ids, tenant_id="acme", actor="ann") == 2
    assert await svc.tokens.delete_by_id(theirs, tenant_id="acme") == 0
    assert await svc.tokens.delete_by_id(theirs, tenant_id="other") == 1
    actions = [
        (event.action, event.actor)
        for event in (await svc.tokens.audit(tenant_id="acme", token_id=one)).items
    ]
    assert actions == [("delete", "ann"), ("update", "ann"), ("create", None)]
    assert await pool.fetchval("SELECT count(*) FROM asyncsvc.api_token") == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens, ids: tokens.delete_by_ids(ids, tenant_id="acme"),
        lambda tokens, _: tokens.delete_by_tenant_id(tenant_id="acme"),
        lambda tokens, _: tokens.revoke_all(tenant_id="acme"),
        lambda tokens, ids: tokens.revoke_family(ids[0], tenant_id="acme"),
        lambda tokens, ids: tokens.update_many_by_id(
            {id: {"name": "new"} for id in ids}, tenant_id="acme"
        ),
    ],
    ids=["deletion by ids", "deletion of all", "revocation of all", "of a family", "update"],
)
async def test_a_change_of_many_tokens_locks_them_in_the_order_of_their_ids(svc, pool, change):
    first = await issue(svc)
    second = await svc.tokens.rotate(first.token.id, tenant_id="acme")
    # The ids have the opposite order of creation and rotation.
    for id, old in (("b", first.token.id), ("a", second.token.id)):
        for change_id in (
            "UPDATE asyncsvc.api_token SET id = $1 WHERE id = $2",
            "UPDATE asyncsvc.api_token SET rotated_from = $1 WHERE rotated_from = $2",
            "UPDATE asyncsvc.token_audit SET token_id = $1 WHERE token_id = $2",
            "UPDATE asyncsvc.api_token_hash SET token_id = $1 WHERE token_id = $2",
        ):
            await pool.execute(change_id, id, old)
    async with svc.transaction() as transaction:
        await transaction.tokens.update_by_id("a", {"name": "held"}, tenant_id="acme")
        task = asyncio.create_task(change(svc.tokens, ["b", "a"]))
        await until_blocked(svc)
        free = "SELECT id FROM asyncsvc.api_token WHERE tenant_id = 'acme' FOR UPDATE SKIP LOCKED"
        assert await pool.fetchval(free) == "b"
    await task
