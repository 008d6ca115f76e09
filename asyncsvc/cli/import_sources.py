"""Read all conversations of a file, an archive or a folder, in the order of its files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from asyncsvc.cli.archives import (
    Archive,
    DamagedEntryError,
    Entry,
    SkippedFile,
    folder_entries,
    is_zip,
    spooled,
)
from asyncsvc.cli.export_reader import UnknownFormatError, read_items
from asyncsvc.cli.files import first_bytes
from asyncsvc.cli.import_context import ImportContext
from asyncsvc.cli.json_lines import Item
from asyncsvc.cli.runner import CommandError
from asyncsvc.exports import UnreadableError, chatgpt
from asyncsvc.exports.json_values import parse_object
from asyncsvc.exports.model import JsonObject
from asyncsvc.exports.splitter import MAX_ELEMENT_BYTES, ArraySplitter
from asyncsvc.exports.values import identifier, mapping, objects

_FEEDBACK: Final = "message_feedback.json"
_MANIFESTS: Final = ("export_manifest.json", "manifest-")
_NO_CONVERSATIONS: Final = {
    "shared_conversations.json", "model_comparisons.json", "group_chats.json", "sora.json",
    "shopping.json", "user.json", "users.json", "user_settings.json", "library_files.json",
    "conversation_asset_file_names.json", "projects.json", "memories.json",
}  # fmt: skip


def read_file(stream: io.BufferedReader, name: str, context: ImportContext) -> Iterator[Item]:
    """Read a file of the command line. Raises CommandError if it has no known format."""
    context.add_file(name)
    if is_zip(first_bytes(stream)):
        context.has_containers = True
        is_file = isinstance(stream.raw, io.FileIO) and stream.seekable()
        # The directory of an archive is at its end, so a pipe is copied.
        with nullcontext(stream) if is_file else spooled(stream, name) as file:
            yield from _read_archive(file, name, context, is_nested=False)
        return
    if is_side_file(Path(name).name):
        _read_side_file(stream, name, context)
        return
    yield from read_items(stream, name, context)


def read_folder(folder: Path, context: ImportContext) -> Iterator[Item]:
    """Read the exports of a folder. Raises CommandError if no file has a known format."""
    context.has_containers = True
    yield from _read_entries(folder_entries(folder), str(folder), context, is_nested=False)


def _read_archive(
    file: io.BufferedReader, name: str, context: ImportContext, *, is_nested: bool
) -> Iterator[Item]:
    entries = Archive(file, name).entries()
    yield from _read_entries(entries, name, context, is_nested=is_nested)


def _read_entries(
    entries: list[Entry], name: str, context: ImportContext, *, is_nested: bool
) -> Iterator[Item]:
    context.several_files = True
    known = len(context.formats)
    for entry in entries:
        if isinstance(entry, SkippedFile):
            context.not_read[entry.name] = entry.reason
            continue
        context.add_file(entry.name)
        try:
            with entry.open() as stream:
                yield from _read_entry(stream, entry.name, entry.base, context, is_nested=is_nested)
        except UnknownFormatError as error:
            context.not_read[entry.name] = str(error).removeprefix(f"{entry.name}: ")
        except DamagedEntryError as error:
            context.not_read[entry.name] = str(error).removeprefix(f"{entry.name}: ")
            context.cut_off.append(entry.name)
    if len(context.formats) == known and not is_nested:
        reasons = "; ".join(f"{file} {why}" for file, why in list(context.not_read.items())[:3])
        raise CommandError(
            f"{name}: has no conversations of a known format; {reasons or 'is empty'}"
        )


def _read_entry(
    stream: io.BufferedReader, name: str, base: str, context: ImportContext, *, is_nested: bool
) -> Iterator[Item]:
    if base in _NO_CONVERSATIONS:
        context.not_read[name] = "has no conversations"
    elif is_side_file(base):
        _read_side_file(stream, name, context, in_container=True)
    elif is_zip(first_bytes(stream)):
        if is_nested:
            context.not_read[name] = "is an archive in an archive in an archive"
            return
        with spooled(stream, name) as copy:
            yield from _read_archive(copy, name, context, is_nested=True)
    else:
        yield from read_items(stream, name, context)


# ---------------------------------------------------------------- feedback and manifests


def is_side_file(base: str) -> bool:
    """Return whether the name is that of a file about other files: feedback or a manifest."""
    return base == _FEEDBACK or base.startswith(_MANIFESTS)


def _read_side_file(
    stream: io.BufferedReader, name: str, context: ImportContext, *, in_container: bool = False
) -> None:
    if Path(name).name == _FEEDBACK:
        _read_feedback(stream, context)
        context.formats[name] = "feedback"
        return
    try:
        manifest = parse_object(stream.read(MAX_ELEMENT_BYTES + 1))
    except UnreadableError as error:
        context.not_read[name] = str(error)
        return
    listed = _listed_files(manifest)
    if not in_container and "data_files" in manifest:
        raise CommandError(
            f"{name}: lists the files of an export: download and import {', '.join(listed[:20])}"
        )
    context.listed |= {file for file in listed if "conversations" in file}


def _read_feedback(stream: io.BufferedReader, context: ImportContext) -> None:
    for element in ArraySplitter().split(iter(lambda: stream.read1(2**20), b"")):
        context.feedback_rows += 1
        try:
            row = chatgpt.read_feedback(parse_object(element.raw))
        except UnreadableError:
            continue
        if row is not None:
            place, thumb = row
            context.thumbs[place] = thumb


def _listed_files(manifest: JsonObject) -> list[str]:
    """Return the names of the files that a manifest of ChatGPT or Claude lists."""
    files = list[object](objects(manifest.get("data_files")))
    for logical in mapping(manifest.get("logical_files")).values():
        listed = mapping(logical).get("files")
        files += listed if isinstance(listed, list) else []
    names = (
        file
        if isinstance(file, str)
        else identifier(
            *(mapping(file).get(key) for key in ("file_name", "name", "path", "export_url"))
        )
        for file in files
    )
    return [name.partition("?")[0].rpartition("/")[2] for name in names if name]
