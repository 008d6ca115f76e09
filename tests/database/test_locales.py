"""A search ignores the case of letters of all alphabets, with any locale of the database."""

import secrets
from collections.abc import AsyncIterator

import pytest

import asyncsvc
from tests.conftest import drop_database, dsn_of, fetch
from tests.support.citus import execute

WORDS = {
    "Öl": ["öl", "ÖL"],
    "JOÃO": ["joão", "João"],
    "Москва": ["москва", "МОСКВА"],
    "ΟΔΟΣ": ["οδος", "οδοσ", "οδός".replace("ό", "ο"), "ΟΔΟ"],
    "οδος": ["ΟΔΟΣ", "οδοσ"],
    "ΟΔΟΣΑ": ["ΟΔΟΣ", "οδος"],
    "ÇA": ["ça"],
    "Plain": ["plain", "PLAIN"],
}


@pytest.fixture(params=["C", "C.UTF-8"])
async def svc(request, server_dsn) -> AsyncIterator[asyncsvc.AsyncSvc]:
    """The services on a database of this locale."""
    name = f"asyncsvc_locale_{secrets.token_hex(4)}"
    await execute(
        server_dsn,
        f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE '{request.param}'",
    )
    try:
        async with asyncsvc.connect(dsn_of(server_dsn, name)) as svc:
            await svc.migrate()
            yield svc
    finally:
        await drop_database(server_dsn, name)


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_each_spelling_is_found(svc, is_indexed):
    for number, word in enumerate(WORDS):
        await svc.conversations.create(tenant_id="t", dialog_id="d", id=f"{number}", name=word)
        turn = {"messages": [{"role": "user", "content": f"the {word}!"}]}
        await svc.conversations.append_message(f"{number}", turn, tenant_id="t")
    if is_indexed:
        await svc.maintain()
    for number, (word, spellings) in enumerate(WORDS.items()):
        for keywords in [word, *spellings]:
            hits = await svc.conversations.search(keywords, tenant_id="t")
            snippets = {hit.id: hit.snippet for hit in hits.items}
            assert snippets.get(f"{number}") == f"the {word}!", keywords
            page = await svc.conversations.get_list(tenant_id="t", keywords=keywords)
            assert f"{number}" in {item.id for item in page.items}, keywords
    (finding,) = [each for each in await svc.doctor() if each.check == "search"]
    assert finding.level == "ok"


async def test_the_doctor_reports_a_search_that_knows_ascii_only(dsn, svc):
    del svc
    await execute(
        dsn,
        "ALTER COLLATION asyncsvc.search RENAME TO unicode; CREATE COLLATION asyncsvc.search"
        " (provider = libc, locale = 'C')",
    )
    async with asyncsvc.connect(dsn) as poor:
        (finding,) = [each for each in await poor.doctor() if each.check == "search"]
    assert finding.level == "warning"
    assert "rules of the locale C" in finding.observed
    await execute(
        dsn,
        "DROP COLLATION asyncsvc.search; ALTER COLLATION asyncsvc.unicode RENAME TO search",
    )
    assert await fetch(dsn, "SELECT asyncsvc.lower_v1('Σς')") == "σσ"
