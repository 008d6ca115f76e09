"""`sql/schema.sql` is the sum of the migrations."""

import os
from pathlib import Path

from asyncsvc.database import sql_files

SCHEMA = Path(str(sql_files.root())) / "schema.sql"
DUMP = Path(__file__).parents[1] / "support" / "sql" / "dump_schema.sql"
HEADER = """\
-- The schema after all migrations, in one piece, to read. Nothing runs this file.
-- sql/migrations/ has the reasons for each table and index.
--
-- Generated: ASYNCSVC_UPDATE_SCHEMA=1 pytest tests/database/test_schema.py

"""


async def test_schema_sql_is_the_sum_of_the_migrations(pool):
    schema = await pool.fetchval(DUMP.read_text(encoding="utf-8"))
    text = f"{HEADER}{schema}\n"
    if os.environ.get("ASYNCSVC_UPDATE_SCHEMA"):
        SCHEMA.write_text(text, encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == text
