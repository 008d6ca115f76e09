"""The loader: what it takes for a parameter, which lines it keeps, what it refuses."""

import pytest

from asyncsvc.database.sql_files import SQLFileError, Statement, commands
from asyncsvc.validation.types import UNSET


def compiled(sql: str, *flags: str, **parameters: object) -> tuple[str, tuple[object, ...]]:
    """The text without the comment that names the file, and the arguments."""
    query = Statement("test/statement", f"-- A header.\n{sql}").bind(flags, parameters)
    return query.text.split("\n", 1)[1], query.arguments


def test_a_parameter_is_numbered_by_its_first_use_and_once():
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
def test_nothing_else_is_taken_for_a_parameter(sql):
    assert compiled(sql) == (sql, ())


def test_a_parameter_in_an_array_is_no_slice():
    assert compiled("SELECT ARRAY[:a, :b]", a=1, b=2)[0] == "SELECT ARRAY[$1, $2]"


def test_comments_are_not_sent():
    sql = "SELECT 1 -- :a\n/* :b\n :c */\n     , 2"
    assert compiled(sql)[0] == "SELECT 1\n     , 2"


OPTIONAL = """\
SELECT 1
 WHERE true
   AND a = :a            --? a
   AND b IS NULL         --? b_is_null
   AND (a, b) > (:a, :b) --? a, b
"""


def test_a_marked_line_is_kept_when_all_its_names_are_present():
    assert compiled(OPTIONAL) == ("SELECT 1\n WHERE true", ())
    assert compiled(OPTIONAL, a=1) == ("SELECT 1\n WHERE true\n   AND a = $1", (1,))
    assert compiled(OPTIONAL, "b_is_null")[0].endswith("AND b IS NULL")
    assert compiled(OPTIONAL, a=1, b=2)[1] == (1, 2)


def test_none_is_a_value_and_unset_is_none():
    assert compiled(OPTIONAL, a=None) == ("SELECT 1\n WHERE true\n   AND a = $1", (None,))
    assert compiled(OPTIONAL, a=UNSET) == compiled(OPTIONAL)


def test_a_parameter_whose_lines_all_went_is_not_sent():
    assert compiled(OPTIONAL, b=2) == ("SELECT 1\n WHERE true", ())


ORDERED = "SELECT 1\n ORDER BY 1 --? up\n ORDER BY 1 DESC --? down"


def test_exactly_one_order_is_kept():
    assert compiled(ORDERED, "up")[0] == "SELECT 1\n ORDER BY 1"
    for flags in ((), ("up", "down")):
        with pytest.raises(TypeError, match="needs one of down, up"):
            compiled(ORDERED, *flags)


def test_wrong_names_are_mistakes_of_the_caller():
    with pytest.raises(TypeError, match="has no c"):
        compiled(OPTIONAL, c=1)
    with pytest.raises(TypeError, match="has no a"):
        compiled("SELECT 1", "a")
    with pytest.raises(TypeError, match="needs a"):
        compiled("SELECT :a", a=UNSET)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("SELECT 1", "no header"),
        ("-- A header.\n-- No more.", "no statement"),
        ("-- A header.\nSELECT 1; SELECT 2", "semicolon"),
        ("-- A header.\nSELECT 1 --? a b", "not a list of names"),
        ("-- A header.\nSELECT 1\n AND a = :a --? b", "kept without it"),
        ("-- A header.\nSELECT 1\n AND :a = :b --? a", "kept without it"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused(source, complaint):
    with pytest.raises(SQLFileError, match=complaint):
        Statement("test/statement", source)


def test_a_required_parameter_may_stand_on_any_line():
    sql = "SELECT :a\n AND b = :a --? flag"
    assert compiled(sql, "flag", a=1)[0] == "SELECT $1\n AND b = $1"


def test_variants_are_bounded():
    marked = "\n".join(f" AND {n} = :p{n} --? p{n}" for n in range(12))
    statement = Statement("test/statement", f"-- A header.\nSELECT 1 WHERE true\n{marked}")
    for number in range(2**12):
        present = {f"p{n}": n for n in range(12) if number >> n & 1}
        statement.bind((), present)
    assert statement._compile.cache_info().currsize <= 256


def test_the_server_sees_the_name_of_the_file():
    query = Statement("test/statement", "-- A header.\nSELECT 1").bind((), {})
    assert query.text.startswith("/* asyncsvc test/statement */\n")


def test_a_migration_is_split_into_its_commands():
    source = "-- First; and\nCREATE TABLE a (b text DEFAULT ';');\n\nDO $$ BEGIN; END $$;\n-- End;"
    assert commands(source) == ["CREATE TABLE a (b text DEFAULT ';')", "DO $$ BEGIN; END $$"]


def test_a_migration_may_hold_what_elsewhere_is_a_parameter():
    assert commands("SELECT a[x :y], 1::int;") == ["SELECT a[x :y], 1::int"]
