"""The page of the schema shows the sum of the migrations."""

import os
from pathlib import Path

from asyncsvc.database import sql_files
from scripts.docs.root_files import ROOT
from scripts.docs.sql import schema_page

PAGE = ROOT / "docs/reference/schema.md"
DUMP = Path(__file__).parents[1] / "support" / "sql" / "dump_schema.sql"
MIGRATIONS = Path(str(sql_files.root())) / "migrations"


async def test_the_page_of_the_schema_is_the_sum_of_the_migrations(pool):
    schema = await pool.fetchval(DUMP.read_text(encoding="utf-8"))
    files = [file.read_text(encoding="utf-8") for file in sorted(MIGRATIONS.glob("*.sql"))]
    page = schema_page(f"{schema}\n", "".join(files))
    if os.environ.get("ASYNCSVC_UPDATE_SCHEMA"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page
