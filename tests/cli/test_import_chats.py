"""`asyncsvc import` of chat exports: archives, folders, shards, later exports, the report."""

import asyncio
import gzip
import io
import json
import pathlib
import stat
import subprocess
import zipfile
from collections.abc import Callable

import pytest

from tests.cli.test_demo import environment
from tests.support.command_line import failed, run_and_measure, run_command

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ACME = ("--tenant", "acme", "--dialog", "d", "--json")


@pytest.fixture
def run(dsn: str, tmp_path: pathlib.Path) -> Run:
    """Run a command on the database of this test."""

    def call(*arguments: object):
        return run_command(arguments, environment(tmp_path) | {"ASYNCSVC_DSN": dsn})

    return call


def talk(id: str | None, *texts: str, **more: object) -> dict[str, object]:
    """Return a conversation of ChatGPT: questions and answers in turns."""
    nodes: dict[str, object] = {"r": {"id": "r", "parent": None, "message": None}}
    parent = "r"
    for at, text in enumerate(texts):
        message = {
            "id": f"m{at}", "author": {"role": "assistant" if at % 2 else "user"},
            "content": {"content_type": "text", "parts": [text]}, "create_time": 1_000.5 + at,
        }  # fmt: skip
        nodes[f"n{at}"] = {"id": f"n{at}", "parent": parent, "message": message}
        parent = f"n{at}"
    return {"conversation_id": id, "title": "t", "mapping": nodes, "current_node": parent} | more


def report(finished, code: int = 0) -> dict[str, object]:
    assert finished.returncode == code, (finished.stdout, finished.stderr)
    return json.loads(finished.stdout)


def zipped(files: dict[str, bytes | str]) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return file.getvalue()


async def ids(svc) -> list[str]:
    return [each.id async for each in svc.conversations.export(tenant_id="acme")]


BAD = {
    "lone surrogate": b"\\ude00",
    "surrogates in the wrong order": b"\\ude00\\ud83d",
    "bytes that are not UTF-8": b"\xff",
}


async def test_one_invalid_conversation_does_not_stop_the_others(run: Run, svc, tmp_path):
    export = [talk("a", "x")]
    export += [talk(f"bad{at}", "XX") for at in range(len(BAD))]
    export += [talk("nan", "x", score=float("nan")), talk("b", "x")]
    raw = json.dumps(export).encode()
    for written in BAD.values():
        raw = raw.replace(b"XX", written, 1)
    (tmp_path / "conversations.json").write_bytes(b"\xef\xbb\xbf" + raw)
    result = report(run("import", tmp_path / "conversations.json", *ACME), 3)
    assert await ids(svc) == ["a", "b"]
    assert {each["number"]: each["id"] for each in result["rejections"]} == {
        2: "bad0", 3: "bad1", 4: None, 5: None,
    }  # fmt: skip
    (tmp_path / "settings").write_text('{"unstorable_text": "replace"}')
    replaced = ("--settings", tmp_path / "settings")
    result = report(run("import", tmp_path / "conversations.json", *ACME, *replaced), 3)
    assert (result["conversations"], result["replaced_characters"]) == (2, 3)


async def test_later_exports_of_a_conversation_are_distinguished(run: Run, svc, tmp_path):
    file = tmp_path / "conversations.json"

    def import_file(*conversations: object, code: int = 0):
        file.write_text(json.dumps(conversations))
        return report(run("import", file, *ACME), code)

    import_file(*(talk(id, "one", "two") for id in "abcdef"))
    turn = {"messages": [{"role": "user", "content": "written here"}]}
    await svc.conversations.append_message("f", turn, tenant_id="acme")
    branch = talk("e", "one", "two")
    branch["mapping"]["x"] = {
        "id": "x", "parent": "n0",
        "message": branch["mapping"]["n1"]["message"]
        | {"id": "mx", "content": {"content_type": "text", "parts": ["another"]}},
    }  # fmt: skip
    branch["current_node"] = "x"
    result = import_file(
        talk("a", "one", "two"),
        talk("b", "one", "two", title="new"),
        talk("c", "one", "two", "three", "four"),
        talk("d", "one"),
        branch,
        talk("f", "one", "two", "three"),
        talk("a", "one"),
        code=3,
    )
    assert {key: result[key] for key in (
        "conversations", "unchanged", "renamed", "grown", "messages_appended", "older",
        "rewritten", "diverged", "duplicates",
    )} == {
        "conversations": 0, "unchanged": 1, "renamed": 1, "grown": 1, "messages_appended": 3,
        "older": 1, "rewritten": 1, "diverged": 1, "duplicates": 1,
    }  # fmt: skip
    assert [(each["number"], each["id"]) for each in result["rejections"]] == [(6, "f")]
    again = import_file(talk("c", "one", "two", "three", "four"))
    assert (again["unchanged"], again["messages"], again["messages_appended"]) == (1, 0, 0)


async def test_an_archive_is_read_in_place(run: Run, svc, tmp_path):
    feedback = [
        {"conversation_id": "a", "id": "m1", "rating": "thumbs_up"},
        {"conversation_id": "gone", "id": "m1", "rating": "thumbsDown"},
    ]
    files = ["conversations-000.json", "conversations-001.json", "conversations-003.json"]
    manifest = {"logical_files": {"conversations.json": {"files": files, "sharded": True}}}
    inner = zipped({"conversations.json": json.dumps([talk("deep", "x")])})
    link = zipfile.ZipInfo("link.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    data = zipped(
        {
            "export/conversations-001.json": json.dumps([talk("b", "x"), talk("a", "q", "r", "s")]),
            "export/conversations-000.json": json.dumps([talk("a", "q", "r")]),
            "export/conversations-004.json": "[]",
            "export/message_feedback.json": json.dumps(feedback),
            "export/export_manifest.json": json.dumps(manifest),
            "export/inner.zip": inner,
            "export/user.json": "{}",
            "export/other.json": '[{"some": "thing"}]',
            "export/picture.png": b"\x89PNG",
            "__MACOSX/export/._conversations-000.json": b"\0",
            "../evil.json": "[]",
            link: b"/etc/passwd",
        }
    )
    (tmp_path / "export.zip").write_bytes(data)
    result = report(run("import", tmp_path / "export.zip", *ACME), 3)
    assert await ids(svc) == ["a", "b", "deep"]
    stored = await svc.conversations.get_by_id("a", tenant_id="acme", include_messages=True)
    assert [each.content for each in stored.messages] == ["q", "r", "s"]
    assert (stored.thumb_up, stored.thumb_down) == (1, 0)
    assert result["missing"] == ["conversations-002.json", "conversations-003.json"]
    assert (result["duplicates"], result["feedback"], result["feedback_not_applied"]) == (1, 2, 0)
    prefix = f"{tmp_path}/export.zip/"
    reasons = {name.removeprefix(prefix): why for name, why in result["not_read"].items()}
    assert reasons.keys() == {
        "export/user.json", "export/other.json", "export/picture.png", "../evil.json", "link.json",
        "export/conversations-004.json",
    }  # fmt: skip
    assert "some" in reasons["export/other.json"]
    assert not (tmp_path.parent / "evil.json").exists()


async def test_folders_several_files_and_every_format(run: Run, svc, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/conversations.json").write_text(json.dumps([talk("chatgpt", "x")]))
    claude = {"uuid": "claude", "chat_messages": [{"uuid": "1", "sender": "human", "text": "x"}]}
    wrapped = json.dumps({"conversations": [claude]}).encode()
    (folder / "a.json.gz").write_bytes(gzip.compress(wrapped))
    (tmp_path / "secret.json").write_text(json.dumps([talk("secret", "x")]))
    (folder / "out.json").symlink_to(tmp_path / "secret.json")
    webui = {"id": "webui", "chat": {"messages": [{"role": "user", "content": "x"}]}}
    (tmp_path / "webui.json").write_text(json.dumps([webui]))
    libre = {"conversationId": "libre", "messages": [{"messageId": "1", "text": "x"}]}
    (tmp_path / "libre.json").write_text(json.dumps(libre, indent=2))
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "k"}], "n": float("nan")}
    lines = [{"messages": [{"role": "user", "content": "x"}]}, {"id": "line", "messages": [call]}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    names = [folder, *(tmp_path / name for name in ("webui.json", "libre.json", "lines.jsonl"))]
    result = report(run("import", *names, *ACME))
    stored = await ids(svc)
    assert len(stored) == result["conversations"] == 6
    assert {"chatgpt", "claude", "webui", "libre", "line"} < set(stored)
    assert result["changed"] == {"NaN or infinity replaced by null": 1}
    formats = {"chatgpt", "claude", "openwebui", "librechat", "openai"}
    assert set(result["formats"].values()) == formats
    assert list(result["not_read"].values()) == ["is a link out of the folder"]
    again = report(run("import", *names, *ACME))
    assert (again["conversations"], again["unchanged"]) == (0, 6)


UNKNOWN = {
    "array.json": (b'[{"some": 1, "thing": 2}]', "some, thing"),
    "empty.json": (b"[]", "no objects"),
    "numbers.json": (b"[" + b"0," * 100_000 + b"0]", "no objects"),
    "object.json": (b'{"some": {"x": 1}}', "some"),
    "a.pdf": (b"%PDF-1.7 x", "is a PDF"),
    "a.csv": (b"role,content\nuser,x\n", "is CSV"),
    "a.md": (b"### USER\nhello\n", "is text"),
    "a.db": (b"SQLite format 3\0", "is a database"),
    "utf16.json": ("\ufeff[]".encode("utf-16-le"), "is UTF-16"),
    "manifest-1.json": (
        b'{"data_files": [{"export_url": "https://x.example/conversations-000.zip?sig=1"}]}',
        "conversations-000.zip",
    ),
    "broken.zip": (b"PK\x03\x04 not an archive", "is a damaged ZIP archive"),
    "others.zip": (zipped({"readme.txt": "x", "a.json": "{}"}), "no conversations of a known"),
}


def test_a_file_without_conversations_is_an_error_with_a_hint(run: Run, svc, tmp_path):
    for name, (data, hint) in UNKNOWN.items():
        (tmp_path / name).write_bytes(data)
        line = failed(run("import", tmp_path / name, *ACME))
        assert hint in line, line
        assert str(tmp_path / name) in line


async def test_a_bomb_in_an_archive_does_not_stop_the_others(run: Run, svc, tmp_path):
    bomb = b'[{"mapping": {}, "x": "' + b"y" * 2**27 + b'"}]'
    first, last = (json.dumps([talk(id, "x")]) for id in "ac")
    data = zipped({"a.json": first, "b.json": bomb, "c.json": last})
    (tmp_path / "x.zip").write_bytes(data)
    result = report(run("import", tmp_path / "x.zip", *ACME), 3)
    assert await ids(svc) == ["a", "c"]
    assert "larger" in result["not_read"][f"{tmp_path}/x.zip/b.json"]


BOMBS = {
    "line of numbers": b'{"id": "x", "messages": [' + b"0," * 2**25 + b"0]}\n",
    "line of objects": b'{"id": "x", "messages": [' + b"{}," * 2**24 + b"{}]}\n",
    "invalid messages": b'{"id": "x", "messages": [' + b"{}," * 2**18 + b"{}]}\n",
    "array of objects": b'[{"mapping": {"a": [' + b"{}," * 2**24 + b"{}]}}]",
}


async def test_a_bomb_of_values_is_rejected_in_little_memory(run: Run, svc, dsn, tmp_path):
    good = json.dumps({"id": "good", "messages": [{"role": "user", "content": "x"}]}).encode()
    for name, bomb in BOMBS.items():
        data = bomb if bomb.startswith(b"[") else good + b"\n" + bomb
        (tmp_path / "bomb.gz").write_bytes(gzip.compress(data, 1))
        command = ["import", str(tmp_path / "bomb.gz"), *ACME, "--dsn", dsn]
        peak, done = await asyncio.to_thread(run_and_measure, command)
        code = 1 if bomb.startswith(b"[") else 3
        assert (done.returncode, peak < 600) == (code, True), (name, peak)


async def test_damaged_entries_do_not_stop_the_others(run: Run, svc, tmp_path):
    first, last = (json.dumps([talk(id, "x" * 500)]).encode() for id in "ac")
    data = bytearray(zipped({"a.json": first, "b.json": first, "c.json": last}))
    name = data.index(b"b.json")
    data[name + 6 : name + 30] = b"\xff" * 24  # the compressed bytes
    (tmp_path / "x.zip").write_bytes(data)
    result = report(run("import", tmp_path / "x.zip", *ACME), 3)
    assert await ids(svc) == ["a", "c"]
    assert "damaged" in result["not_read"][f"{tmp_path}/x.zip/b.json"]
