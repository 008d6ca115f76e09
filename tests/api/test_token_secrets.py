"""Secrets of tokens: format, peppers, import, and absence from tables, logs and errors."""

import asyncio
import contextlib
import copy
import hashlib
import hmac
import logging
import pickle
import re
import traceback
import zlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr, ValidationError

import asyncsvc
from asyncsvc import (
    AlreadyExists,
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    Settings,
    TokenImportReport,
    TokenRecord,
    ragflow,
)
from asyncsvc.services import credentials

FIRST, SECOND, THIRD = (bytes([number]) * 32 for number in (1, 2, 3))
LEGACY = "ragflow-" + "Zk9_-" * 8 + "abc"
BETA = "q8-_" * 8
SHORT = "admin-2024"
FOREIGN = Settings(accept_foreign_tokens=True)


@pytest.fixture
async def open_service(dsn):
    """Return a function that opens services with these settings on the database of the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def call(**settings):
            return await stack.enter_async_context(
                asyncsvc.connect(dsn, settings=Settings(**settings))
            )

        yield call


async def issue(svc, **options):
    return await svc.tokens.create(tenant_id="acme", name="test", **options)


async def stored(pool):
    return await pool.fetchrow("SELECT token_hash, pepper_version, hint FROM asyncsvc.api_token")


def peppered(pepper: bytes, secret: str) -> bytes:
    return hmac.new(pepper, b"asyncsvc-token-v1\0" + secret.encode(), hashlib.sha256).digest()


# --- the format


def test_a_new_secret_has_the_documented_format():
    secrets = [credentials.new_secret("corp2") for _ in range(200)]
    assert len(set(secrets)) == 200
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for secret in secrets:
        assert re.fullmatch(r"corp2_[0-9A-Za-z]{49}", secret)
        number = 0
        for digit in secret[-6:]:
            number = number * 62 + digits.index(digit)
        assert number == zlib.crc32(secret[:-6].encode())
        assert credentials.has_own_format(secret)
        assert credentials.hint(secret) == secret[:10]


@given(st.data())
def test_a_typo_at_any_position_is_detected(data):
    secret = credentials.new_secret("asv")
    place = data.draw(st.integers(0, len(secret) - 1))
    typo = data.draw(st.characters().filter(lambda character: character != secret[place]))
    assert not credentials.has_own_format(secret[:place] + typo + secret[place + 1 :])
    assert not credentials.has_own_format(secret[:place] + secret[place + 1 :])


@given(st.text())
def test_an_arbitrary_text_has_at_most_the_foreign_format(text):
    assert not credentials.has_own_format(text)
    assert not credentials.has_foreign_format(f"asv_{text}", "asv")
    if credentials.has_foreign_format(text, "asv"):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        hidden = len(text) - len(credentials.hint(text))
        assert hidden >= min(len(text.lstrip("abcdefghijklmnopqrstuvwxyz")), 1) or text.endswith(
            "-"
        )


@pytest.mark.parametrize(
    ("secret", "hint"),
    [(LEGACY, "ragflow-Zk9_"), (BETA, "q8-_q8-"), (SHORT, "admin-"), ("A" * 22, "AAAA"), ("x", "")],
)
def test_a_hint_shows_few_characters_of_a_foreign_secret(secret, hint):
    assert credentials.hint(secret) == hint


# --- peppers


async def test_the_stored_hash_depends_on_the_pepper(open_service, pool):
    svc = await open_service(token_peppers={7: FIRST})
    issued = await issue(svc)
    secret = issued.secret.get_secret_value()
    row = await stored(pool)
    assert (row["token_hash"], row["pepper_version"]) == (peppered(FIRST, secret), 7)
    assert issued.token.pepper_version == 7
    for record_use in (True, False):
        assert await svc.tokens.verify(secret, record_use=record_use)
    for wrong in ({}, {"token_peppers": {7: SECOND}}, {"token_peppers": {8: SECOND}}):
        with pytest.raises(InvalidToken):
            await (await open_service(**wrong)).tokens.verify(secret)


async def test_write_access_to_the_database_does_not_suffice_to_add_a_token(open_service, pool):
    svc = await open_service(token_peppers={1: FIRST})
    await issue(svc)
    mine = credentials.new_secret("asv")
    for version in (0, 1, 2):
        await pool.execute(
            "WITH hash_row AS (UPDATE asyncsvc.api_token_hash SET token_hash = $1)"
            " UPDATE asyncsvc.api_token SET token_hash = $1, pepper_version = $2",
            hashlib.sha256(mine.encode()).digest(), version,
        )  # fmt: skip
        for record_use in (True, False):
            with pytest.raises(InvalidToken):
                await svc.tokens.verify(mine, record_use=record_use)


@pytest.mark.parametrize("interval", [60.0, 0, None])
async def test_a_token_is_rehashed_with_the_current_pepper_at_its_next_use(
    open_service, pool, interval
):
    old = await open_service(token_peppers={1: FIRST})
    issued = await issue(old)
    secret = issued.secret.get_secret_value()
    both = {1: FIRST, 2: SECOND}
    new = await open_service(token_peppers=both, last_used_resolution=interval)
    await new.tokens.verify(secret, record_use=False)
    assert (await stored(pool))["pepper_version"] == 1
    assert (await new.tokens.verify(secret)).pepper_version == 1
    row = await stored(pool)
    assert (row["token_hash"], row["pepper_version"]) == (peppered(SECOND, secret), 2)
    token = await new.tokens.verify(secret)
    assert token.pepper_version == 2
    assert (token.last_used_at is None) == (interval is None)
    # A process that still hashes with pepper 1 accepts the token and does not rehash it.
    behind = await open_service(token_peppers=both, token_pepper_version=1, last_used_resolution=0)
    assert await behind.tokens.verify(secret)
    assert (await stored(pool))["pepper_version"] == 2
    assert await (await open_service(token_peppers={2: SECOND})).tokens.verify(secret)
    with pytest.raises(InvalidToken):
        await old.tokens.verify(secret)


async def test_tokens_of_three_peppers_and_of_none_are_valid_together(open_service, pool):
    ring = {1: FIRST, 2: SECOND, 3: THIRD}
    full = await open_service(token_peppers=ring, accept_unpeppered_tokens=True)
    for peppers in ({}, {1: FIRST}, {2: SECOND}, {3: THIRD}):
        issued = await issue(await open_service(token_peppers=peppers))
        for record_use in (False, True, False):
            assert (
                await full.tokens.verify(issued.secret, record_use=record_use)
            ).id == issued.token.id
        assert (await full.tokens.verify(issued.secret)).pepper_version == 3
    with pytest.raises(InvalidToken):
        await full.tokens.verify(credentials.new_secret("asv"))


async def test_an_unpeppered_token_is_valid_only_if_the_setting_accepts_it(open_service, pool):
    issued = await issue(await open_service())
    strict = await open_service(token_peppers={1: FIRST})
    with pytest.raises(InvalidToken):
        await strict.tokens.verify(issued.secret)
    moving = await open_service(token_peppers={1: FIRST}, accept_unpeppered_tokens=True)
    assert await moving.tokens.verify(issued.secret)
    assert (await stored(pool))["pepper_version"] == 1
    assert await strict.tokens.verify(issued.secret)


async def test_concurrent_verifications_rehash_a_token(dsn, open_service, pool):
    issued = await issue(await open_service(token_peppers={1: FIRST}))
    settings = Settings(token_peppers={1: FIRST, 2: SECOND})
    async with asyncsvc.connect(dsn, max_size=16, settings=settings) as svc:
        await asyncio.gather(*(svc.tokens.verify(issued.secret) for _ in range(100)))
    assert (await stored(pool))["pepper_version"] == 2


@pytest.mark.damages
async def test_a_secret_that_is_stored_twice_is_invalid(open_service, pool):
    svc = await open_service(token_peppers={1: FIRST, 2: SECOND})
    issued = await issue(svc)
    secret = issued.secret.get_secret_value()
    await pool.execute(
        "INSERT INTO asyncsvc.api_token SELECT (jsonb_populate_record(t, jsonb_build_object("
        "'id', 'twin', 'tenant_id', 'other', 'pepper_version', 1, 'token_hash', $1::text))).*"
        " FROM asyncsvc.api_token AS t",
        f"\\x{peppered(FIRST, secret).hex()}",
    )
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(secret, record_use=False)
    with pytest.raises(asyncsvc.AsyncSvcError):
        await svc.tokens.verify(secret)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"token_peppers": {1: b"short"}}, "token_peppers.1"),
        ({"token_peppers": {0: FIRST}}, "token_peppers.0"),
        ({"token_peppers": {2**15: FIRST}}, "token_peppers.32768"),
        ({"token_peppers": dict.fromkeys(range(1, 5), FIRST)}, "token_peppers"),
        ({"token_peppers": {1: "text"}}, "token_peppers.1"),
        ({"token_peppers": [FIRST]}, "token_peppers"),
        ({"token_pepper_version": 1}, "token_pepper_version"),
        ({"token_peppers": {1: FIRST}, "token_pepper_version": 2}, "token_pepper_version"),
    ],
)
def test_invalid_peppers_are_rejected_and_not_shown(settings, field):
    with pytest.raises(InvalidInput) as caught:
        Settings(**settings)
    assert caught.value.field.startswith(field)
    text = "".join(traceback.format_exception(caught.value))
    assert repr(FIRST)[2:-1] not in text


def test_settings_do_not_show_their_peppers():
    settings = Settings(token_peppers={1: SecretBytes(b"pepper" * 8)})
    text = repr(settings) + str(settings) + settings.model_dump_json() + repr(copy.copy(settings))
    assert "pepperpepper" not in text


# --- tokens of another system


async def import_(svc, *records, tenant_id="acme", **options):
    return await svc.tokens.import_(records, tenant_id=tenant_id, **options)


@pytest.mark.parametrize("peppers", [{}, {1: FIRST}])
async def test_imported_tokens_stay_valid_and_are_stored_as_hashes(open_service, pool, peppers):
    svc = await open_service(accept_foreign_tokens=True, token_peppers=peppers)
    report = await import_(
        svc,
        {"secret": LEGACY, "dialog_id": "d", "source": "agent", "name": "old"},
        TokenRecord(secret=SecretStr(BETA), kind="beta", metadata={"from": "ragflow"}),
        actor="migration",
    )
    assert report == TokenImportReport(tokens=2)
    token = await svc.tokens.verify(LEGACY, scopes=["anything"])
    assert (token.tenant_id, token.dialog_id, token.source) == ("acme", "d", "agent")
    assert (token.scopes, token.created_by, token.hint) == (("*",), "migration", "ragflow-Zk9_")
    assert (await svc.tokens.verify(BETA, kind="beta")).metadata == {"from": "ragflow"}
    for secret, kind in ((LEGACY, "beta"), (BETA, "api")):
        with pytest.raises(InvalidToken):
            await svc.tokens.verify(secret, kind=kind)
    assert [event.action for event in (await svc.tokens.audit(tenant_id="acme")).items] == [
        "import"
    ] * 2
    new = await svc.tokens.rotate(token.id, tenant_id="acme", overlap=timedelta(0))
    assert credentials.has_own_format(new.secret.get_secret_value())
    with pytest.raises(InvalidToken):
        await svc.tokens.verify(LEGACY)


async def test_a_repeated_import_adds_nothing(open_service):
    records = [{"secret": f"{LEGACY}{number}"} for number in range(2_500)]
    svc = await open_service(accept_foreign_tokens=True)
    assert await import_(svc, *records) == TokenImportReport(tokens=2_500)
    assert await import_(svc, *records) == TokenImportReport(present=2_500)
    moved = await open_service(accept_foreign_tokens=True, token_peppers={1: FIRST},
                         accept_unpeppered_tokens=True)  # fmt: skip
    assert await import_(moved, *records) == TokenImportReport(present=2_500)
    assert await import_(svc, records[0], {"secret": f"{LEGACY}x"}, {"secret": f"{LEGACY}x"}) == (
        TokenImportReport(tokens=1, present=2)
    )


async def test_concurrent_imports_store_each_token_once(dsn, pool):
    records = [{"secret": f"{LEGACY}{number}"} for number in range(3_000)]
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        reports = await asyncio.gather(
            import_(svc, *records), import_(svc, *records[::-1]), import_(svc, *records),
            return_exceptions=True,
        )  # fmt: skip
        # Two imports in opposite orders may deadlock. The aborted import is repeated.
        ended = [r for r in reports if isinstance(r, TokenImportReport)]
        assert all(isinstance(r, asyncsvc.Unavailable) for r in reports if r not in ended)
        again = await import_(svc, *records)
    assert again.rejected == 0
    assert sum(report.tokens for report in (*ended, again)) <= 3_000
    assert await pool.fetchval("SELECT count(*) FROM asyncsvc.api_token") == 3_000


async def test_a_secret_of_another_tenant_or_kind_is_rejected(open_service):
    svc = await open_service(accept_foreign_tokens=True)
    await import_(svc, {"secret": LEGACY}, tenant_id="first")
    rejected = []
    report = await import_(
        svc,
        {"secret": LEGACY},
        {"secret": BETA},
        {"secret": BETA, "kind": "beta"},
        on_rejected=lambda index, error: rejected.append((index, error)),
    )
    assert report == TokenImportReport(tokens=1, rejected=2)
    assert sorted(index for index, _ in rejected) == [0, 2]
    for _, error in rejected:
        assert type(error) is AlreadyExists
        assert str(error) == "another token has this secret"
    assert (await svc.tokens.verify(LEGACY)).tenant_id == "first"
    with pytest.raises(AlreadyExists):
        await import_(svc, {"secret": LEGACY})


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "must be 1 to 255"),
        ("a b", "must be 1 to 255"),
        ("x" * 256, "must be 1 to 255"),
        ("ä" * 30, "must be 1 to 255"),
        ("\ud800", "must be 1 to 255"),
        ("asv_" + "A" * 49, "must be 1 to 255"),
        ("other_" + "A" * 49, "must be 1 to 255"),
        (SHORT, "so short"),
        ("ragflow-" + "A" * 21, "so short"),
    ],
)
async def test_an_invalid_secret_is_rejected(open_service, secret, reason):
    svc = await open_service(accept_foreign_tokens=True)
    with pytest.raises(InvalidInput, match=rf"^records\.1\.secret: .*{reason}"):
        await import_(svc, {"secret": LEGACY}, {"secret": secret})
    rejected = []
    report = await import_(
        svc, {"secret": LEGACY}, {"secret": secret}, {"secret": LEGACY, "name": 5},
        on_rejected=lambda index, error: rejected.append((index, error.field)),
    )  # fmt: skip
    assert (report.tokens + report.present, report.rejected) == (1, 2)
    assert rejected == [(1, "secret"), (2, "name")]


@pytest.mark.parametrize(
    "field",
    [
        {"name": f"my key: {LEGACY}"},
        {"scopes": ["*", LEGACY]},
        {"dialog_id": LEGACY},
        {"source": LEGACY},
        {"metadata": {"row": [{"token": LEGACY}]}},
        {"metadata": {LEGACY: None}},
    ],
)
async def test_a_record_with_its_secret_in_another_field_is_rejected(open_service, pool, field):
    svc = await open_service(accept_foreign_tokens=True)
    with pytest.raises(
        InvalidInput, match=r"^records\.0\.secret: must not be part of another field"
    ):
        await import_(svc, {"secret": LEGACY, **field})
    assert not await pool.fetchval("SELECT count(*) FROM asyncsvc.api_token")
    for quoted in ('"' * 22, "\\" * 22):
        with pytest.raises(InvalidInput, match="must not be part of another field"):
            await import_(svc, {"secret": quoted, "name": f"it is {quoted}"})


async def test_a_short_secret_may_be_part_of_another_field(open_service):
    svc = await open_service(accept_foreign_tokens=True, token_peppers={1: FIRST})
    assert await import_(svc, {"secret": "a", "name": "a name"}) == TokenImportReport(tokens=1)


async def test_a_short_secret_is_imported_under_a_pepper(open_service):
    svc = await open_service(accept_foreign_tokens=True, token_peppers={1: FIRST})
    assert await import_(svc, {"secret": SHORT}) == TokenImportReport(tokens=1)
    token = await svc.tokens.verify(SHORT)
    assert token.hint == "admin-"


async def test_foreign_tokens_are_looked_up_only_if_the_setting_accepts_them(dsn, open_service):
    await import_(await open_service(accept_foreign_tokens=True), {"secret": LEGACY})
    strict = await open_service()
    with pytest.raises(InvalidToken):
        await strict.tokens.verify(LEGACY)
    with pytest.raises(InvalidInput, match=r"set Settings\.accept_foreign_tokens"):
        await import_(strict, {"secret": LEGACY})
    assert await import_(strict, {"secret": credentials.new_secret("other")}) == (
        TokenImportReport(tokens=1)
    )
    names = []
    watched = Settings(accept_foreign_tokens=True, on_query=lambda name, *_: names.append(name))
    async with asyncsvc.connect(dsn, settings=watched) as svc:
        good = (await issue(svc)).secret.get_secret_value()
        names.clear()
        for junk in (
            "", "x" * 256, "a b", "ä", "\x00", "\ud800", "asv_", good[:-1], good + "A",
            f"asv_{'A' * 49}", f"bcd_{'A' * 49}", f"{LEGACY}\n",
        ):  # fmt: skip
            with pytest.raises(InvalidToken):
                await svc.tokens.verify(junk)
        assert names == []
        for hash in (
            hashlib.sha256(good.encode()).hexdigest(),
            f"\\x{hashlib.sha256(good.encode()).hexdigest()}",
            "' OR 1=1 --",
            "'OR/**/1=1--",
        ):
            with pytest.raises(InvalidToken):
                await svc.tokens.verify(hash)


# --- absence of secrets


async def test_no_secret_is_in_a_table_a_log_or_an_error(open_service, pool, caplog):
    caplog.set_level(logging.DEBUG)
    svc = await open_service(
        token_peppers={1: FIRST, 2: SECOND}, token_pepper_version=1, accept_foreign_tokens=True
    )
    moved = await open_service(token_peppers={1: FIRST, 2: SECOND}, accept_foreign_tokens=True)
    issued = await issue(svc, scopes=["read"])
    new = await svc.tokens.rotate(issued.token.id, tenant_id="acme")
    seen = [repr(issued), str(issued), issued.model_dump_json(), repr(new), str(new)]
    secret = new.secret.get_secret_value()
    record = TokenRecord(secret=LEGACY)
    report = await svc.tokens.import_([record, {"secret": BETA, "kind": "beta"}], tenant_id="acme")
    seen += [repr(report), repr(record), str(record), record.model_dump_json()]

    async def dumped():
        tables = await pool.fetch(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname = 'asyncsvc'"
        )
        return [str(dict(row)) for (name,) in tables for row in await pool.fetch(f"TABLE {name}")]

    for work in (
        lambda: svc.tokens.verify(secret),
        lambda: moved.tokens.verify(secret),
        lambda: moved.tokens.used(LEGACY),
        lambda: svc.tokens.update_by_id(new.token.id, {"name": "x"}, tenant_id="acme"),
        lambda: svc.tokens.revoke(new.token.id, tenant_id="acme", reason="leaked"),
        lambda: svc.tokens.revoke_all(tenant_id="acme"),
        lambda: svc.tokens.delete_by_tenant_id(tenant_id="acme"),
    ):
        seen += [repr(await work()), *await dumped()]

    for call in (
        svc.tokens.verify(secret),
        svc.tokens.verify(secret[:-1]),
        svc.tokens.verify(f"{secret} "),
        svc.tokens.verify(secret, scopes=["admin"]),
        svc.tokens.verify(secret, kind="nonsense"),
        svc.tokens.verify(secret, nonsense=1),
        svc.tokens.verify([secret]),
        svc.tokens.verify(SecretStr(secret), scopes=secret),
        svc.tokens.create(tenant_id="acme", name=[secret]),
        svc.tokens.import_([{"secret": [secret]}], tenant_id="acme"),
        svc.tokens.import_([{"secret": secret, secret[:64]: 1}], tenant_id="acme"),
        svc.tokens.import_([{"secret": secret, LEGACY: 1}], tenant_id="acme"),
        svc.tokens.import_([{"secret": secret, BETA: 1}], tenant_id="acme"),
        svc.tokens.import_([{"secret": LEGACY, "name": LEGACY}], tenant_id="acme"),
        svc.tokens.import_([{"secret": f"{secret} "}], tenant_id="acme"),
    ):
        with pytest.raises((asyncsvc.AsyncSvcError, TypeError)) as caught:
            await call
        seen += [*traceback.format_exception(caught.value), repr(pickle.dumps(caught.value))]
    await import_(svc, {"secret": secret}, tenant_id="other")
    with pytest.raises(AlreadyExists) as caught:
        await import_(svc, {"secret": secret})
    seen += [*traceback.format_exception(caught.value), repr(pickle.dumps(caught.value))]
    with pytest.raises(InsufficientScope) as scope:
        await svc.tokens.verify((await issue(svc)).secret, scopes=["admin"])
    seen += [*traceback.format_exception(scope.value), caplog.text]
    assert "rejected a token" in caplog.text

    # The hint is public. The rest of the secret, the hashes and the peppers are not.
    kept = [issued.secret.get_secret_value(), secret, LEGACY, BETA]
    needles = [text[len(credentials.hint(text)) :][:12] for text in kept]
    logged = "".join(seen[:5]) + caplog.text
    hashes = [peppered(pepper, text).hex()[:16] for text in kept for pepper in (FIRST, SECOND)]
    assert not [text for text in seen if any(needle in text for needle in needles)]
    assert not [hash for hash in hashes if hash in logged]


@pytest.mark.parametrize("field", ["secret", "name"])
def test_an_invalid_record_does_not_show_its_secret(field):
    secret = credentials.new_secret("asv")
    wrong = {"secret": secret, field: [secret]}
    with pytest.raises(InvalidInput, match=f"^{field}: ") as caught:
        TokenRecord(**wrong)
    assert caught.value.__context__ is None  # pydantic's error holds the arguments
    with pytest.raises(ValidationError) as raw:
        TokenRecord.model_validate(wrong, context=Settings())
    assert secret[8:16] not in str(raw.value) + repr(raw.value)


async def test_an_invalid_call_does_not_keep_its_arguments(svc):
    secret = credentials.new_secret("asv")
    for call in (
        svc.tokens.verify([secret]),
        svc.tokens.verify(secret, kind="nonsense"),
        svc.tokens.create(tenant_id="acme", name=[secret]),
    ):
        with pytest.raises(InvalidInput) as caught:
            await call
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def variables(error):
    """Return the variables of the library's frames in the traceback of an error."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "asyncsvc" in frame.f_globals["__name__"].split("."):
                yield from map(repr, frame.f_locals.values())
        error = error.__cause__ or error.__context__


async def failing(record):
    yield record
    del record
    raise ZeroDivisionError


@pytest.mark.parametrize("form", [str, SecretStr])
async def test_no_secret_is_in_a_frame_when_the_database_fails(dsn, open_service, pool, form):
    quick = await open_service(statement_timeout=0.2, accept_foreign_tokens=True)
    issued = await issue(quick)
    secret = form(issued.secret.get_secret_value())
    rows, shown = ragflow.TokenRows(quick, "acme"), []
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE asyncsvc.api_token, asyncsvc.api_token_hash")
        for call in (
            quick.tokens.verify(secret),
            quick.tokens.verify(secret, record_use=False),
            quick.tokens.used(secret),
            quick.tokens.create(tenant_id="acme", name="x"),
            quick.tokens.rotate(issued.token.id, tenant_id="acme"),
            quick.tokens.import_([TokenRecord(secret=secret)], tenant_id="acme"),
            quick.tokens.import_([{"secret": secret}], tenant_id="acme"),
            quick.tokens.import_(iter([{"secret": secret}] * 2), tenant_id="acme"),
            rows.import_([ragflow.TokenRow.from_columns({"token": secret, "beta": secret})]),
            rows.find_valid(secret, "api"),
        ):
            with pytest.raises(asyncsvc.Unavailable) as caught:
                await call
            shown += variables(caught.value)
    for error, call in (
        (InvalidInput, quick.tokens.verify(secret, kind="nonsense")),
        (InvalidInput, quick.tokens.verify([secret])),
        (InvalidToken, quick.tokens.verify(secret, kind="beta")),
        (InsufficientScope, quick.tokens.verify(secret, scopes=["admin"])),
        (InvalidInput, quick.tokens.import_([{"secret": secret, "x": 1}], tenant_id="acme")),
        (InvalidInput, quick.tokens.import_([{"secret": [secret]}], tenant_id="acme")),
        (ZeroDivisionError, quick.tokens.import_(failing({"secret": secret}), tenant_id="acme")),
    ):
        with pytest.raises(error) as caught:
            await call
        shown += variables(caught.value)
    assert any("token_hash" in text for text in shown)
    assert not [text for text in shown if re.search("asv_[0-9A-Za-z]{9}", text)]


async def test_the_error_of_a_duplicate_secret_shows_no_secret_and_no_hash(svc, pool, monkeypatch):
    secret = credentials.new_secret("asv")
    monkeypatch.setattr("asyncsvc.services.tokens.new_secret", lambda _prefix: secret)
    await issue(svc)
    with pytest.raises(AlreadyExists) as caught:
        await issue(svc)
    text = "".join(traceback.format_exception(caught.value))
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert digest[:16] not in text
    assert secret[8:20] not in text


async def test_an_imported_token_begins_a_family(open_service):
    svc = await open_service(accept_foreign_tokens=True)
    await svc.tokens.import_([{"secret": "sk-" + "x" * 40}], tenant_id="acme")
    (imported,) = (await svc.tokens.get_list(tenant_id="acme")).items
    assert imported.family_id == imported.id
