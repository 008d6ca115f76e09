"""The rules for migrations of a store in use, checked on the parsed commands of a file.

`docs/project/migrations.md` explains them. The first migration creates the schema and is exempt.
"""

from __future__ import annotations

from collections.abc import Iterator

from pglast import ast, enums, parse_sql

from asyncsvc.database.migration_files import MigrationFile

_ALTER = enums.AlterTableType
_CHECKED_CONSTRAINTS = {enums.ConstrType.CONSTR_CHECK, enums.ConstrType.CONSTR_FOREIGN}
_NULLS = {enums.ConstrType.CONSTR_NULL, enums.ConstrType.CONSTR_NOTNULL}
_INSTANT = {
    _ALTER.AT_ColumnDefault,
    _ALTER.AT_DropNotNull,
    _ALTER.AT_SetStatistics,
    _ALTER.AT_SetRelOptions,
    _ALTER.AT_ResetRelOptions,
    _ALTER.AT_ValidateConstraint,
}
_CONTRACTING = {_ALTER.AT_DropColumn, _ALTER.AT_DropConstraint}
_SHORT = {
    ast.CreateStmt,
    ast.CreateFunctionStmt,
    ast.CommentStmt,
    ast.CreateStatsStmt,
    ast.GrantStmt,
}
_CONTRACT = "A file that drops something has the label Contract."
_BACKFILL = "Rows are changed by a backfill."
_FORBIDDEN = {
    ast.InsertStmt: _BACKFILL,
    ast.UpdateStmt: _BACKFILL,
    ast.DeleteStmt: _BACKFILL,
    ast.RenameStmt: "Nothing is renamed: add the new name, drop the old one in a later release.",
}


def violations(file: MigrationFile) -> list[str]:
    """Return the rules that a file breaks, each as a sentence."""
    if file.kind == "backfill":
        return [] if len(file.commands) == 1 else ["A backfill is 1 statement."]
    statements = [raw.stmt for raw in parse_sql(";\n".join(file.commands))]
    created = {each.relation.relname for each in statements if isinstance(each, ast.CreateStmt)}
    broken = [rule for each in statements for rule in _rules(each, file, created)]
    if len({table for table, mode in file.locks if mode == "ACCESS EXCLUSIVE"}) > 1:
        broken.append("A file locks 1 existing table exclusively: split it.")
    return broken


def _rules(statement: ast.Node, file: MigrationFile, created: set[str]) -> Iterator[str]:
    kind = type(statement)
    if kind in _FORBIDDEN:
        yield _FORBIDDEN[kind]
    elif kind is ast.DropStmt:
        yield from _drop_rules(statement, file)
    elif kind in {ast.IndexStmt, ast.AlterTableStmt}:
        if statement.relation.relname not in created:
            rules = _index_rules if kind is ast.IndexStmt else _table_rules
            yield from rules(statement, file)
    elif kind not in _SHORT:
        yield f"{kind.__name__} is not known to be short."


def _drop_rules(statement: ast.DropStmt, file: MigrationFile) -> Iterator[str]:
    if statement.removeType == enums.ObjectType.OBJECT_INDEX:
        if not statement.concurrent:
            yield "An index is dropped with DROP INDEX CONCURRENTLY."
    elif file.oldest_release is None:
        yield _CONTRACT


def _index_rules(statement: ast.IndexStmt, file: MigrationFile) -> Iterator[str]:
    if not statement.concurrent:
        yield "An index on an existing table is built with CREATE INDEX CONCURRENTLY."
    elif file.kind != "concurrent":
        yield "A concurrent build needs the label Transaction: none."
    elif f"DROP INDEX CONCURRENTLY IF EXISTS asyncsvc.{statement.idxname}" not in file.commands:
        yield "A concurrent build follows a DROP INDEX CONCURRENTLY IF EXISTS of its index."


def _table_rules(statement: ast.AlterTableStmt, file: MigrationFile) -> Iterator[str]:
    for command in statement.cmds:
        yield from _alter_rules(command, file)


def _alter_rules(command: ast.AlterTableCmd, file: MigrationFile) -> Iterator[str]:
    kind = command.subtype
    if kind == _ALTER.AT_AddColumn:
        yield from _column_rules(command.def_)
    elif kind == _ALTER.AT_AddConstraint:
        constraint = command.def_
        is_short = (
            constraint.skip_validation
            if constraint.contype in _CHECKED_CONSTRAINTS
            else constraint.indexname is not None
        )
        if not is_short:
            yield "A constraint is NOT VALID, or uses an index that exists."
    elif kind == _ALTER.AT_ValidateConstraint and file.kind != "concurrent":
        yield "A validation has a file of its own with the label Transaction: none."
    elif kind in _CONTRACTING:
        if file.oldest_release is None:
            yield _CONTRACT
    elif kind not in _INSTANT:
        yield f"{_ALTER(kind).name} rewrites or scans the table, or is not known to be short."


def _column_rules(column: ast.ColumnDef) -> Iterator[str]:
    kinds = {constraint.contype: constraint for constraint in column.constraints or ()}
    default = kinds.pop(enums.ConstrType.CONSTR_DEFAULT, None)
    if kinds.keys() - _NULLS:
        yield "A new column has no constraint other than NOT NULL."
    if enums.ConstrType.CONSTR_NOTNULL in kinds and default is None:
        yield "A new column that is NOT NULL has a default."
    if default is not None and not _is_constant(default.raw_expr):
        yield "The default of a new column is a constant."


def _is_constant(expression: ast.Node) -> bool:
    if isinstance(expression, ast.TypeCast):
        return _is_constant(expression.arg)
    return isinstance(expression, ast.A_Const)
