"""Results of commands: JSON documents, lists of names and values, counts."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from pydantic import BaseModel
from rich.cells import cell_len
from rich.text import Text

from asyncsvc import Page
from asyncsvc.cli.terminal import (
    Column,
    console,
    print_table,
    printable,
    printable_json,
    printable_lines,
    say,
)

T = TypeVar("T")


def print_json(value: object) -> None:
    """Print one indented JSON document: models as their fields, times as ISO 8601."""
    text = json.dumps(value, default=_jsonable, ensure_ascii=False, indent=2)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    print(printable_json(text) if is_terminal else text)  # noqa: T201


def print_csv(names: Sequence[str], rows: Sequence[BaseModel]) -> None:
    """Print CSV: a line of names, and a line for each model. None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump(mode="json") for row in rows)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    lines = text.getvalue()
    print(printable_lines(lines) if is_terminal else lines, end="")  # noqa: T201


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Print each name and its value on a line. Long values wrap between words, with an indent."""
    indent = max(map(len, pairs)) + 2
    for name, value in pairs.items():
        for at, line in enumerate(_wrapped(value, console().width - indent)):
            title = (f"{name if at == 0 else '':<{indent}}", "bold")
            console().print(Text.assemble(title, line), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines between words. A word, such as an id, is never broken."""
    first, *words = printable(text).split(" ")
    lines = [first]
    for word in words:
        if cell_len(longer := f"{lines[-1]} {word}") <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def print_page(noun: str, columns: Sequence[Column[T]], page: Page[T], *, as_json: bool) -> None:
    """Print one page of a list, and the option for the next page if there is one."""
    if as_json:
        print_json(page)
    elif page.items:
        print_table(columns, page.items)
    else:
        say(f"no {noun}")
    if page.next is not None and not as_json:
        print_next_page(f"--after {page.next}")


def print_next_page(option: str) -> None:
    """Print the option for the next page."""
    say(f"The next page: the same command with {option}")


def plain(value: Decimal | float) -> str:
    """Return a number without an exponent; a Decimal without trailing zeros after 2 places."""
    text = f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
    if isinstance(value, Decimal):
        whole, _, places = text.partition(".")
        text = f"{whole}.{places.rstrip('0'):0<2}"
    return text


def counted(count: int, noun: str) -> str:
    """Return a count and its noun, in the plural unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(type(value).__name__)
