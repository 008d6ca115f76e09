"""Load the SQL files and compile them to the statements that the server receives.

A file contains one statement after a header in prose. `docs/project/sql-files.md` describes its
parameters, the marks of its optional parts, and the labels of the header. UNSET is no value of a
parameter, and None is NULL, or raises the flag `x_is_null` if the file has it, because `= NULL`
matches no row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, NamedTuple

from asyncsvc.validation.types import UNSET

_TOKEN = re.compile(
    r"""
    (?P<mark>--\?[^\n]*)                          # --? names
  | (?P<comment>--[^\n]*|/\*.*?\*/)
  | (?P<opaque>
        [eE]'(?:[^'\\]|''|\\.)*'                  # E'it\'s'
      | '(?:[^']|'')*'                            # 'it''s'
      | "(?:[^"]|"")*"                            # "name"
      | \$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$ # $tag$ body $tag$
      | ::                                        # a cast
      | (?i:\bARRAY)\s*\[                         # no subscript: a parameter may follow
      | \[\s*:                                   # a slice from the first element
      | (?<=[\w)\]"']):                          # a slice
    )
  | :(?P<parameter>[A-Za-z_]\w*)
  | (?P<newline>\n)
  | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"!?[A-Za-z_]\w*")
_SPACES = re.compile(r"\s+")
_WRITES = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|CREATE|ALTER|DROP|VACUUM|DO|SHARE|nextval"
    r"|set_config|pg_advisory_\w+)\b"
)
_OTHER_FOLDERS = {"migrations", "ragflow"}
_ON_COORDINATOR = re.compile(r"\basyncsvc\.(api_token_hash|maintenance|migration)\b")
"""The tables that Citus does not distribute."""
_IDEMPOTENT = re.compile(
    r"^Idempotent: (?P<is_conditional>if )?(?:(?P<names>[^:\n]*):)?", re.MULTILINE
)
_NO_TIMEOUT = re.compile(r"^Timeout: none\b", re.MULTILINE)
_READ_REPLICA = re.compile(r"^Read replica: ", re.MULTILINE)


class SQLFileError(Exception):
    """An SQL file breaks the rules: a bug in the library, and therefore not an `AsyncSvcError`."""


@dataclass(frozen=True)
class LineCondition:
    """The names that must be present and the names that must be absent."""

    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> LineCondition:
        """Parse `a, !b`. Raises ValueError if the text is not a list of names."""
        names = [name.strip() for name in text.split(",")]
        if not all(_NAME.fullmatch(name) for name in names):
            raise ValueError(text)
        absent = frozenset(name[1:] for name in names if name.startswith("!"))
        return cls(frozenset(name for name in names if not name.startswith("!")), absent)

    @property
    def names(self) -> frozenset[str]:
        """All names of the condition."""
        return self.present | self.absent

    def __and__(self, other: LineCondition) -> LineCondition:
        """Return the condition that holds if both conditions hold."""
        return LineCondition(self.present | other.present, self.absent | other.absent)

    def holds(self, present: frozenset[str]) -> bool:
        """Return whether the condition holds if these names are present and all others absent."""
        return self.present <= present and not self.absent & present


_ALWAYS: Final = LineCondition()


@dataclass(frozen=True)
class Line:
    """One line of a statement. Its text has a `%s` for each parameter."""

    text: str
    parameters: tuple[str, ...]
    condition: LineCondition = _ALWAYS
    """The condition of the line, including those of the blocks around it."""
    order: str | None = None
    """The flag that selects this ORDER BY line among others."""


@dataclass(frozen=True)
class Query:
    """A compiled statement with its arguments, in the order of their numbers."""

    name: str
    text: str
    arguments: tuple[object, ...]
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    """All present values by parameter name, also those whose lines were dropped."""
    is_idempotent: bool = False
    """Whether the statement may be retried if its outcome is unknown."""
    has_no_timeout: bool = False
    """Whether the statement may exceed `Settings.statement_timeout`."""
    allows_replica: bool = False
    """Whether a replica may run the statement, so that its rows may be slightly stale."""
    is_for_one_node: bool = False
    """Whether the statement writes rows of one tenant in several parts, see `database/citus.py`."""
    shard_of: str | None = None
    """The tenant on whose shard the statement runs, for a statement of all tenants of the shard."""


class _Variant(NamedTuple):
    """A compiled variant of a statement, for all values."""

    text: str
    parameters: tuple[str, ...]
    """The names of the parameters, by number."""
    is_idempotent: bool
    is_for_one_node: bool


class Statement:
    """One SQL file, parsed and checked."""

    def __init__(self, name: str, source: str) -> None:
        """Parse the source of the file `name`, such as `conversation/get_list`."""
        self.name = name
        self.header = _header(source)
        self._lines = tuple(_lines(name, source))
        marked = frozenset[str]().union(*(line.condition.names for line in self._lines))
        used = frozenset(p for line in self._lines for p in line.parameters)
        self.required = frozenset(
            p for line in self._lines if not line.condition.names for p in line.parameters
        )
        self.optional = used - self.required
        self.flags = marked - used
        self._null_flags = {
            name: flag for name in used if (flag := f"{name}_is_null") in self.flags
        }
        orders = [line.order for line in self._lines if line.order is not None]
        self.orders = frozenset(orders)
        self.first_order = orders[0] if orders else None
        self.idempotent_if = self._idempotent_if()
        self.has_no_timeout = _NO_TIMEOUT.search(self.header) is not None
        self.allows_replica = _READ_REPLICA.search(self.header) is not None
        self._check()
        # Bounded, because the filters that callers pass determine the number of variants.
        self._compile = lru_cache(maxsize=256)(self._compile_variant)

    def bind(self, flags: Iterable[str], parameters: Mapping[str, object]) -> Query:
        """Compile the variant with these flags and parameters present.

        Raises TypeError for an unknown name, a missing required parameter, and for less or more
        than one order. Each is a bug in the calling repository.
        """
        raised, values = tuple(flags), dict[str, object]()
        for name, value in parameters.items():
            if value is None and name in self._null_flags:
                raised += (self._null_flags[name],)
            elif value is not UNSET:
                values[name] = value
        variant = self._compile(raised, tuple(parameters), tuple(values))
        return Query(
            self.name,
            variant.text,
            tuple([values[name] for name in variant.parameters]),
            values,
            is_idempotent=variant.is_idempotent,
            has_no_timeout=self.has_no_timeout,
            allows_replica=self.allows_replica,
            is_for_one_node=variant.is_for_one_node,
        )

    def _compile_variant(
        self, raised: tuple[str, ...], passed: tuple[str, ...], with_value: tuple[str, ...]
    ) -> _Variant:
        flags = frozenset(raised)
        if unknown := (flags - self.flags) | (set(passed) - self.required - self.optional):
            raise TypeError(f"{self.name} has no {', '.join(sorted(unknown))}")
        if missing := self.required.difference(with_value):
            raise TypeError(f"{self.name} needs {', '.join(sorted(missing))}")
        if self.orders and len(flags & self.orders) != 1:
            raise TypeError(f"{self.name} needs one of {', '.join(sorted(self.orders))}")
        present, numbers = flags.union(with_value), dict[str, int]()
        kept = [f"/* asyncsvc {self.name} */"]
        for line in self._lines:
            if line.condition.holds(present):
                numbered = (f"${numbers.setdefault(p, len(numbers) + 1)}" for p in line.parameters)
                kept.append(line.text % tuple(numbered))
        text = "\n".join(kept)
        is_idempotent = self.idempotent_if is not None and self.idempotent_if.holds(present)
        return _Variant(text, tuple(numbers), is_idempotent, self._is_for_one_node(text))

    def _idempotent_if(self) -> LineCondition | None:
        """Return the condition under which the statement may be retried; None: never."""
        if self._only_reads():
            return _ALWAYS
        label = _IDEMPOTENT.search(self.header)
        if label is None:
            return None
        if not label["is_conditional"]:
            return _ALWAYS
        if label["names"] is None:
            raise SQLFileError(f"{self.name}: Idempotent: if needs a list of names and a colon")
        condition = _condition(self.name, label["names"])
        if unknown := condition.names - self.flags - self.optional:
            raise SQLFileError(f"{self.name}: Idempotent: no {', '.join(sorted(unknown))}")
        return condition

    def _only_reads(self) -> bool:
        """Return whether the statement neither writes nor locks rows."""
        return not any(_WRITES.search(line.text) for line in self._lines)

    def _is_for_one_node(self, text: str) -> bool:
        """Return whether a variant writes or locks rows of one tenant in several parts."""
        return (
            self._lines[0].text.startswith("WITH")
            and "tenant_id" in self.required
            and not self._only_reads()
            and not _ON_COORDINATOR.search(text)
        )

    def _check(self) -> None:
        if not self.header:
            raise SQLFileError(f"{self.name}: the header is missing")
        if not self._lines:
            raise SQLFileError(f"{self.name}: the statement is missing")
        for line in self._lines:
            unguarded = set(line.parameters) - self.required - line.condition.present
            if unguarded:
                raise SQLFileError(
                    f"{self.name}: a line uses {', '.join(sorted(unguarded))} and is kept without "
                    f"it: {line.text.strip()}"
                )
        if self.allows_replica and not self._only_reads():
            raise SQLFileError(f"{self.name}: the statement writes, which a replica cannot")


def _header(source: str) -> str:
    """Return the comment at the beginning of the file, without its dashes."""
    lines = []
    for line in source.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    return "\n".join(lines)


def _lines(name: str, source: str) -> Iterator[Line]:
    """Yield the lines with their conditions, without comments and empty lines."""
    text, parameters, mark = "", list[str](), ""
    blocks = list[LineCondition]()
    for kind, token in (*_tokens(source), ("newline", "\n")):
        if kind == "parameter":
            text += "%s"
            parameters.append(token)
        elif kind == "mark":
            mark = token.removeprefix("--?").strip()
        elif kind == "end":
            raise SQLFileError(f"{name}: a file holds 1 statement, without a semicolon")
        elif kind == "newline":
            if not mark.endswith("{") and mark != "}":
                yield from _line(name, text.rstrip(), tuple(parameters), mark, blocks)
            elif text.strip():
                raise SQLFileError(f"{name}: a block mark needs a line of its own: {text.strip()}")
            else:
                _open_or_close_block(name, mark, blocks)
            text, parameters, mark = "", [], ""
        elif kind != "comment":
            text += token.replace("%", "%%")
    if blocks:
        raise SQLFileError(f"{name}: a block is not closed")


def _open_or_close_block(name: str, mark: str, blocks: list[LineCondition]) -> None:
    """Add the condition of a block to those of the open blocks, or remove the last one."""
    if mark != "}":
        blocks.append(_condition(name, mark[:-1]))
    elif blocks:
        blocks.pop()
    else:
        raise SQLFileError(f"{name}: no block is open: {mark}")


def _line(
    name: str, text: str, parameters: tuple[str, ...], mark: str, blocks: list[LineCondition]
) -> Iterator[Line]:
    """Yield the line, unless it is empty."""
    if not text:
        if mark:
            raise SQLFileError(f"{name}: a mark needs a line: {mark}")
        return
    own = _condition(name, mark) if mark else _ALWAYS
    is_order = len(own.present) == 1 and text.lstrip().upper().startswith("ORDER BY")
    order = next(iter(own.present)) if is_order else None
    yield Line(text, parameters, functools.reduce(LineCondition.__and__, blocks, own), order)


def _condition(name: str, text: str) -> LineCondition:
    try:
        return LineCondition.parse(text)
    except ValueError:
        raise SQLFileError(f"{name}: not a list of names: {text}") from None


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    """Yield each token: its kind in `_TOKEN` or "text", and its text or parameter name."""
    position = 0
    for match in _TOKEN.finditer(source):
        if match.start() > position:
            yield "text", source[position : match.start()]
        kind = match.lastgroup if match.lastgroup != "tag" else "opaque"
        yield str(kind), match["parameter"] or match[0]
        position = match.end()
    if position < len(source):
        yield "text", source[position:]


def commands(source: str) -> list[str]:
    """Split a migration into its commands, without comments and with single spaces between words.

    Strings and the bodies of functions stay as they are.
    """
    split, current = list[str](), ""
    for kind, token in _tokens(source):
        if kind == "end":
            split.append(current.strip())
            current = ""
        elif kind == "opaque":
            current += token
        elif kind == "parameter":
            current += f":{token}"
        else:
            space = " " if kind != "text" else _SPACES.sub(" ", token)
            current += space.lstrip() if current.endswith(" ") else space
    return [command for command in (*split, current.strip()) if command]


@cache
def root() -> Traversable:
    """Return the folder of the SQL files: in the package of a wheel, otherwise next to it."""
    packaged = files("asyncsvc") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "sql"


@cache
def load(name: str) -> Statement:
    """Read `sql/<name>.sql` once. Raises SQLFileError if it breaks the rules."""
    return Statement(name, (root() / f"{name}.sql").read_text(encoding="utf-8"))


@cache
def names() -> tuple[str, ...]:
    """Return the sorted names of the statements on the tables of asyncsvc.

    Without the migrations and without `sql/ragflow`, which runs on RAGFlow's database.
    """
    statements = (
        f"{folder.name}/{file.name.removesuffix('.sql')}"
        for folder in root().iterdir()
        if folder.is_dir() and folder.name not in _OTHER_FOLDERS
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    )
    return tuple(sorted(statements))
