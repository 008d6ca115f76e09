"""Detect SQL constructs that Citus rejects, in a parsed tree.

Each construct failed on Citus 13.2. A statement without them is not proven to run on Citus; for
that, run the tests with `ASYNCSVC_TEST_CITUS=1` on a server with Citus.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pglast
from pglast import ast, enums

LOCAL = {"api_token_hash", "maintenance", "migration"}
"""Tables of the coordinator; a statement may read them without a tenant."""
CHANGING = {"clock_timestamp", "gen_random_uuid", "nextval", "random", "timeofday", "uuidv7"}
IMMUTABLE = {"json_merge_v1", "octet_length"}
READING = {"budget_status_v1"}
"""Functions of the schema that read its tables."""
STABLE = {"now", "statement_timestamp", "to_char", "transaction_timestamp"}

Node = Any


def parsed(text: str) -> list[Node]:
    """Parse commands into trees."""
    return [raw.stmt for raw in pglast.parse_sql(text)]


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all its descendants."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, tuple | list):
            waiting.extend(reversed(each))
        elif isinstance(each, ast.Node):
            yield each
            waiting.extend(getattr(each, name) for name in reversed(list(each.__slots__)))


def of(kind: type | tuple[type, ...], node: Node) -> list[Node]:
    return [each for each in walk(node) if isinstance(each, kind)]


def functions(node: Node) -> set[str]:
    """Return the names of the functions that a node calls."""
    called = {call.funcname[-1].sval for call in of(ast.FuncCall, node)}
    return called | ({"now"} if of(ast.SQLValueFunction, node) else set())


def tables(node: Node) -> list[Node]:
    """Return the tables of the schema in a FROM, without those of subqueries."""
    result = []
    for each in node or ():
        if isinstance(each, ast.JoinExpr):
            result += tables((each.larg, each.rarg))
        elif isinstance(each, ast.RangeVar) and each.schemaname == "asyncsvc":
            result.append(each)
    return result


def alias(table: Node) -> str:
    return str(table.alias.aliasname if table.alias else table.relname)


def is_distributed(table: Node) -> bool:
    return table.schemaname == "asyncsvc" and table.relname not in LOCAL


def equalities(condition: Node) -> Iterator[tuple[Node, Node]]:
    """Yield the two sides of each `=` of a condition, in both orders."""
    for each in of(ast.A_Expr, condition):
        if each.name and each.name[-1].sval == "=":
            yield each.lexpr, each.rexpr
            yield each.rexpr, each.lexpr


def tenant_of(node: Node) -> str | None:
    """Return the alias of `alias.tenant_id`, or None for another node."""
    if isinstance(node, ast.ColumnRef) and node.fields[-1].sval == "tenant_id":
        return str(node.fields[0].sval)
    return None


def is_parameter(node: Node) -> bool:
    """Return whether a node is a parameter, with or without a collation or cast."""
    while isinstance(node, ast.CollateClause | ast.TypeCast):
        node = node.arg
    return isinstance(node, ast.ParamRef)


def unbound(relations: Sequence[Node], condition: Node) -> set[str]:
    """Return the aliases of tables whose tenant is not bound to a parameter or a bound table."""
    pairs = [(tenant_of(one), other) for one, other in equalities(condition)]
    bound = {one for one, other in pairs if one and is_parameter(other)}
    for _ in relations:
        bound |= {one for one, other in pairs if one and tenant_of(other) in bound}
    return {alias(each) for each in relations if is_distributed(each)} - bound


def conditions(select: Node) -> list[Node]:
    joins = [join.quals for item in select.fromClause or () for join in of(ast.JoinExpr, item)]
    return [select.whereClause, *joins]


def faults(tree: Node, *, of_all_tenants: bool = False, for_one_node: bool = False) -> list[str]:
    """Return the constructs that Citus rejects, or sends to all shards.

    `of_all_tenants` allows reads of all tenants, `for_one_node` a write whose tenant is that of a
    join, which the node of the tenant runs on its shards.
    """
    constructs = itertools.chain(
        on_inserts(tree),
        on_updates(tree),
        on_returning(tree),
        on_locks(tree),
        on_functions(tree),
        on_subqueries(tree),
        () if of_all_tenants else on_tenants(tree),
        () if of_all_tenants or for_one_node else on_targets(tree),
        on_recursion(tree),
        on_definitions(tree),
    )
    return sorted(set(constructs))


def on_inserts(tree: Node) -> Iterator[str]:
    if of(ast.MergeStmt, tree):
        yield "MERGE"
    for insert in of(ast.InsertStmt, tree):
        if insert.selectStmt and of(ast.SubLink, insert.selectStmt.valuesLists):
            yield "a subquery in VALUES"
        conflict = insert.onConflictClause
        if conflict and conflict.action == enums.OnConflictAction.ONCONFLICT_UPDATE:
            if functions((conflict.targetList, conflict.whereClause)) - IMMUTABLE:
                yield "a function in DO UPDATE"
            if of(ast.SubLink, (conflict.targetList, conflict.whereClause)):
                yield "a subquery in DO UPDATE"


def on_updates(tree: Node) -> Iterator[str]:
    for update in of(ast.UpdateStmt, tree):
        if functions(update.targetList) & CHANGING:
            yield "a volatile function in SET"
        for choice in of((ast.CaseExpr, ast.CoalesceExpr), update):
            if functions(choice) & (STABLE | CHANGING):
                yield "a function that is not immutable in CASE or COALESCE of an UPDATE"
        if any(target.name == "tenant_id" for target in update.targetList):
            yield "an UPDATE of tenant_id"


def on_targets(tree: Node) -> Iterator[str]:
    """Yield a write that Citus sends to all shards: its tenant is only that of a join."""
    for write in of((ast.UpdateStmt, ast.DeleteStmt), tree):
        pairs = equalities(write.whereClause)
        named = {tenant_of(one) for one, other in pairs if is_parameter(other)}
        if is_distributed(write.relation) and alias(write.relation) not in named:
            yield "a write whose tenant no parameter gives"


def on_returning(tree: Node) -> Iterator[str]:
    for write in of((ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt), tree):
        if functions(write.returningClause):
            yield "a function in RETURNING"


def on_locks(tree: Node) -> Iterator[str]:
    inserts = of(ast.InsertStmt, tree)
    for select in of(ast.SelectStmt, tree):
        if not select.lockingClause:
            continue
        if unbound(tables(select.fromClause), conditions(select)):
            yield "a lock of rows of all tenants"
        # Citus adds hidden columns to its result, which makes the server read it as text.
        many = len(select.fromClause) > 1 or isinstance(select.fromClause[0], ast.JoinExpr)
        if inserts and many and any(lock.lockedRels for lock in select.lockingClause):
            yield "a lock of one of several tables, in a statement that inserts"


def on_functions(tree: Node) -> Iterator[str]:
    if functions(tree) & READING and any(map(is_distributed, of(ast.RangeVar, tree))):
        yield "a function that reads tables, beside a table"


def on_subqueries(tree: Node) -> Iterator[str]:
    for subquery in of(ast.RangeSubselect, tree):
        select = subquery.subquery
        has_columns = select.targetList or select.valuesLists or select.larg
        if not has_columns and unbound(tables(select.fromClause), conditions(select)):
            yield "a subquery without columns of all tenants"


def on_tenants(tree: Node) -> Iterator[str]:
    """Yield a read of rows whose tenant is neither a parameter nor that of a bound table."""
    for select in of(ast.SelectStmt, tree):
        for name in unbound(tables(select.fromClause), conditions(select)):
            yield f"a read of {name} whose tenant no parameter gives"
    for subquery in of(ast.GroupingSet, tree):
        if subquery.kind and not of(ast.ParamRef, tree):
            yield "GROUPING SETS of all tenants"


def on_recursion(tree: Node) -> Iterator[str]:
    for clause in of(ast.WithClause, tree):
        if not clause.recursive:
            continue
        selects = of(ast.SelectStmt, clause)
        read = [table for select in selects for table in tables(select.fromClause)]
        is_unbound = any(unbound(tables(s.fromClause), conditions(s)) for s in selects)
        writes = of((ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt), tree)
        if is_unbound or (writes and any(not is_distributed(table) for table in read)):
            yield "a recursion over more than one tenant"


def on_definitions(tree: Node) -> Iterator[str]:
    """Yield the constructs that a migration of distributed tables must not contain."""
    if of(ast.CreateTrigStmt, tree):
        yield "a trigger"
    for command in of(ast.AlterTableCmd, tree):
        if command.subtype == enums.AlterTableType.AT_AddColumn and any(
            each.contype == enums.ConstrType.CONSTR_CHECK
            for each in of(ast.Constraint, command.def_)
        ):
            yield "ADD COLUMN with a CHECK"
    for index in of(ast.IndexStmt, tree):
        columns = {each.name for each in index.indexParams}
        if index.unique and is_distributed(index.relation) and "tenant_id" not in columns:
            yield "a unique index without the tenant"
    for table in of(ast.CreateStmt, tree):
        if is_distributed(table.relation):
            yield from on_constraints(table)


def on_constraints(table: Node) -> Iterator[str]:
    unique = {enums.ConstrType.CONSTR_PRIMARY, enums.ConstrType.CONSTR_UNIQUE}
    for column in of(ast.ColumnDef, table):
        if any(each.contype in unique for each in column.constraints or ()):
            yield "a key without the tenant"
    for each in table.tableElts:
        if not isinstance(each, ast.Constraint):
            continue
        columns = {key.sval for key in (*(each.keys or ()), *(each.fk_attrs or ()))}
        if (
            each.contype in {*unique, enums.ConstrType.CONSTR_FOREIGN}
            and "tenant_id" not in columns
        ):
            yield "a key without the tenant"
        if each.contype == enums.ConstrType.CONSTR_FOREIGN and each.pktable.relname in LOCAL:
            yield "a reference to a table of the coordinator"
