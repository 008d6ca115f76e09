"""The SQL files: found, read, and compiled to what the server is sent.

A file holds one statement below a header of prose. Two things in it are ours:

- `:name` is a parameter. Each becomes `$1`, `$2`, ... by its first use. Nothing is taken for one
  inside strings, quoted names, dollar quotes and comments, nor the colons of `::` and of slices
  (a colon that follows an operand or an opening bracket at once).
- A line that ends in `--? a, !b` is kept when `a` is present and `b` is not, and dropped otherwise.
  A name is a parameter, which is present when a value is passed (None is one, UNSET is none), or
  a flag, which appears in no text. Of the marked ORDER BY lines exactly one is kept.

So each combination that is in use is a plain statement with a plan of its own, instead of
`(:x IS NULL OR column = :x)`, whose plan the server may choose without looking at `:x`.

A statement may be run again when its outcome is unknown, since the connection was lost, if it only
reads, or if a paragraph of its header begins with `Repeatable:` and says why. One that begins with
`Patient:` says why it may take longer than `Settings.statement_timeout`; one with `Replica:` says
why what it returns may be a little old, so that a replica may answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeAlias

from asyncsvc.fields import UNSET

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
_MARK = re.compile(r"!?[A-Za-z_]\w*")
_Marks: TypeAlias = tuple[frozenset[str], frozenset[str]]
_NO_MARKS: _Marks = (frozenset(), frozenset())
_WRITES = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|CREATE|ALTER|DROP|VACUUM|DO|SHARE|nextval"
    r"|set_config|pg_advisory_\w+)\b"
)
_ELSEWHERE = {"migrations", "ragflow"}
_REPEATABLE = re.compile(r"^Repeatable: ", re.MULTILINE)
_PATIENT = re.compile(r"^Patient: ", re.MULTILINE)
_REPLICA = re.compile(r"^Replica: ", re.MULTILINE)


class SQLFileError(Exception):
    """A file breaks the rules. It is a mistake in this library, so no part of the error tree."""


@dataclass(frozen=True)
class Line:
    """One line of a statement: text with a `%s` for each parameter, and when it is kept."""

    text: str
    parameters: tuple[str, ...]
    marks: frozenset[str] = frozenset()
    """What has to be present."""
    refused: frozenset[str] = frozenset()
    """What must not be."""

    @property
    def is_order(self) -> bool:
        """Whether this is one of the ORDER BY lines of which one is kept."""
        return bool(self.marks) and self.text.lstrip().upper().startswith("ORDER BY")

    def is_kept(self, present: frozenset[str]) -> bool:
        """Say whether it belongs to the variant in which these are present."""
        return self.marks <= present and not self.refused & present


@dataclass(frozen=True)
class Query:
    """What the server is sent: a statement and its arguments, in order."""

    name: str
    text: str
    arguments: tuple[object, ...]
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The arguments by the names of their parameters, and those whose lines all went."""
    is_repeatable: bool = False
    """Whether it may be run again when its outcome is unknown."""
    is_patient: bool = False
    """Whether it may take as long as it takes."""
    is_replicable: bool = False
    """Whether a replica may answer it, which may be a little behind."""


class Statement:
    """One SQL file, read and checked."""

    def __init__(self, name: str, source: str) -> None:
        """Read the file `name`, as `conversation/get_list`, from its text."""
        self.name = name
        self.header = _header(source)
        self._lines = tuple(_lines(name, source))
        marked = frozenset[str]().union(*(line.marks | line.refused for line in self._lines))
        used = frozenset(p for line in self._lines for p in line.parameters)
        self.required = frozenset(
            p for line in self._lines if not line.marks | line.refused for p in line.parameters
        )
        self.optional = used - self.required
        self.flags = marked - used
        written = [mark for line in self._lines if line.is_order for mark in line.marks]
        self.orders = frozenset(written)
        self.first_order = written[0] if written else None
        self.is_repeatable = self._only_reads() or _REPEATABLE.search(self.header) is not None
        self.is_patient = _PATIENT.search(self.header) is not None
        self.is_replicable = _REPLICA.search(self.header) is not None
        self._check()
        # Bounded: a caller's filters choose the variant, so their number is not ours to trust.
        self._compile = lru_cache(maxsize=256)(self._compile_variant)

    def bind(self, flags: Iterable[str], parameters: Mapping[str, object]) -> Query:
        """Compile the variant in which these are present, with the arguments in their order.

        Raises TypeError for a name that the file does not have, a required one that is missing,
        and for any number of orders but one: mistakes in the calling repository.
        """
        given = {name: value for name, value in parameters.items() if value is not UNSET}
        text, order = self._compile(tuple(flags), tuple(parameters), tuple(given))
        arguments = tuple([given[name] for name in order])
        return Query(
            self.name,
            text,
            arguments,
            given,
            is_repeatable=self.is_repeatable,
            is_patient=self.is_patient,
            is_replicable=self.is_replicable,
        )

    def _compile_variant(
        self, raised: tuple[str, ...], passed: tuple[str, ...], given: tuple[str, ...]
    ) -> tuple[str, tuple[str, ...]]:
        flags = frozenset(raised)
        if unknown := (flags - self.flags) | (set(passed) - self.required - self.optional):
            raise TypeError(f"{self.name} has no {', '.join(sorted(unknown))}")
        if missing := self.required.difference(given):
            raise TypeError(f"{self.name} needs {', '.join(sorted(missing))}")
        if self.orders and len(flags & self.orders) != 1:
            raise TypeError(f"{self.name} needs one of {', '.join(sorted(self.orders))}")
        present, numbers = flags.union(given), dict[str, int]()
        kept = [f"/* asyncsvc {self.name} */"]
        for line in self._lines:
            if line.is_kept(present):
                places = [f"${numbers.setdefault(p, len(numbers) + 1)}" for p in line.parameters]
                kept.append(line.text % tuple(places))
        return "\n".join(kept), tuple(numbers)

    def _only_reads(self) -> bool:
        """Say whether it reads and no more; a locking read counts as more."""
        return not any(_WRITES.search(line.text) for line in self._lines)

    def _check(self) -> None:
        if not self.header:
            raise SQLFileError(f"{self.name}: no header says what it does")
        if not self._lines:
            raise SQLFileError(f"{self.name}: no statement")
        for line in self._lines:
            loose = set(line.parameters) - self.required - line.marks
            if loose:
                raise SQLFileError(
                    f"{self.name}: {', '.join(sorted(loose))} is used on a line that is kept "
                    f"without it: {line.text.strip()}"
                )
        if self.is_replicable and not self._only_reads():
            raise SQLFileError(f"{self.name}: writes, and a replica cannot")


def _header(source: str) -> str:
    """Return the comment that the file begins with, without its dashes."""
    lines = []
    for line in source.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    return "\n".join(lines)


def _lines(name: str, source: str) -> Iterator[Line]:
    """Split a file into its lines: without comments and empty ones, each with its marks."""
    text, parameters, marks = "", list[str](), _NO_MARKS
    for kind, token in (*_tokens(source), ("newline", "\n")):
        if kind == "parameter":
            text += "%s"
            parameters.append(token)
        elif kind == "mark":
            marks = _marks(name, token)
        elif kind == "end":
            raise SQLFileError(f"{name}: one statement a file, without a semicolon")
        elif kind == "newline":
            if text.strip():
                yield Line(text.rstrip(), tuple(parameters), *marks)
            text, parameters, marks = "", [], _NO_MARKS
        elif kind != "comment":
            text += token.replace("%", "%%")


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    """Cut a source into tokens: (kind of `_TOKEN`, or "text"; the text, or a parameter's name)."""
    position = 0
    for match in _TOKEN.finditer(source):
        if match.start() > position:
            yield "text", source[position : match.start()]
        kind = match.lastgroup if match.lastgroup != "tag" else "opaque"
        yield str(kind), match["parameter"] or match[0]
        position = match.end()
    if position < len(source):
        yield "text", source[position:]


def _marks(name: str, token: str) -> _Marks:
    """Return what a line asks to be present, and what not to be."""
    marks = [part.strip() for part in token.removeprefix("--?").split(",")]
    if not all(_MARK.fullmatch(mark) for mark in marks):
        raise SQLFileError(f"{name}: not a list of names: {token}")
    refused = frozenset(mark[1:] for mark in marks if mark.startswith("!"))
    return frozenset(mark for mark in marks if not mark.startswith("!")), refused


def commands(source: str) -> list[str]:
    """Split a migration into its commands, without comments: the server takes one at a time."""
    split, current = list[str](), ""
    for kind, token in _tokens(source):
        if kind == "end":
            split.append(current.strip())
            current = ""
        elif kind not in {"comment", "mark"}:
            current += f":{token}" if kind == "parameter" else token
    return [command for command in (*split, current.strip()) if command]


@cache
def root() -> Traversable:
    """Return the folder of the SQL files: within the package in a wheel, else beside it."""
    packaged = files("asyncsvc") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[1] / "sql"


@cache
def load(name: str) -> Statement:
    """Read `sql/<name>.sql`, once. Raises SQLFileError when it breaks the rules."""
    return Statement(name, (root() / f"{name}.sql").read_text(encoding="utf-8"))


def names() -> list[str]:
    """Return the names of the statements that run on our tables, sorted, for `load`.

    Migrations make these tables, and what moves RAGFlow's data runs on that database.
    """
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.sql')}"
        for folder in root().iterdir()
        if folder.is_dir() and folder.name not in _ELSEWHERE
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    )
