"""Servers that are not RAGFlow's MySQL: the import ends with one error, and sends no password."""

import asyncio
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from asyncsvc.errors import DatabaseError, InvalidInput, Unavailable
from asyncsvc.ragflow import drivers, mysql_guard
from asyncsvc.ragflow.source import open_source
from tests.cli.test_demo import environment
from tests.support.command_line import PROGRAM, SECONDS, failed

PASSWORD = b"the-secret-password"
SALT = b"12345678901234567890"
SSL, COMPRESSION, NO_EOF = 0x800, 0x20, 0x1000000
OK = b"\0\0\0\x02\0\0\0"
EOF = b"\xfe\0\0\x02\0"


def handshake(plugin: bytes = b"mysql_native_password") -> bytes:
    flags = 0xFFFFFFFF & ~(SSL | COMPRESSION | NO_EOF)
    return (
        b"\x0a8.0.0\0" + struct.pack("<I", 1) + SALT[:8] + b"\0"
        + struct.pack("<HBHHB", flags & 0xFFFF, 45, 2, flags >> 16, 21) + bytes(10)
        + SALT[8:] + b"\0" + plugin + b"\0"
    )  # fmt: skip


def switch(plugin: bytes) -> bytes:
    return b"\xfe" + plugin + b"\0" + SALT + b"\0"


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def column(name: bytes) -> bytes:
    names = text(b"def") + text(b"s") + text(b"t") * 2 + text(name) * 2
    return names + b"\x0c" + struct.pack("<HIBHB", 45, 1_000, 253, 0, 0) + b"\0\0"


def packets(*payloads: bytes, first: int = 1) -> bytes:
    return b"".join(
        struct.pack("<I", len(payload))[:3] + bytes([(first + at) % 256]) + payload
        for at, payload in enumerate(payloads)
    )


def table(columns: list[bytes], *rows: list[bytes]) -> bytes:
    cells = [b"".join(map(text, row)) for row in rows]
    return packets(bytes([len(columns)]), *map(column, columns), EOF, *cells, EOF)


@asynccontextmanager
async def rogue(
    first: bytes, answer: Callable[[int, bytes], bytes]
) -> AsyncIterator[tuple[str, bytearray]]:
    """Send the first bytes, then an answer to each packet, by its number and payload."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(first)
            for number in range(1_000):
                header = await reader.readexactly(4)
                payload = await reader.readexactly(int.from_bytes(header[:3], "little"))
                received.extend(payload)
                writer.write(answer(number, payload))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"mysql://u:{PASSWORD.decode()}@127.0.0.1:{port}/rag_flow", received


def after_login(answer: bytes) -> Callable[[int, bytes], bytes]:
    """Accept the login and its 2 commands; then send the answer to each statement."""

    def answer_to(number: int, _: bytes) -> bytes:
        return packets(OK, first=2 if number == 0 else 1) if number < 3 else answer

    return answer_to


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize(
    ("first", "answers"),
    [
        (handshake(), [packets(switch(b"mysql_clear_password"), first=2)]),
        (handshake(), [packets(switch(b"dialog") + b"\x01Password: ", first=2)]),
        (handshake(), [packets(b"\xfedialog\0\x04Password: ", first=2)]),
        (handshake(b"caching_sha2_password"), [packets(b"\x01\x04", first=2)]),
        (handshake(), [packets(switch(b"caching_sha2_password"), first=2),
                       packets(b"\x01\x04", first=4)]),
        (handshake(b"sha256_password"), [packets(b"\x01key", first=2)]),
        (handshake(), [packets(switch(b"sha256_password"), first=2)]),
    ],
    ids=["clear", "dialog", "prompt", "sha2", "switch to sha2", "sha256", "switch to sha256"],
)  # fmt: skip
async def test_no_server_gets_the_password_in_clear_text(first, answers):
    def answer(number: int, _: bytes) -> bytes:
        return answers[number] if number < len(answers) else packets(OK, first=6)

    async with rogue(packets(first, first=0), answer) as (dsn, received):
        with pytest.raises((DatabaseError, Unavailable)) as caught:
            async with open_source(dsn):
                pass
    assert PASSWORD not in received
    assert PASSWORD.decode() not in str(caught.value)
    if b"dialog" not in b"".join(answers):
        assert "allow_clear_text_password" in str(caught.value)
        assert received[-1:] not in (b"\x01", b"\x02")  # no public key of the server is asked for


async def test_a_password_in_clear_text_is_sent_if_the_caller_allows_it():
    def answer(number: int, _: bytes) -> bytes:
        refusal = packets(b"\xff\x15\x04#28000no", first=4)
        return packets(switch(b"mysql_clear_password"), first=2) if number == 0 else refusal

    async with rogue(packets(handshake(), first=0), answer) as (dsn, received):
        with pytest.raises(DatabaseError, match="no"):
            async with open_source(dsn, allow_clear_text=True):
                pass
    assert PASSWORD in received


# ---------------------------------------------------------------- damaged and endless answers

COLUMNS = [b"table_name", b"column_name", b"collation_name"]
FIRST = {
    "nothing": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(1_000),
    "ones": b"\xff" * 1_000,
    "an empty packet": packets(b"", first=0),
    "a short handshake": packets(handshake()[:12], first=0),
    "a wrong protocol": packets(b"\x09" + handshake()[1:], first=0),
    "no version": packets(b"\x0a" + b"x" * 100, first=0),
    "a version that is no number": packets(handshake().replace(b"8.0.0", b"x.y.z"), first=0),
    "a wrong number": packets(handshake(), first=7),
    "an unknown plugin": packets(handshake(b"\xff\xfe"), first=0),
}
ANSWERS = {
    "an empty packet": packets(b""),
    "a local file": packets(b"\xfb/etc/passwd"),
    "a huge count of columns": packets(b"\xfe" + b"\xff" * 8) + bytes(999),
    "a damaged column": packets(b"\x01", b"\xfa\xfb\xfc"),
    "a damaged row": packets(b"\x01", column(b"x"), EOF, b"\xfc\xff\xff", EOF),
    "bytes that are no UTF-8": table([b"table_name"], [b"\xff\xfe"]),
    "other columns": table([b"x"], [b"1"]),
    "a wrong number": packets(OK, first=9),
    "a damaged error": packets(b"\xff"),
    "random bytes": bytes(range(256)) * 9,
    "other rows": table(COLUMNS, *[[b"api_4_conversation", name, b"utf8"] for name in
                                   (b"id", b"dialog_id", b"user_id", b"message")],
                        *[[b"dialog", name, b"utf8"] for name in (b"id", b"tenant_id")]),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
async def test_a_false_login_ends_in_one_error(name, monkeypatch):
    if name == "nothing":  # the only one that waits for the timeout
        monkeypatch.setattr(drivers, "_CONNECT_SECONDS", 1.0)
    async with rogue(FIRST[name], lambda *_: packets(b"\x05\x05", first=2)) as (dsn, received):
        with pytest.raises((Unavailable, DatabaseError), match="the source: "):
            async with asyncio.timeout(30), open_source(dsn.replace("rag_flow", "x")):
                pass
    assert PASSWORD not in received


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_false_answer_ends_in_one_error(name):
    start = packets(handshake(), first=0)
    async with rogue(start, after_login(ANSWERS[name])) as (dsn, _):
        with pytest.raises((Unavailable, DatabaseError, InvalidInput), match="source"):
            async with asyncio.timeout(30), open_source(dsn) as source:
                await source.count(after=None, tenant_id=None, orphans=False)


async def test_an_endless_answer_ends_at_a_limit(monkeypatch):
    monkeypatch.setattr(mysql_guard, "MAX_RESULT_BYTES", 2**20)
    rows = [text(b"x" * 200) for _ in range(10_000)]
    answer = packets(b"\x01", column(b"table_name"), EOF, *rows)
    async with rogue(packets(handshake(), first=0), after_login(answer)) as (dsn, _):
        with pytest.raises(Unavailable, match="sent more than"):
            async with open_source(dsn):
                pass


async def test_pages_that_repeat_end_in_an_error():
    columns = ANSWERS["other rows"]
    sizes = table([b"id", b"bytes", *(b"dialog_id", b"user_id", b"message", b"dialog_tenant_id")],
                  [b"a", b"9", b"d", b"u", b"[]", b"t"])  # fmt: skip

    def answer(number: int, _: bytes) -> bytes:
        return after_login(columns if number == 3 else sizes)(number, b"")

    async with rogue(packets(handshake(), first=0), answer) as (dsn, _):
        with pytest.raises(DatabaseError, match="the source: its"):
            async with open_source(dsn) as source:
                async for _batch in source.pages(after=None, tenant_id=None, orphans=False):
                    pass


async def test_the_command_prints_one_line(dsn, tmp_path):
    start = packets(handshake(), first=0)
    async with rogue(start, after_login(ANSWERS["a damaged row"])) as (source, _):
        env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn, "ASYNCSVC_RAGFLOW_DSN": source}
        finished = await asyncio.to_thread(
            subprocess.run,
            [*PROGRAM, "import-ragflow", "--tz", "UTC"],
            env=env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    line = failed(finished)
    assert "the source" in line
    assert PASSWORD.decode() not in line
