"""Each recipe of the cookbook runs and prints what it says."""

import re
import subprocess
import sys

import pytest

from tests.support import pages

WITH_A_TEST_OF_THEIR_OWN = {
    "application_tests",
    "route_tests",
    "row_level_security",
    "transaction_pooler",
    "vector_search",
}
INCLUDE = r'--8<-- "docs/recipes/(\w+)\.py"'
COOKBOOK = {
    page.stem: page.read_text(encoding="utf-8")
    for page in (pages.ROOT / "docs" / "cookbook").glob("*.md")
}
OTHERS = sorted({path.stem for path in pages.RECIPES.glob("*.py")} - WITH_A_TEST_OF_THEIR_OWN)


@pytest.fixture
def run(dsn, monkeypatch, tmp_path):
    """Return the function that runs a recipe, on a database and in a folder of its own."""
    monkeypatch.setenv("ASYNCSVC_DSN", dsn)
    monkeypatch.chdir(tmp_path)
    return pages.run_recipe


@pytest.mark.parametrize("name", OTHERS)
def test_recipe(name, run):
    run(name)


@pytest.mark.parametrize("name", ["application_tests", "route_tests"])
def test_a_recipe_of_tests(name):
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{name}.py"],
        cwd=pages.RECIPES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in finished.stdout, finished.stdout


@pytest.fixture
async def without_role(pool):
    """Drop the role of the recipe afterwards, since roles belong to the whole server."""
    yield
    await pool.execute("DROP OWNED BY recipe_app")
    await pool.execute("DROP ROLE recipe_app")


def test_row_level_security(run, without_role):
    run("row_level_security")


def test_transaction_pooler(run, pgbouncer, monkeypatch):
    monkeypatch.setenv("ASYNCSVC_PGBOUNCER_DSN", pgbouncer["transaction"])
    run("transaction_pooler")


@pytest.fixture
async def has_pgvector(pool):
    query = "SELECT true FROM pg_available_extensions WHERE name = 'vector'"
    return bool(await pool.fetchval(query))


def test_vector_search(run, has_pgvector):
    if not has_pgvector:
        pytest.skip("the server has no pgvector")
    run("vector_search")


def test_the_cookbook_shows_each_recipe_once():
    shown = [name for page in COOKBOOK.values() for name in re.findall(INCLUDE, page)]
    assert sorted(shown) == sorted(path.stem for path in pages.RECIPES.glob("*.py"))


def test_the_index_of_the_cookbook_links_each_recipe():
    linked = re.findall(r"\[([^]]+)\]\((\w+)\.md#", COOKBOOK["index"])
    headings = [
        (heading, name)
        for name, page in COOKBOOK.items()
        for heading in re.findall(r"^## (.*)$", page, re.MULTILINE)
    ]
    assert sorted(linked) == sorted(headings)
