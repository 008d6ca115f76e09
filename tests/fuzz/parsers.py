"""Fuzz exports, JSON, text, cursors and SQL files with atheris, which is guided by coverage.

    python -m tests.fuzz.parsers --seconds 180

The group `fuzz` has atheris. A finding ends the run with a traceback and a file of the input.
"""

import argparse
import io
import json
import sys
import unicodedata

import atheris

INSTRUMENTED = [
    "asyncsvc.exports",
    "asyncsvc.cli.export_reader",
    "asyncsvc.database.sql_files",
    "asyncsvc.validation",
]
with atheris.instrument_imports(include=INSTRUMENTED):
    from datetime import UTC

    from pydantic_core import PydanticCustomError

    from asyncsvc import InvalidInput, Settings
    from asyncsvc.cli.archives import Archive, DamagedEntryError, ExportFile
    from asyncsvc.cli.export_reader import read_items
    from asyncsvc.cli.import_context import ImportContext
    from asyncsvc.cli.runner import CommandError
    from asyncsvc.database.sql_files import SQLFileError, Statement, commands
    from asyncsvc.exports import READERS, UnreadableError, read_conversation
    from asyncsvc.exports.json_values import parse_object
    from asyncsvc.exports.splitter import ArraySplitter
    from asyncsvc.validation.cursors import decode_cursor
    from asyncsvc.validation.dates import instants
    from asyncsvc.validation.json_values import check_json, stored_json
    from asyncsvc.validation.nfc import to_nfc
    from asyncsvc.validation.unstorable import replace_in_json

SETTINGS = Settings()


def split_array(data: bytes) -> None:
    """Split in blocks of any size; if the input is JSON, the elements are those of `json`."""
    size = data[0] % 32 + 1 if data else 1
    raw = b"[" + data[1:]
    splitter = ArraySplitter()
    elements = [
        each.raw for each in splitter.split(raw[at : at + size] for at in range(0, len(raw), size))
    ]
    try:
        values = json.loads(raw.decode())  # json.loads also detects UTF-16, which is no export
    except (ValueError, RecursionError):
        return
    assert [json.loads(each) for each in elements] == values
    assert not splitter.has_rest


def parse(data: bytes) -> None:
    """Parse an object, and read it with each reader."""
    try:
        value = parse_object(data, nan=lambda: None)
    except UnreadableError:
        return
    for reader in READERS:
        reader.matches(value)
        try:
            read_conversation(value, reader=reader)
        except UnreadableError:
            continue


def read_file(data: bytes) -> None:
    """Read a file of any content like the command."""
    stream = io.BufferedReader(io.BytesIO(data))
    try:
        list(read_items(stream, "x", ImportContext(tz=UTC, settings=Settings())))
    except CommandError:
        return


def read_archive(data: bytes) -> None:
    """Read all entries of an archive."""
    file = io.BufferedReader(io.BytesIO(b"PK\x03\x04" + data))
    try:
        for entry in Archive(file, "x").entries():
            if isinstance(entry, ExportFile):
                with entry.open() as stream:
                    stream.read(2**16)
    except (CommandError, DamagedEntryError):
        return


def normalize(data: bytes) -> None:
    """Normalize a text, which equals Python's result."""
    text = data.decode("utf-8", "ignore")
    assert to_nfc(text) == unicodedata.normalize("NFC", text)


def store_json(data: bytes) -> None:
    """Check a JSON value; the stored text of an accepted value means the value."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        value, _ = replace_in_json(value)
        check_json(value, SETTINGS)
    except (PydanticCustomError, RecursionError):
        return
    assert json.loads(stored_json(value)) == value


def read_text_arguments(data: bytes) -> None:
    """Decode a cursor and dates."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (
        lambda: decode_cursor(text, "", SETTINGS),
        lambda: instants(text, None, "Europe/Berlin"),
        lambda: instants(None, "2026-01-01", text),
    ):
        try:
            read()
        except InvalidInput:
            continue


def load_sql(data: bytes) -> None:
    """Load a file of SQL, and bind it without arguments."""
    source = data.decode("utf-8", "ignore")
    try:
        commands(source)
        Statement("x/y", source).bind((), {})
    except (SQLFileError, TypeError):
        return


TARGETS = (
    split_array,
    parse,
    read_file,
    read_archive,
    normalize,
    store_json,
    read_text_arguments,
    load_sql,
)


def test_one_input(data: bytes) -> None:
    """Run the target that the first byte selects."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Fuzz for some seconds, from inputs of each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("corpus", nargs="*", help="folders of inputs")
    options = parser.parse_args()
    arguments = [sys.argv[0], f"-max_total_time={options.seconds}", "-timeout=20", *options.corpus]
    atheris.Setup(arguments, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
