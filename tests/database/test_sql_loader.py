"""The SQL loader: parameters, marked lines and blocks, and the errors it reports."""

import pytest

from asyncsvc.database.sql_files import SQLFileError, Statement, commands
from asyncsvc.validation.types import UNSET


def compiled(sql: str, *flags: str, **parameters: object) -> tuple[str, tuple[object, ...]]:
    """Return the text without the comment that names the file, and the arguments."""
    query = Statement("test/statement", f"-- A header.\n{sql}").bind(flags, parameters)
    return query.text.split("\n", 1)[1], query.arguments


# ------------------------------------------------------------------------------- parameters


def test_a_parameter_is_numbered_by_its_first_use_and_sent_once():
    assert compiled("SELECT :b, :a, :b", a=1, b=2) == ("SELECT $1, $2, $1", (2, 1))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ':a', 'it''s :a', E'\\':a'",
        'SELECT ":a"',
        "SELECT $$ :a $$, $tag$ :a $$ $tag$",
        "SELECT x::text, (x)::int[]",
        "SELECT list[1:n], list[:n], list[lower:upper], f(x)[1:n]",
        "SELECT '100%' LIKE '%s'",
    ],
)
def test_colons_in_strings_names_casts_and_slices_are_not_parameters(sql):
    assert compiled(sql) == (sql, ())


def test_a_colon_after_the_bracket_of_an_array_begins_a_parameter():
    assert compiled("SELECT ARRAY[:a, :b]", a=1, b=2)[0] == "SELECT ARRAY[$1, $2]"


def test_comments_are_removed():
    sql = "SELECT 1 -- :a\n/* :b\n :c */\n     , 2"
    assert compiled(sql)[0] == "SELECT 1\n     , 2"


def test_a_required_parameter_may_be_used_on_any_line():
    sql = "SELECT :a\n AND b = :a --? flag"
    assert compiled(sql, "flag", a=1)[0] == "SELECT $1\n AND b = $1"


# ----------------------------------------------------------------------------- marked lines


OPTIONAL = """\
SELECT 1
 WHERE true
   AND a = :a            --? a
   AND b IS NULL         --? b_is_null
   AND (a, b) > (:a, :b) --? a, b
"""


def test_a_marked_line_is_kept_if_all_its_names_are_present():
    assert compiled(OPTIONAL) == ("SELECT 1\n WHERE true", ())
    assert compiled(OPTIONAL, a=1) == ("SELECT 1\n WHERE true\n   AND a = $1", (1,))
    assert compiled(OPTIONAL, "b_is_null")[0].endswith("AND b IS NULL")
    assert compiled(OPTIONAL, a=1, b=2)[1] == (1, 2)


def test_a_marked_line_is_dropped_if_a_negated_name_is_present():
    sql = "SELECT 1\n AND b = 2 --? a, !b\n AND a = :a --? a"
    assert compiled(f"{sql}\n AND c --? b", a=1)[0] == "SELECT 1\n AND b = 2\n AND a = $1"
    assert compiled(f"{sql}\n AND c --? b", "b", a=1)[0] == "SELECT 1\n AND a = $1\n AND c"


def test_none_is_sent_as_null_and_unset_drops_the_line():
    assert compiled(OPTIONAL, a=None) == ("SELECT 1\n WHERE true\n   AND a = $1", (None,))
    assert compiled(OPTIONAL, a=UNSET) == compiled(OPTIONAL)


def test_none_raises_the_is_null_flag_of_a_parameter_that_has_one():
    assert compiled(OPTIONAL, b=None) == compiled(OPTIONAL, "b_is_null")
    assert compiled(OPTIONAL, a=1, b=None) == (
        "SELECT 1\n WHERE true\n   AND a = $1\n   AND b IS NULL",
        (1,),
    )
    assert compiled(OPTIONAL, "b_is_null", b=None) == compiled(OPTIONAL, "b_is_null")


def test_a_parameter_is_not_sent_if_all_its_lines_are_dropped():
    assert compiled(OPTIONAL, b=2) == ("SELECT 1\n WHERE true", ())


ORDERED = "SELECT 1\n ORDER BY 1 --? up\n ORDER BY 1 DESC --? down"


def test_exactly_one_marked_order_is_kept():
    assert compiled(ORDERED, "up")[0] == "SELECT 1\n ORDER BY 1"
    for flags in ((), ("up", "down")):
        with pytest.raises(TypeError, match="needs one of down, up"):
            compiled(ORDERED, *flags)


# ------------------------------------------------------------------------------------ blocks


BLOCK = """\
SELECT 1
--? a {
 WHERE a = :a
   AND b = :b --? b
--? }
 LIMIT 1
"""
NESTED = """\
SELECT 1
--? a {
   AND a
--? !b {
   AND NOT b
   AND c --? c
--? }
   AND z
--? }
"""


def test_a_block_is_kept_or_dropped_as_a_whole():
    assert compiled(BLOCK) == ("SELECT 1\n LIMIT 1", ())
    assert compiled(BLOCK, a=1) == ("SELECT 1\n WHERE a = $1\n LIMIT 1", (1,))
    assert compiled(BLOCK, a=1, b=2)[1] == (1, 2)


def test_a_marked_line_in_a_dropped_block_is_dropped():
    assert compiled(BLOCK, b=2) == ("SELECT 1\n LIMIT 1", ())


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ("", ""),
        ("b", ""),
        ("c", ""),
        ("a", "AND a AND NOT b AND z"),
        ("ac", "AND a AND NOT b AND c AND z"),
        ("ab", "AND a AND z"),
        ("abc", "AND a AND z"),
    ],
)
def test_an_inner_block_is_kept_if_all_conditions_around_it_hold(flags, kept):
    sql = f"{NESTED}   AND x --? b, !a, !c, !b"  # declares b, in a line that is never kept
    assert " ".join(compiled(sql, *flags)[0].split()) == f"SELECT 1 {kept}".strip()


def test_parameters_are_numbered_across_kept_blocks_only():
    sql = "SELECT :z\n--? a {\n, :a\n--? }\n--? b {\n, :b, :z\n--? }"
    assert compiled(sql, a=1, b=2, z=3) == ("SELECT $1\n, $2\n, $3, $1", (3, 1, 2))
    assert compiled(sql, b=2, z=3) == ("SELECT $1\n, $2, $1", (3, 2))


def test_a_marked_order_in_a_block_is_kept_if_the_block_is_kept():
    sql = f"SELECT 0\n--? page {{\n{ORDERED.removeprefix('SELECT 1')}\n--? }}"
    assert compiled(sql, "page", "down")[0] == "SELECT 0\n ORDER BY 1 DESC"
    assert compiled(sql, "down")[0] == "SELECT 0"
    with pytest.raises(TypeError, match="needs one of down, up"):
        compiled(sql, "page")


def test_an_unmarked_order_in_a_block_depends_on_the_block_only():
    sql = "SELECT 1\n--? sorted {\n ORDER BY 1\n--? }"
    assert compiled(sql)[0] == "SELECT 1"
    assert compiled(sql, "sorted")[0] == "SELECT 1\n ORDER BY 1"


def test_none_drops_the_block_of_a_parameter_and_keeps_that_of_its_is_null_flag():
    sql = "SELECT 1\n--? a {\n AND a = :a\n--? }\n--? a_is_null {\n AND a IS NULL\n--? }"
    assert compiled(sql, a=None) == ("SELECT 1\n AND a IS NULL", ())
    assert compiled(sql, a=1) == ("SELECT 1\n AND a = $1", (1,))


# ------------------------------------------------------------------------------------ errors


def test_unknown_and_missing_names_are_type_errors():
    with pytest.raises(TypeError, match="has no c"):
        compiled(OPTIONAL, c=1)
    with pytest.raises(TypeError, match="has no a"):
        compiled("SELECT 1", "a")
    with pytest.raises(TypeError, match="needs a"):
        compiled("SELECT :a", a=UNSET)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("SELECT 1", "header is missing"),
        ("-- A header.\n-- No more.", "statement is missing"),
        ("-- A header.\nSELECT 1; SELECT 2", "semicolon"),
        ("-- A header.\nSELECT 1 --? a b", "not a list of names"),
        ("-- A header.\nSELECT 1\n AND a = :a --? b", "uses a and is kept without it"),
        ("-- A header.\nSELECT 1\n AND :a = :b --? a", "uses b and is kept without it"),
        ("-- A header.\nSELECT 1\n--? b {\n AND :a\n--? }", "uses a and is kept without it"),
        ("-- A header.\nSELECT 1\n--? !a {\n AND :a\n--? }", "uses a and is kept without it"),
        ("-- A header.\nSELECT 1\n--? a {\n AND 2", "block is not closed"),
        ("-- A header.\nSELECT 1\n--? a {\n--? b {\n AND 2\n--? }", "block is not closed"),
        ("-- A header.\nSELECT 1\n--? }", "no block is open"),
        ("-- A header.\nSELECT 1\n--? a {\n AND 2\n--? }\n--? }", "no block is open"),
        ("-- A header.\nSELECT 1 --? a {\n AND 2\n--? }", "line of its own"),
        ("-- A header.\nSELECT 1\n--? a {\n AND 2 --? }", "line of its own"),
        ("-- A header.\nSELECT 1\n--? {\n AND 2\n--? }", "not a list of names"),
        ("-- A header.\nSELECT 1\n--? a {\n AND 2\n--? a }", "mark needs a line"),
        ("-- A header.\nSELECT 1\n--? a", "mark needs a line"),
    ],
)
def test_a_file_that_breaks_the_rules_is_rejected(source, message):
    with pytest.raises(SQLFileError, match=message):
        Statement("test/statement", source)


KEYED = """\
-- Write a row.
--
{label}
INSERT INTO asyncsvc.x VALUES (:a)
ON CONFLICT (:key) DO NOTHING --? key
   FOR x                      --? !key, flag
"""


@pytest.mark.parametrize(
    ("label", "flags", "values", "is_idempotent"),
    [
        ("-- Locks: none.", (), {"key": 1}, False),
        ("-- Idempotent: a retry changes nothing.", (), {}, True),
        ("-- Idempotent: if key: a retry finds the key.", (), {}, False),
        ("-- Idempotent: if key: a retry finds the key.", (), {"key": UNSET}, False),
        ("-- Idempotent: if key: a retry finds the key.", (), {"key": 1}, True),
        ("-- Idempotent: if key, !flag: a retry finds it.", (), {"key": 1}, True),
        ("-- Idempotent: if key, !flag: a retry finds it.", ("flag",), {"key": 1}, False),
    ],
)
def test_a_write_is_idempotent_if_the_header_says_so(label, flags, values, is_idempotent):
    statement = Statement("test/statement", KEYED.format(label=label))
    assert statement.bind(flags, {"a": 1} | values).is_idempotent is is_idempotent


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("-- Idempotent: if kee: a retry finds the key.", "no kee"),
        ("-- Idempotent: if a: a is always present.", "no a"),
        ("-- Idempotent: if there is a key: a retry finds it.", "not a list of names"),
        ("-- Idempotent: if key, a retry finds the key.", "needs a list of names"),
        ("-- Idempotent: if key\n-- : a retry finds the key.", "needs a list of names"),
    ],
)
def test_a_condition_of_idempotence_needs_optional_names_of_the_file(label, message):
    with pytest.raises(SQLFileError, match=message):
        Statement("test/statement", KEYED.format(label=label))


def test_a_statement_that_writes_cannot_run_on_a_replica():
    with pytest.raises(SQLFileError, match="a replica cannot"):
        Statement("test/statement", "-- Do it.\n--\n-- Read replica: no.\nDELETE FROM asyncsvc.x")


def test_the_number_of_compiled_variants_is_bounded():
    marked = "\n".join(f" AND {n} = :p{n} --? p{n}" for n in range(12))
    statement = Statement("test/statement", f"-- A header.\nSELECT 1 WHERE true\n{marked}")
    for number in range(2**12):
        present = {f"p{n}": n for n in range(12) if number >> n & 1}
        statement.bind((), present)
    assert statement._compile.cache_info().currsize <= 256


def test_the_text_names_the_file():
    query = Statement("test/statement", "-- A header.\nSELECT 1").bind((), {})
    assert query.text.startswith("/* asyncsvc test/statement */\n")


# -------------------------------------------------------------------------------- migrations


def test_a_migration_is_split_into_its_commands():
    source = "-- First; and\nCREATE TABLE a (b text DEFAULT ';');\n\nDO $$ BEGIN; END $$;\n-- End;"
    assert commands(source) == ["CREATE TABLE a (b text DEFAULT ';')", "DO $$ BEGIN; END $$"]


def test_a_migration_has_no_parameters():
    assert commands("SELECT a[x :y], 1::int;") == ["SELECT a[x :y], 1::int"]
