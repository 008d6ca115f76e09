"""API tokens: secrets, verification, stamps, life, tenancy, and that no secret leaks."""

import asyncio
import hashlib
import logging
import pickle
import re
import traceback
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pydantic import SecretStr

import asyncsvc
from asyncsvc import InsufficientScope, InvalidInput, InvalidToken, NotFound, Settings, TokenPatch


def text_of(issued: asyncsvc.IssuedToken) -> str:
    return issued.secret.get_secret_value()


async def issue(svc, **options):
    return await svc.tokens.create("acme", name="test", **options)


async def refused(svc, secret, **options):
    with pytest.raises(InvalidToken) as caught:
        await svc.tokens.verify(secret, **options)
    return caught.value


async def test_an_issued_token_is_verified(svc):
    expires = datetime.now(UTC) + timedelta(days=1)
    issued = await svc.tokens.create(
        "acme",
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
        token = await svc.tokens.verify(secret, touch=False)
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
    """A service that notes the statements it runs."""
    names = []
    settings = Settings(on_query=lambda name, *_: names.append(name))
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        svc.names = names
        yield svc


async def test_what_is_no_secret_of_ours_is_refused_without_asking_the_database(queries):
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
        await refused(queries, wrong)
        assert not await queries.tokens.used(wrong)
    assert queries.names == []


async def test_every_refusal_is_the_same(svc):
    expired = await issue(svc, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await issue(svc)
    await svc.tokens.revoke(revoked.token.id, tenant_id="acme")
    deleted = await issue(svc)
    beta = await issue(svc, kind="beta")
    errors = [
        await refused(svc, "nonsense"),
        await refused(svc, text_of(expired)),
        await refused(svc, text_of(expired), touch=False),
        await refused(svc, text_of(revoked)),
        await refused(svc, beta.secret),
    ]
    await svc.tokens.delete_by_tenant_id("acme")
    errors.append(await refused(svc, deleted.secret))
    assert {(type(error), str(error), error.args) for error in errors} == {
        (InvalidToken, "the token is not valid", ("the token is not valid",))
    }
    assert all(error.__cause__ is None for error in errors)


async def test_a_stored_hash_is_no_secret(svc, pool):
    issued = await issue(svc)
    digest = await pool.fetchval("SELECT token_hash FROM asyncsvc.api_token")
    assert digest == hashlib.sha256(text_of(issued).encode()).digest()
    for form in (digest.hex(), f"asv_{digest.hex()[:49]}", f"\\x{digest.hex()}"):
        await refused(svc, form)


async def test_a_kind_never_passes_as_another(svc):
    api, beta = await issue(svc), await issue(svc, kind="beta")
    assert (await svc.tokens.verify(beta.secret, kind="beta")).kind == "beta"
    await refused(svc, api.secret, kind="beta")
    await refused(svc, beta.secret)
    assert await svc.tokens.used(beta.secret)


async def test_scopes(svc):
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


async def test_a_use_is_stamped_at_most_once_an_interval(svc):
    issued = await issue(svc)
    await svc.tokens.verify(issued.secret, touch=False)
    assert await last_used(svc, issued) is None
    assert (await svc.tokens.verify(issued.secret)).last_used_at is None
    first = await last_used(svc, issued)
    assert first is not None
    assert (await svc.tokens.verify(issued.secret)).last_used_at == first
    assert await svc.tokens.used(issued.secret)
    assert await last_used(svc, issued) == first


@pytest.mark.parametrize("mark", ["verify", "used"])
async def test_the_interval_is_a_setting(dsn, mark):
    async with asyncsvc.connect(dsn, settings=Settings(touch_interval=0)) as svc:
        issued = await issue(svc)
        stamps = set()
        for _ in range(3):
            await getattr(svc.tokens, mark)(issued.secret)
            stamps.add(await last_used(svc, issued))
        assert len(stamps) == 3
    async with asyncsvc.connect(dsn, settings=Settings(touch_interval=None)) as svc:
        issued = await issue(svc)
        await getattr(svc.tokens, mark)(issued.secret)
        assert await last_used(svc, issued) is None


async def test_a_stamp_is_due_again_after_the_interval(dsn, pool):
    async with asyncsvc.connect(dsn) as svc:
        issued = await issue(svc)
        await pool.execute(
            "UPDATE asyncsvc.api_token SET last_used_at = now() - interval '61 seconds'"
        )
        before = await last_used(svc, issued)
        await svc.tokens.verify(issued.secret)
        assert await last_used(svc, issued) > before


async def test_a_dead_token_is_not_stamped(svc):
    expired = await issue(svc, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await issue(svc)
    await svc.tokens.revoke(revoked.token.id, tenant_id="acme")
    for issued in (expired, revoked):
        await refused(svc, issued.secret)
        assert not await svc.tokens.used(issued.secret)
        assert await last_used(svc, issued) is None


async def test_a_locked_row_does_not_delay_verification(svc, pool):
    issued = await issue(svc)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM asyncsvc.api_token FOR UPDATE")
        async with asyncio.timeout(2):
            assert (await svc.tokens.verify(issued.secret)).status == "active"
            assert await svc.tokens.used(issued.secret)
    assert await last_used(svc, issued) is None


async def test_a_hot_token_is_written_once(dsn, pool):
    async with asyncsvc.connect(dsn, max_size=16) as svc:
        issued = await issue(svc)
        await asyncio.gather(*(svc.tokens.verify(issued.secret) for _ in range(200)))
    query = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'api_token'"
    async with asyncio.timeout(10):  # the server's counters come late
        while not await pool.fetchval(query):
            await asyncio.sleep(0.05)
    assert await pool.fetchval(query) == 1


async def test_a_replica_can_answer_without_the_stamp(svc, dsn):
    issued = await issue(svc)
    connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "on"})
    assert await svc.on(connection).tokens.verify(issued.secret, touch=False) == issued.token
    with pytest.raises(asyncsvc.AsyncSvcError):
        await svc.on(connection).tokens.verify(issued.secret)
    await connection.close()


async def test_the_instant_of_expiry_is_expired(svc, pool):
    issued = await issue(svc)
    async with pool.acquire() as connection, connection.transaction():
        # Inside one statement the clock stands still: statement_timestamp() is the boundary itself.
        status = await connection.fetchval(
            "WITH t AS (UPDATE asyncsvc.api_token SET expires_at = statement_timestamp()"
            " RETURNING expires_at) SELECT expires_at <= statement_timestamp() FROM t"
        )
        assert status is True
    await refused(svc, issued.secret)


async def test_a_token_expires_inside_a_long_transaction(svc):
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    issued = await issue(svc, expires_at=soon)
    async with svc.transaction() as tx:
        assert await tx.tokens.verify(issued.secret)
        await asyncio.sleep(0.7)
        await refused(tx, issued.secret)


async def test_a_revocation_is_seen_by_another_pool_at_once(svc, dsn):
    issued = await issue(svc)
    async with asyncsvc.connect(dsn) as other:
        await other.tokens.verify(issued.secret)
        await svc.tokens.revoke(issued.token.id, tenant_id="acme")
        await refused(other, issued.secret)


async def test_revoking_again_keeps_the_first_instant(svc):
    issued = await issue(svc)
    first = await svc.tokens.revoke(issued.token.id, tenant_id="acme")
    assert first.status == "revoked"
    again = await svc.tokens.revoke(issued.token.id, tenant_id="acme")
    assert again.revoked_at == first.revoked_at


async def test_a_patch_is_effective_at_the_next_verify(svc):
    issued = await issue(svc, scopes=["read"], dialog_id="d", source="s")
    patched = await svc.tokens.update_by_id(
        issued.token.id, TokenPatch(name="new", scopes=["b", "a"], dialog_id=None), tenant_id="acme"
    )
    assert (patched.name, patched.scopes, patched.dialog_id) == ("new", ("b", "a"), None)
    assert patched.source == "s"
    assert await svc.tokens.verify(issued.secret, scopes=["a"], touch=False) == patched
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired = await svc.tokens.update_by_id(issued.token.id, {"expires_at": past}, tenant_id="acme")
    assert (expired.status, expired.expires_at) == ("expired", past)
    await refused(svc, issued.secret)
    await svc.tokens.update_by_id(issued.token.id, {"expires_at": None}, tenant_id="acme")
    assert await svc.tokens.verify(issued.secret)


async def test_tokens_are_listed_by_page_newest_first(svc):
    ids = [(await issue(svc)).token.id for _ in range(7)]
    await svc.tokens.create("other", name="theirs")
    seen, after = [], None
    while True:
        page = await svc.tokens.get_list("acme", after=after, limit=3)
        assert page.total is None
        seen += [token.id for token in page.items]
        after = page.next
        if after is None:
            break
    assert seen == ids[::-1]


async def test_tokens_are_listed_by_kind_and_dialog(svc):
    plain, beta = await issue(svc), await issue(svc, kind="beta", dialog_id="d")

    async def listed(**filters):
        return [token.id for token in (await svc.tokens.get_list("acme", **filters)).items]

    assert await listed() == [beta.token.id, plain.token.id]
    assert await listed(kind="beta") == await listed(dialog_id="d") == [beta.token.id]
    assert await listed(kind="api") == await listed(dialog_id=None) == [plain.token.id]
    assert await listed(kind="api", dialog_id="d") == []


async def test_a_cursor_of_another_list_is_refused(svc):
    for _ in range(3):
        await issue(svc)
    after = (await svc.tokens.get_list("acme", limit=1)).next
    for tenant, filters in (
        ("other", {}),
        ("acme", {"kind": "api"}),
        ("acme", {"dialog_id": None}),
    ):
        with pytest.raises(InvalidInput, match="after: belongs to another query"):
            await svc.tokens.get_list(tenant, after=after, **filters)


async def test_a_foreign_token_is_as_absent(svc):
    issued = await issue(svc)
    for id, tenant in ((issued.token.id, "other"), ("absent", "acme")):
        for call in (
            svc.tokens.get_by_id(id, tenant_id=tenant),
            svc.tokens.update_by_id(id, {"name": "x"}, tenant_id=tenant),
            svc.tokens.revoke(id, tenant_id=tenant),
        ):
            with pytest.raises(NotFound, match=r"^no such token$"):
                await call
    assert await svc.tokens.delete_by_tenant_id("other") == 0
    assert await svc.tokens.verify(issued.secret, touch=False) == issued.token


async def test_delete_by_tenant_id(svc):
    mine, theirs = await issue(svc), await svc.tokens.create("other", name="theirs")
    assert await svc.tokens.delete_by_tenant_id("acme") == 1
    await refused(svc, mine.secret)
    assert await svc.tokens.verify(theirs.secret)


async def test_it_fails_closed_without_the_database(dsn):
    async with asyncsvc.connect(dsn, settings=Settings(acquire_timeout=0.5)) as svc:
        secret = (await issue(svc)).secret
        await svc._pool.close()
        for call in (svc.tokens.verify(secret), svc.tokens.used(secret)):
            with pytest.raises(asyncsvc.Unavailable):
                await call


async def test_no_secret_is_anywhere(svc, pool, caplog):
    caplog.set_level(logging.DEBUG)
    issued = await issue(svc, scopes=["read"])
    secret = text_of(issued)
    seen = [repr(issued), str(issued), issued.model_dump_json()]
    await svc.tokens.verify(secret)
    await svc.tokens.used(secret)
    for call in (
        svc.tokens.verify(secret, scopes=["admin"]),
        svc.tokens.verify(secret, kind="nonsense"),
        svc.tokens.verify(secret, nonsense=1),
        svc.tokens.verify([secret]),
        svc.tokens.verify(SecretStr(secret), scopes=secret),
        svc.tokens.create("acme", name=[secret]),
    ):
        with pytest.raises((asyncsvc.AsyncSvcError, TypeError)) as caught:
            await call
        seen += [*traceback.format_exception(caught.value), repr(pickle.dumps(caught.value))]
    seen.append(caplog.text)
    tables = await pool.fetch(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'asyncsvc'"
    )
    for (table,) in tables:
        seen += [str(dict(row)) for row in await pool.fetch(f"SELECT * FROM {table}")]
    # The hint is shown on purpose; what follows it must not be.
    rest = secret.removeprefix(issued.token.hint)
    assert not [text for text in seen if rest[:12] in text or secret in text]
